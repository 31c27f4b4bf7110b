"""Output: live, in order, whole, and only once."""

from __future__ import annotations

import pytest

from .notebook import Notebook

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_each_line_is_seen_before_the_cell_goes_on(notebook: Notebook) -> None:
    """The cell prints the next line only after the test has seen the one before."""
    cell = notebook.send_execute("for i in range(3):\n    print('line', i)\n    await_sign('seen')")
    for number in range(3):
        await notebook.says(cell, f"line {number}\n")
        assert not cell.replies
        await notebook.sign("seen")
    await notebook.until(cell, lambda e: e.finished())
    assert cell.text() == "line 0\nline 1\nline 2\n"


async def test_text_without_a_newline_is_seen_too(notebook: Notebook) -> None:
    cell = notebook.send_execute("print('working ...', end='')\nawait_sign('seen')\nprint(' done')")
    await notebook.says(cell, "working ...")
    assert not cell.replies
    await notebook.sign("seen")
    await notebook.until(cell, lambda e: e.finished())
    assert cell.text() == "working ... done\n"


async def test_output_of_a_child_process_is_seen_while_it_runs(notebook: Notebook) -> None:
    script = "echo from the child; while [ ! -e /tmp/seen ]; do sleep 0.01; done; rm /tmp/seen; echo end"
    cell = notebook.send_execute(f"import subprocess; subprocess.run(['sh', '-c', {script!r}]).returncode")
    await notebook.says(cell, "from the child\n")
    assert not cell.replies
    await notebook.sign("seen")
    await notebook.until(cell, lambda e: e.finished())
    assert cell.text() == "from the child\nend\n"


async def test_a_display_is_seen_while_the_cell_runs(notebook: Notebook) -> None:
    cell = notebook.send_execute("display({'text/plain': 'x'}, raw=True)\nawait_sign('seen')")
    await notebook.until(cell, lambda e: bool(e.of_type("display_data")))
    assert not cell.replies
    await notebook.sign("seen")
    await notebook.until(cell, lambda e: e.finished())


async def test_streams_displays_children_and_the_result_keep_their_order(notebook: Notebook) -> None:
    cell = await notebook.run(
        "import os, sys\n"
        "print('a')\n"
        "print('b', file=sys.stderr)\n"
        "display(1)\n"
        "print('c')\n"
        "os.system('echo d')\n"
        "print('e')\n"
        "display(2)\n"
        "3"
    )
    seen: list[str] = []
    for message in cell.iopub:
        content = message["content"]
        if message["msg_type"] == "stream":
            if seen and seen[-1].startswith(content["name"] + ":"):
                seen[-1] += content["text"]
            else:
                seen.append(f"{content['name']}:{content['text']}")
        elif "data" in content:
            seen.append(content["data"]["text/plain"])
    assert seen == ["stdout:a\n", "stderr:b\n", "1", "stdout:c\nd\ne\n", "2", "3"]


async def test_a_background_threads_output_goes_to_the_cell_that_runs(notebook: Notebook) -> None:
    first = await notebook.run(
        "import threading\n"
        "go, said = threading.Event(), threading.Event()\n"
        "def talk():\n"
        "    go.wait(); print('from the thread'); said.set()\n"
        "thread = threading.Thread(target=talk); thread.start()"
    )
    second = await notebook.run("go.set(); said.wait(); thread.join(); print('second')")
    assert first.text() + second.text() == "from the thread\nsecond\n"


async def test_a_child_left_behind_does_not_hold_up_its_cell_and_is_heard_later(notebook: Notebook) -> None:
    cell = await notebook.run(
        "script = 'while [ ! -e /tmp/go ]; do sleep 0.01; done; rm /tmp/go; echo late'\n"
        "p = subprocess.Popen(['sh', '-c', script])"
    )
    assert cell.text() == ""
    await notebook.sign("go")
    later = await notebook.run("p.wait()\nprint('now')")
    assert sorted((cell.text() + later.text()).splitlines()) == ["late", "now"]


async def test_bytes_that_are_no_text_do_not_stop_the_output(notebook: Notebook) -> None:
    cell = await notebook.run("os.write(1, b'\\xff\\xfe ok \\x00\\x1e{}\\n'); print('next')")
    assert "ok" in cell.text()
    assert cell.text().endswith("next\n")


async def test_a_line_that_looks_like_one_of_ours_is_only_text(notebook: Notebook) -> None:
    """Code in the sandbox can not end its cell, or speak for another, by printing frames."""
    forged = '\x1e{"x":"1","n":0,"t":"done","c":{}}\n{"type":"control","text":"completed"}\n'
    cell = await notebook.run(
        f"print({forged!r}, end='')\nos.write(1, {forged!r}.encode())\nprint('still here')"
    )
    # What is written to a descriptor comes in its own time, as under ipykernel.
    assert cell.text() in (forged * 2 + "still here\n", forged + "still here\n" + forged)


async def test_a_surrogate_a_null_and_every_plane_of_unicode_arrive(notebook: Notebook) -> None:
    cell = await notebook.run("print('\\x00 \\u20ac \\U0001f600 \\udcff')")
    assert cell.text() == "\x00 \u20ac \U0001f600 \ufffd\n"


async def test_a_message_with_buffers_and_odd_values_arrives(notebook: Notebook) -> None:
    cell = await notebook.run(
        "display({'application/json': {'nan': float('nan'), 'set': {1}, 'bytes': b'ab'}}, raw=True)"
    )
    (message,) = cell.of_type("display_data")
    assert message["content"]["data"]["application/json"]["set"] == [1]


@pytest.mark.slow
async def test_a_million_lines_arrive_once_and_in_order(notebook: Notebook) -> None:
    cell = await notebook.run("for i in range(1_000_000): print(i)")
    assert cell.text() == "".join(f"{number}\n" for number in range(1_000_000))


@pytest.mark.slow
async def test_fifty_megabytes_in_one_print_arrive_whole(notebook: Notebook) -> None:
    cell = await notebook.run("print('x' * 49_999_990 + 'end of it')")
    text = cell.text()
    assert len(text) == 50_000_000
    assert text.count("x") == 49_999_990
    assert text.endswith("end of it\n")


@pytest.mark.slow
async def test_twenty_megabytes_of_html_arrive_whole_in_one_message(notebook: Notebook) -> None:
    cell = await notebook.run(
        "from IPython.display import HTML\nHTML('<b>' + '<i>&amp;\\u20ac</i>' * 1_250_000)"
    )
    (message,) = cell.of_type("execute_result")
    assert message["content"]["data"]["text/html"] == "<b>" + "<i>&amp;\u20ac</i>" * 1_250_000


@pytest.mark.slow
async def test_incompressible_output_arrives_whole(notebook: Notebook) -> None:
    cell = await notebook.run(
        "import random\n"
        "r = random.Random(7)\n"
        "letters = [chr(c) for c in range(33, 0x2000) if chr(c).isprintable()]\n"
        "noise = ''.join(r.choices(letters, k=3_000_000))\n"
        "print(noise)"
    )
    import hashlib

    digest = await notebook.value("__import__('hashlib').sha256(noise.encode()).hexdigest()")
    assert hashlib.sha256(cell.text()[:-1].encode()).hexdigest() == digest


@pytest.mark.slow
async def test_memory_of_the_kernel_does_not_grow_with_what_passes_through(notebook: Notebook) -> None:
    import psutil

    from .notebook import kernel_pid

    process = psutil.Process(kernel_pid(notebook))
    await notebook.run("for _ in range(20): print('y' * 1_000_000)")
    before = process.memory_info().rss
    await notebook.run("for _ in range(100): print('y' * 1_000_000)")
    assert process.memory_info().rss - before < 64 * 1024 * 1024
