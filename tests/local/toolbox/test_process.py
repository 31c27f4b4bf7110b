"""``/process/execute``: a command, its output and its end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest


async def test_output_and_exit_code_come_back(api, home):
    assert await api.run("echo out; echo err >&2; exit 42") == {"exitCode": 42, "result": "out\nerr\n"}


async def test_commands_start_in_the_working_directory_or_where_asked(api, home, daemon):
    assert (await api.run("pwd"))["result"].strip() == str(daemon.home)
    assert (await api.run("pwd", cwd=home.name))["result"].strip() == str(home)


async def test_a_missing_directory_is_an_answer_not_an_error(api):
    answer = await api.run("pwd", cwd="/no/such/dir")
    assert answer["exitCode"] == -1
    assert "/no/such/dir" in answer["result"]


async def test_the_environment_is_the_sandboxs_and_nothing_of_the_daemons(api, daemon):
    lines = (await api.run("env", envs={"MINE": "a'b\"c$d"}))["result"].splitlines()
    names = {line.split("=")[0] for line in lines}
    assert "MINE=a'b\"c$d" in lines
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"MINE", *daemon.env}


@pytest.mark.parametrize("envs", [{"a-b": "x"}, {"1a": "x"}, {"": "x"}, {"A": 1}, {"A": "x\0y"}, ["A"]])
async def test_bad_environments_are_400(api, envs):
    await api.error("POST", "/process/execute", 400, json={"command": "env", "envs": envs})


@pytest.mark.parametrize("body", [{}, {"command": ""}, {"command": " \n"}, {"command": 5}, {"command": None}])
async def test_a_blank_command_is_400(api, body):
    await api.error("POST", "/process/execute", 400, json=body)


@pytest.mark.parametrize("timeout", [-1, 1.5, "3", True, 2**32])
async def test_a_timeout_that_is_no_unsigned_integer_is_400(api, timeout):
    await api.error("POST", "/process/execute", 400, json={"command": "true", "timeout": timeout})


async def test_a_command_that_takes_too_long_is_killed_and_answered_408(api, home):
    error = await api.error(
        "POST", "/process/execute", 408, json={"command": f"echo $$ > {home}/pid; sleep 60", "timeout": 1}
    )
    assert error["code"] == "REQUEST_TIMEOUT"
    assert "timeout" in error["message"]
    pid = int((home / "pid").read_text())
    assert (await api.run(f"kill -0 {pid}"))["exitCode"] != 0


async def test_death_by_a_signal_is_minus_one(api):
    assert (await api.run("kill -KILL $$"))["exitCode"] == -1


async def test_a_program_that_reads_stdin_eats_the_rest_of_the_script(api):
    assert (await api.run("cat\necho eaten"))["result"] == "echo eaten\n"


async def test_output_that_is_not_utf8_or_holds_nul_arrives_readably(api):
    assert (await api.run(r"printf 'a\000b\377c'"))["result"] == "a\0b\ufffdc"


async def test_a_lone_surrogate_in_a_command_does_no_harm(api):
    assert (await api("POST", "/process/execute", data=b'{"command":"echo x\\ud800"}'))["exitCode"] == 0


async def test_large_output_and_a_large_script_pass(api):
    answer = await api.run("head -c 5000000 /dev/zero | tr '\\0' x")
    assert answer["result"] == "x" * 5_000_000
    script = "x='" + "y" * 900_000 + "'\necho ${#x}"
    assert (await api.run(script))["result"] == "900000\n"


async def test_a_background_child_with_the_output_open_delays_the_answer(api, home):
    """As on the real daemon; redirecting its output is the remedy."""
    os.mkfifo(home / "go")
    call = asyncio.create_task(api.run(f"(read x < {home}/go; echo late) & echo early"))
    redirected = await api.run("sleep 60 > /dev/null 2>&1 & echo $!")
    os.kill(int(redirected["result"]), signal.SIGKILL)
    assert not call.done()
    with open(home / "go", "w") as go:
        go.write("\n")
    assert (await call)["result"] == "early\nlate\n"


async def test_many_commands_run_at_once(api, home):
    os.mkfifo(home / "gate")
    waiting = [asyncio.create_task(api.run(f"read x < {home}/gate; echo {n}")) for n in range(20)]
    assert (await api.run("echo quick"))["result"] == "quick\n"
    gate = os.open(home / "gate", os.O_RDWR)
    os.write(gate, b"\n" * 20)
    assert [(await task)["result"] for task in waiting] == [f"{n}\n" for n in range(20)]
    os.close(gate)


async def test_here_documents_work(api):
    answer = await api.run("python3 - <<'END'\nprint(6 * 7)\nEND")
    assert answer == {"exitCode": 0, "result": "42\n"}
