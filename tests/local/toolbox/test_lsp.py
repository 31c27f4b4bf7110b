"""Language servers: the protocol's framing, and python-lsp-server at work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel.local.toolbox.lsp import completion_list, source_files, symbols
from daytona_kernel.local.toolbox.lsp_client import MessageParser

from .conftest import Api, start_daemon

needs_pylsp = pytest.mark.skipif(
    shutil.which("pylsp", path=str(Path(sys.executable).parent)) is None, reason="needs python-lsp-server"
)

SOURCE = '''class Greeter:
    """Greets."""

    def greet(self, name):
        return f"hello {name}"


def make_greeter():
    return Greeter()


make_greeter().
'''


def frame(message):
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\nContent-Type: x\r\n\r\n" % len(body) + body


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=5), st.integers(1, 40))
def test_messages_survive_any_cut(messages, step):
    data = b"".join(frame(message) for message in messages)
    parser = MessageParser()
    found = [m for i in range(0, len(data), step) for m in parser.feed(data[i : i + step])]
    assert found == messages


def test_what_is_no_message_is_skipped():
    data = b"Content-Length: 3\r\n\r\n{x}" + b"Nonsense\r\n\r\n" + frame([1]) + frame({"id": 1})
    assert list(MessageParser().feed(data)) == [{"id": 1}]


def test_nested_symbols_become_a_flat_list():
    place = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 5}}
    nested = [
        {"name": "A", "kind": 5, "range": place, "children": [{"name": "b", "kind": 6, "range": place}]}
    ]
    assert [(s["name"], s["location"]) for s in symbols(nested, "file:///x")] == [
        ("A", {"uri": "file:///x", "range": place}),
        ("b", {"uri": "file:///x", "range": place}),
    ]
    assert symbols(None, "") == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, {"isIncomplete": False, "items": []}),
        ([{"label": "a", "data": {}}], {"isIncomplete": False, "items": [{"label": "a"}]}),
        ({"isIncomplete": True, "items": []}, {"isIncomplete": True, "items": []}),
    ],
)
def test_completions_have_one_form(answer, expected):
    assert completion_list(answer) == expected


def test_a_search_leaves_out_what_is_not_the_projects(tmp_path):
    for name in ("a.py", "b.txt", "pkg/c.py", ".venv/d.py", "node_modules/e.py", "lib/site-packages/f.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = [os.path.relpath(path, tmp_path) for path in source_files(str(tmp_path), (".py",))]
    assert found == ["a.py", "pkg/c.py"]


@needs_pylsp
async def test_a_python_project_from_start_to_stop(api, home):
    (home / "main file.py").write_text(SOURCE)
    project = {"languageId": "python", "pathToProject": home.name}
    document = {**project, "uri": f"file://{home.name}/main file.py"}  # as the SDK forms it
    await api("POST", "/lsp/start", json=project)
    await api("POST", "/lsp/start", json=project)  # again is no error
    await api("POST", "/lsp/did-open", json=document)
    found = await api("GET", "/lsp/document-symbols", params=document)
    by_name = {symbol["name"]: symbol for symbol in found}
    assert {"Greeter", "make_greeter"} <= set(by_name)
    location = by_name["make_greeter"]["location"]
    assert location["uri"] == f"file://{home}/main%20file.py"
    assert location["range"]["start"]["line"] == 7
    assert by_name["Greeter"]["kind"] == 5
    found = await api("GET", "/lsp/workspacesymbols", params={**project, "query": "greet"})
    assert {"Greeter", "make_greeter", "greet"} <= {symbol["name"] for symbol in found}
    answer = await api(
        "POST", "/lsp/completions", json={**document, "position": {"line": 11, "character": 15}}
    )
    assert "greet" in {item["label"].split("(")[0] for item in answer["items"]}
    await api(
        "POST", "/lsp/did-close", json={**project, "uri": "file://main file.py"}
    )  # relative to the project
    await api("POST", "/lsp/stop", json=project)
    error = await api.error("GET", "/lsp/document-symbols", 400, params=document)
    assert error["code"] == "LSP_SERVER_NOT_INITIALIZED"


@needs_pylsp
async def test_bad_requests_to_a_running_server(api, home):
    project = {"languageId": "python", "pathToProject": str(home)}
    await api("POST", "/lsp/start", json=project)
    document = {**project, "uri": "file://gone.py"}
    assert (await api.error("POST", "/lsp/did-open", 400, json=document))["code"] == "FILE_NOT_FOUND"
    for position in (None, {}, {"line": -1, "character": 0}, {"line": 0}):
        await api.error("POST", "/lsp/completions", 400, json={**document, "position": position})
    await api.error("POST", "/lsp/did-open", 400, json=project)
    await api("POST", "/lsp/stop", json=project)


def processes_in(directory):
    """The processes whose working directory is ``directory``: there is at least one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(directory):
                found.append(int(process.name))
        except OSError:
            continue  # ended, or not ours
    assert found
    return found


@needs_pylsp
async def test_a_server_that_dies_is_noticed_and_can_be_started_again(api, home):
    project = {"languageId": "python", "pathToProject": str(home)}
    await api("POST", "/lsp/start", json=project)
    for pid in processes_in(home):
        os.kill(pid, signal.SIGKILL)
    code = ""
    while code != "LSP_SERVER_NOT_INITIALIZED":
        async with api.session.get("/lsp/workspacesymbols", params={**project, "query": "x"}) as answer:
            code = (await answer.json())["code"] if answer.status != 200 else ""
    await api("POST", "/lsp/start", json=project)
    assert await api("GET", "/lsp/workspacesymbols", params={**project, "query": ""}) == []
    await api("POST", "/lsp/stop", json=project)


@pytest.mark.parametrize(
    "body",
    [{}, {"languageId": "python"}, {"languageId": "cobol", "pathToProject": "x"}, {"pathToProject": "x"}],
)
@pytest.mark.parametrize("verb", ["start", "stop", "did-open", "did-close", "completions"])
async def test_bad_requests_are_400(api, verb, body):
    await api.error("POST", f"/lsp/{verb}", 400, json=body)


@needs_pylsp
async def test_a_project_that_is_not_there_is_400(api, home):
    body = {"languageId": "python", "pathToProject": str(home / "gone")}
    await api.error("POST", "/lsp/start", 400, json=body)


async def test_a_missing_server_is_named_with_its_remedy(tmp_path):
    daemon = start_daemon(tmp_path / "home", env={"PATH": "/nowhere"})
    async with aiohttp.ClientSession(daemon.url) as session:
        body = {"languageId": "python", "pathToProject": "."}
        error = await Api(session).error("POST", "/lsp/start", 500, json=body)
        assert "pip install python-lsp-server" in error["message"]
    assert daemon.stop() == 0
