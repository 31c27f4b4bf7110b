"""The life of a kernel and of its sandbox: restart, shutdown, headless runs, neighbours, other clients."""

from __future__ import annotations

import asyncio

import pytest

from daytona_kernel.labels import LABEL_OWNER

from .conftest import Open
from .notebook import Notebook, Place, kill, running_notebook, until_true


async def restart(notebook: Notebook) -> None:
    """Restart as a front end does, and wait until the new kernel answers."""
    await notebook.manager.restart_kernel()
    answered = notebook.send("kernel_info_request", channel="control")
    await notebook.until(answered, lambda e: bool(e.replies))


@pytest.mark.parametrize("name", ["", "/notebooks/restarted.ipynb"])
async def test_a_restart_is_a_new_context_in_the_same_sandbox_with_its_files(
    open_notebook: Open, name: str
) -> None:
    """With and without a notebook that could find the sandbox again by its name."""
    async with open_notebook(JPY_SESSION_NAME=name) as notebook:
        await notebook.run("x = 1\nopen('kept.txt', 'w').write('still here')")
        before = notebook.state
        await restart(notebook)
        cell = await notebook.execute("print(open('kept.txt').read()); print('x' in globals())")
        assert cell.text() == "still here\nFalse\n"
        assert cell.content["execution_count"] == 1
        assert notebook.state["sandbox_id"] == before["sandbox_id"]
        assert notebook.state["context_id"] != before["context_id"]
        async with notebook.toolbox() as toolbox:
            contexts = {item["id"] for item in await toolbox.contexts()}
        assert before["context_id"] not in contexts


async def test_a_restart_ends_a_cell_that_can_not_be_interrupted(open_notebook: Open) -> None:
    async with open_notebook() as notebook:
        cell = notebook.send_execute(
            "import time\nprint('begun')\n"
            "while True:\n    try: time.sleep(3600)\n    except BaseException: pass"
        )
        await notebook.says(cell, "begun\n")
        await restart(notebook)
        assert (await notebook.run("print('new')")).text() == "new\n"


async def test_a_killed_kernel_that_is_restarted_has_its_sandbox_again(open_notebook: Open) -> None:
    async with open_notebook(JPY_SESSION_NAME="/notebooks/killed.ipynb") as notebook:
        await notebook.run("open('kept.txt', 'w').write('y')")
        sandbox = notebook.sandbox_id
        kill(notebook)
        await restart(notebook)
        assert (await notebook.run("print(open('kept.txt').read())")).text() == "y\n"
        assert notebook.sandbox_id == sandbox


async def test_what_a_killed_kernel_left_running_is_shown_and_its_variables_are_there_again(
    open_notebook: Open,
) -> None:
    """``kill -9`` of the real process while its cell runs, and a restart by the front end."""
    async with open_notebook(JPY_SESSION_NAME="/notebooks/missed.ipynb") as notebook:
        await notebook.run("kept = 5")
        cell = notebook.send_execute(
            "import time, os\nprint('seen', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(0.01)\nprint('not seen')"
        )
        await notebook.says(cell, "seen\n")
        kill(notebook)
        await restart(notebook)
        first = await notebook.execute("open('go', 'w').close(); 'kept' in globals()")
        assert "%daytona missed" in first.text("stderr")
        shown = (await notebook.run("%daytona missed")).text()
        assert shown == "seen\nnot seen\nThat cell ended well. Its variables are there again.\n"
        assert (await notebook.run("print(kept)")).text() == "5\n"


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ({"JPY_SESSION_NAME": "/notebooks/stopped.ipynb"}, "stopped"),
        ({}, None),
        ({"DAYTONA_KERNEL_ON_SHUTDOWN": "delete"}, None),
        ({"DAYTONA_KERNEL_ON_SHUTDOWN": "keep"}, "started"),
        ({"DAYTONA_KERNEL_HEADLESS": "1"}, None),
        ({"DAYTONA_KERNEL_HEADLESS": "1", "DAYTONA_KERNEL_ON_SHUTDOWN": "keep"}, "started"),
    ],
)
async def test_what_a_shutdown_leaves_of_the_sandbox(
    place: Place, open_notebook: Open, variables: dict[str, str], left: str | None
) -> None:
    async with open_notebook(**variables) as notebook:
        await notebook.run("1")
        sandbox = notebook.sandbox_id
        assert place.sandboxes()[sandbox]["state"] == "started"

    def state() -> str | None:
        found = place.sandboxes().get(sandbox)
        return found and found["state"]

    await until_true(lambda: state() in (left, "destroyed" if left is None else left))
    if left == "started":
        # the server looks for owners that are gone every two seconds; this one has none
        assert LABEL_OWNER not in place.sandboxes()[sandbox]["labels"]


async def test_a_shutdown_is_quick_even_while_a_cell_runs(open_notebook: Open) -> None:
    async with open_notebook() as notebook:
        cell = notebook.send_execute("import time\nprint('begun')\ntime.sleep(3600)")
        await notebook.says(cell, "begun\n")
        # jupyter_client kills a kernel that takes more than 5 s; then this reply would never come
        reply = await notebook.request("shutdown_request", {"restart": False}, channel="control")
        assert reply.content == {"status": "ok", "restart": False}


async def test_a_headless_kernel_that_is_killed_leaves_no_sandbox(place: Place) -> None:
    async with running_notebook(place, DAYTONA_KERNEL_HEADLESS="1") as notebook:
        await notebook.run("1")
        sandbox = notebook.sandbox_id
        kill(notebook)
        await until_true(lambda: place.sandboxes().get(sandbox, {}).get("state", "destroyed") == "destroyed")


async def test_a_kernel_that_is_ended_before_its_sandbox_is_ready_leaves_none(place: Place) -> None:
    before = set(place.sandboxes())
    async with running_notebook(place, DAYTONA_KERNEL_HEADLESS="1"):
        pass

    def left() -> list[str]:
        found = place.sandboxes()
        return [i for i in found if i not in before and found[i]["state"] not in ("destroyed", "destroying")]

    await until_true(lambda: not left())


async def test_a_notebook_that_is_opened_again_has_its_files_again(open_notebook: Open) -> None:
    name = "/notebooks/opened-twice.ipynb"
    async with open_notebook(JPY_SESSION_NAME=name) as notebook:
        await notebook.run("open('kept.txt', 'w').write('files stay')")
    async with open_notebook(JPY_SESSION_NAME=name) as notebook:
        cell = await notebook.run("print(open('kept.txt').read())")
        assert cell.text() == "files stay\n"
        assert "sandbox of last time" in cell.text("stderr")


async def test_two_kernels_do_not_see_each_other(open_notebook: Open) -> None:
    async with open_notebook() as first, open_notebook() as second:
        await asyncio.gather(first.run("mine = 'first'"), second.run("mine = 'second'"))
        found = await asyncio.gather(first.run("print(mine)"), second.run("print(mine)"))
        assert [cell.text() for cell in found] == ["first\n", "second\n"]
        assert first.sandbox_id != second.sandbox_id
        await first.run("open('/tmp/only-mine', 'w').close()")
        cell = await second.run("import os; print(os.path.exists('/tmp/only-mine'))")
        assert cell.text() == "False\n"


async def test_two_kernels_in_one_named_sandbox_do_not_see_each_others_variables(open_notebook: Open) -> None:
    async with open_notebook() as first:
        await first.run("mine = 1")
        async with open_notebook(DAYTONA_SANDBOX=first.sandbox_id) as second:
            cell = await second.run("print('mine' in globals())")
            assert cell.text() == "False\n"
            assert second.sandbox_id == first.sandbox_id
        # a named sandbox is never stopped by a kernel that did not make it
        assert (await first.run("print(mine)")).text() == "1\n"


async def test_a_plain_sdk_client_sees_the_notebooks_variables_and_the_notebook_sees_its(
    open_notebook: Open, place: Place
) -> None:
    from daytona import AsyncDaytona, DaytonaConfig

    async with open_notebook() as notebook:
        await notebook.run("x = 41\ndef double(n): return 2 * n")
        server = place.server()
        async with AsyncDaytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url)) as daytona:
            sandbox = await daytona.get(notebook.sandbox_id)
            contexts = await sandbox.code_interpreter.list_contexts()
            (context,) = [item for item in contexts if item.id == notebook.state["context_id"]]
            said: list[str] = []
            result = await sandbox.code_interpreter.run_code(
                "print(double(x)); x += 1; y = 'by the SDK'",
                context=context,
                on_stdout=lambda message: said.append(message.output),
            )
            assert result.error is None
            assert "".join(said) == "82\n"
            failed = await sandbox.code_interpreter.run_code("1/0", context=context)
            assert failed.error is not None
            assert failed.error.name == "ZeroDivisionError"
        assert (await notebook.run("print(x, y)")).text() == "42 by the SDK\n"


async def test_kernel_info_does_not_wait_for_the_sandbox(place: Place) -> None:
    """The kernel answers although its sandbox can not be had at all."""
    async with running_notebook(place, DAYTONA_SANDBOX="there-is-none") as notebook:
        info = await notebook.request("kernel_info_request")
        assert info.content["language_info"]["name"] == "python"
        assert info.content["status"] == "ok"


async def test_a_sandbox_that_was_stopped_meanwhile_is_started_again_and_the_loss_is_told(
    open_notebook: Open, place: Place
) -> None:
    from daytona import AsyncDaytona, DaytonaConfig

    async with open_notebook() as notebook:
        await notebook.run("x = 1\nopen('kept.txt', 'w').write('files stay')")
        server = place.server()
        async with AsyncDaytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url)) as daytona:
            await (await daytona.get(notebook.sandbox_id)).stop()
        cell = await notebook.run("print('x' in globals(), open('kept.txt').read())")
        assert cell.text() == "False files stay\n"
        assert "variables are lost" in cell.text("stderr")


async def test_a_sandbox_that_was_deleted_meanwhile_is_replaced_and_the_loss_is_told(
    open_notebook: Open, place: Place
) -> None:
    from daytona import AsyncDaytona, DaytonaConfig

    async with open_notebook() as notebook:
        await notebook.run("x = 1")
        gone = notebook.sandbox_id
        server = place.server()
        async with AsyncDaytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url)) as daytona:
            await (await daytona.get(gone)).delete()
        cell = await notebook.run("print('x' in globals())")
        assert cell.text() == "False\n"
        assert "variables and files are lost" in cell.text("stderr")
        assert notebook.sandbox_id != gone


async def test_the_local_server_leaves_nothing_behind(make_place: object) -> None:
    """`local stop` ends all processes of its sandboxes and removes what was temporary."""
    import psutil

    from daytona_kernel.local.launcher import stop

    assert callable(make_place)
    own: Place = make_place()
    async with running_notebook(own) as notebook:
        await notebook.run(
            "import subprocess; p = subprocess.Popen(['sleep', '3600'], start_new_session=True)"
        )
        processes = psutil.Process(own.server().pid).children(recursive=True)
        assert processes
    stop(own.paths)
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive
    assert not own.paths.server_file.exists()
    assert list(own.paths.socket_dir.glob("*")) == [] if own.paths.socket_dir.exists() else True
