"""Every operation of the toolbox's API, its answers held against the SDK's client and the description.

Calls are listed by family, in an order that makes sense; a value in braces comes from an earlier answer.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daytona_kernel.local.toolbox.desktop import programs

from ..operations import TOOLBOX, check_answer, described, operations, other_sdk
from .conftest import Daemon, start_daemon

MISSING = [name for name in (*programs.PACKAGES, "xterm") if programs.find(name, os.environ) is None]
SDK = {"X-Daytona-SDK-Version": "0.226.1"}


@dataclass(frozen=True)
class Call:
    """One request and what is expected of the answer."""

    method: str
    path: str
    status: int = 200
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    """Name for later calls -> key of the answer."""
    values: dict[str, str] = field(default_factory=dict)
    """For placeholders of the path."""


def git(path: str, status: int = 200, **body: Any) -> Call:
    """A POST with a repository's path."""
    return Call("POST", f"/git/{path}", status, json={"path": "{home}/repo", **body})


LSP = {"languageId": "python", "pathToProject": "{home}"}
PLACE = {"line": 0, "character": 4}
REPO = {"path": "{home}/repo"}
ONE = {"sessionId": "s"}
DESK = "/computeruse"

FAMILIES: dict[str, list[Call]] = {
    "info": [
        Call("GET", "/version"),
        Call("GET", "/work-dir"),
        Call("GET", "/user-home-dir"),
        Call("GET", "/system/metrics"),
        Call("POST", "/env", json={"set": {"CONTRACT": "1"}, "unset": ["NOTHING"]}),
        Call("GET", "/port"),
        Call("GET", "/port/{port}/in-use", values={"port": "3999"}),
        Call("GET", "/port/{port}/in-use", 400, values={"port": "80"}),
    ],
    "files": [
        Call("POST", "/files/folder", 201, query={"path": "{home}/c/d", "mode": "755"}),
        Call("POST", "/files/folder", 400, query={"path": "{home}/e", "mode": "99"}),
        Call("POST", "/files/upload-v2", query={"path": "{home}/c/a.txt"}, form={"file": "needle in hay\n"}),
        Call(
            "POST",
            "/files/bulk-upload",
            form={"files[0].path": "{home}/c/b.txt", "files[0].file": "more hay\n"},
        ),
        Call("GET", "/files", query={"path": "{home}/c"}),
        Call("GET", "/files", 404, query={"path": "{home}/none"}),
        Call("GET", "/files/info", query={"path": "{home}/c/a.txt"}),
        Call("GET", "/files/info", 404, query={"path": "{home}/none"}),
        Call("GET", "/files/find", query={"path": "{home}/c", "pattern": "needle"}),
        Call("GET", "/files/search", query={"path": "{home}/c", "pattern": "*.txt"}),
        Call(
            "POST",
            "/files/replace",
            json={"files": ["{home}/c/a.txt", "{home}/none"], "pattern": "needle", "newValue": "pin"},
        ),
        Call("POST", "/files/permissions", query={"path": "{home}/c/a.txt", "mode": "600"}),
        Call("POST", "/files/permissions", 404, query={"path": "{home}/none", "mode": "600"}),
        Call("POST", "/files/move", query={"source": "{home}/c/a.txt", "destination": "{home}/c/z.txt"}),
        Call("POST", "/files/move", 404, query={"source": "{home}/none", "destination": "{home}/c/y.txt"}),
        Call("POST", "/files/move", 409, query={"source": "{home}/c/z.txt", "destination": "{home}/c/b.txt"}),
        Call("GET", "/files/download", query={"path": "{home}/c/z.txt"}),
        Call("GET", "/files/download", 404, query={"path": "{home}/none"}),
        Call("POST", "/files/bulk-download", json={"paths": ["{home}/c/z.txt", "{home}/none"]}),
        Call("DELETE", "/files", 400, query={"path": "{home}/c"}),
        Call("DELETE", "/files", 204, query={"path": "{home}/c", "recursive": "true"}),
        Call("DELETE", "/files", 404, query={"path": "{home}/c"}),
    ],
    "git": [
        git("init", 201),
        Call(
            "POST", "/git/config/user", json={**REPO, "name": "N", "email": "n@example.org", "scope": "local"}
        ),
        Call("POST", "/git/config", json={**REPO, "key": "color.ui", "value": "never", "scope": "local"}),
        Call("GET", "/git/config", query={**REPO, "key": "color.ui", "scope": "local"}),
        Call("POST", "/git/credentials", json={"username": "u", "password": "p", "host": "git.example.org"}),
        Call("POST", "/files/upload-v2", query={"path": "{home}/repo/f"}, form={"file": "1"}),
        Call("GET", "/git/status", query=REPO),
        git("add", files=["f"]),
        git("commit", message="one", author="N", email="n@example.org"),
        git("commit", 400, message=""),
        Call("GET", "/git/history", query=REPO),
        Call("GET", "/git/history", 404, query={"path": "{home}/none"}),
        Call("POST", "/git/branches", 201, json={**REPO, "name": "side"}),
        Call("POST", "/git/branches", 409, json={**REPO, "name": "side"}),
        Call("GET", "/git/branches", query=REPO),
        git("checkout", branch="side"),
        git("checkout", 404, branch="none"),
        git("checkout", branch="main"),
        Call("DELETE", "/git/branches", 204, json={**REPO, "name": "side"}),
        git("reset", mode="hard"),
        git("restore", files=["f"]),
        Call("POST", "/git/clone", json={"url": "{home}/repo", "path": "{home}/clone"}),
        Call("POST", "/git/clone", 404, json={"url": "{home}/none", "path": "{home}/other"}),
        Call("POST", "/git/remotes", 201, json={"path": "{home}/clone", "name": "two", "url": "{home}/repo"}),
        Call("GET", "/git/remotes", query={"path": "{home}/clone"}),
        Call("POST", "/git/pull", json={"path": "{home}/clone"}),
        Call("POST", "/git/branches", 201, json={"path": "{home}/clone", "name": "pushed"}),
        Call("POST", "/git/checkout", json={"path": "{home}/clone", "branch": "pushed"}),
        Call("POST", "/git/push", json={"path": "{home}/clone"}),
    ],
    "process": [
        Call("POST", "/process/execute", json={"command": "echo hi; exit 3"}),
        Call("POST", "/process/execute", 400, json={"command": " "}),
        Call("POST", "/process/execute", 408, json={"command": "sleep 60", "timeout": 1}),
        Call("POST", "/process/code-run", json={"code": "print(1)", "language": "python"}),
        Call("POST", "/process/code-run", 400, json={"code": "x", "language": "cobol"}),
        Call("POST", "/process/session", 201, json=ONE),
        Call("POST", "/process/session", 409, json=ONE),
        Call("GET", "/process/session"),
        Call(
            "POST",
            "/process/session/{sessionId}/exec",
            202,
            json={"command": "read line; echo $line", "runAsync": True},
            values=ONE,
            keep={"commandId": "cmdId"},
        ),
        Call("POST", "/process/session/{sessionId}/command/{commandId}/input", 204, json={"data": "x"}),
        Call("POST", "/process/session/{sessionId}/exec", 200, json={"command": "echo done"}),
        Call("POST", "/process/session/{sessionId}/command/{commandId}/input", 410, json={"data": "x"}),
        Call("GET", "/process/session/{sessionId}"),
        Call("GET", "/process/session/{sessionId}/command/{commandId}"),
        Call("GET", "/process/session/{sessionId}/command/{commandId}/logs"),
        Call("DELETE", "/process/session/{sessionId}", 204),
        Call("GET", "/process/session/{sessionId}", 404),
        Call("DELETE", "/process/session/{sessionId}", 404),
        Call("GET", "/process/session/entrypoint"),
        Call("GET", "/process/session/entrypoint/logs"),
        Call("POST", "/process/pty", 201, json={"id": "p"}, keep={"sessionId": "sessionId"}),
        Call("POST", "/process/pty", 409, json={"id": "p"}),
        Call("GET", "/process/pty"),
        Call("GET", "/process/pty/{sessionId}"),
        Call("POST", "/process/pty/{sessionId}/resize", json={"cols": 100, "rows": 30}),
        Call("GET", "/process/pty/{sessionId}/connect", 101),
        Call("DELETE", "/process/pty/{sessionId}"),
        Call("GET", "/process/pty/{sessionId}", 404),
        Call("POST", "/process/pty/{sessionId}/resize", 410, json={"cols": 100, "rows": 30}),
    ],
    "interpreter": [
        Call("POST", "/process/interpreter/context", json={}, keep={"id": "id"}),
        Call("POST", "/process/interpreter/context", 400, json={"language": "cobol"}),
        Call("GET", "/process/interpreter/context"),
        Call("GET", "/process/interpreter/execute", 101),
        Call("DELETE", "/process/interpreter/context/{id}"),
        Call("DELETE", "/process/interpreter/context/{id}", 404),
    ],
    "lsp": [
        Call(
            "POST", "/files/upload-v2", query={"path": "{home}/m.py"}, form={"file": "def f():\n    pass\n"}
        ),
        Call("POST", "/lsp/start", json=LSP),
        Call("POST", "/lsp/did-open", json={**LSP, "uri": "file://{home}/m.py"}),
        Call("GET", "/lsp/document-symbols", query={**LSP, "uri": "file://{home}/m.py"}),
        Call("GET", "/lsp/workspacesymbols", query={**LSP, "query": "f"}),
        Call("POST", "/lsp/completions", json={**LSP, "uri": "file://{home}/m.py", "position": PLACE}),
        Call("POST", "/lsp/did-close", json={**LSP, "uri": "file://{home}/m.py"}),
        Call("POST", "/lsp/stop", json=LSP),
        Call("POST", "/lsp/start", 400, json={**LSP, "languageId": "cobol"}),
    ],
    "desktop": [
        Call("POST", f"{DESK}/start"),
        Call("GET", f"{DESK}/status"),
        Call("GET", f"{DESK}/process-status"),
        Call("GET", f"{DESK}/process/{{processName}}/status", values={"processName": "x11vnc"}),
        Call("GET", f"{DESK}/process/{{processName}}/logs"),
        Call("GET", f"{DESK}/process/{{processName}}/errors"),
        Call("POST", f"{DESK}/process/{{processName}}/restart"),
        Call("GET", f"{DESK}/display/info"),
        Call("GET", f"{DESK}/display/windows"),
        Call("GET", f"{DESK}/screenshot", query={"showCursor": "true"}),
        Call(
            "GET", f"{DESK}/screenshot/compressed", query={"format": "jpeg", "quality": "50", "scale": "0.5"}
        ),
        Call("GET", f"{DESK}/screenshot/compressed", 400, query={"scale": "7"}),
        Call("GET", f"{DESK}/screenshot/region", query={"x": "1", "y": "1", "width": "9", "height": "9"}),
        Call(
            "GET",
            f"{DESK}/screenshot/region/compressed",
            query={"x": "1", "y": "1", "width": "9", "height": "9"},
        ),
        Call("POST", f"{DESK}/mouse/move", json={"x": 20, "y": 30}),
        Call("POST", f"{DESK}/mouse/move", 400, json={"x": -1, "y": 30}),
        Call("GET", f"{DESK}/mouse/position"),
        Call("POST", f"{DESK}/mouse/click", json={"x": 20, "y": 30}),
        Call("POST", f"{DESK}/mouse/down", json={"x": 20, "y": 30}),
        Call("POST", f"{DESK}/mouse/up", json={}),
        Call("POST", f"{DESK}/mouse/drag", json={"startX": 1, "startY": 1, "endX": 9, "endY": 9}),
        Call("POST", f"{DESK}/mouse/scroll", json={"x": 1, "y": 1, "direction": "up"}),
        Call("POST", f"{DESK}/keyboard/type", json={"text": "hi"}),
        Call("POST", f"{DESK}/keyboard/key", json={"key": "a"}),
        Call("POST", f"{DESK}/keyboard/hotkey", json={"keys": "ctrl+a"}),
        Call("POST", f"{DESK}/keyboard/down", json={"key": "shift"}),
        Call("POST", f"{DESK}/keyboard/up", json={"key": "shift"}),
        Call("GET", f"{DESK}/a11y/tree", 503),
        Call("POST", f"{DESK}/a11y/find", 503, json={"role": "button"}),
        Call("POST", f"{DESK}/a11y/node/focus", 503, json={"id": "1"}),
        Call("POST", f"{DESK}/a11y/node/invoke", 503, json={"id": "1"}),
        Call("POST", f"{DESK}/a11y/node/value", 503, json={"id": "1", "value": "x"}),
        Call("POST", f"{DESK}/recordings/start", 201, json={}, keep={"id": "id"}),
        Call("GET", f"{DESK}/recordings"),
        Call("GET", f"{DESK}/recordings/{{id}}"),
        Call("POST", f"{DESK}/recordings/stop", json={"id": "{id}"}),
        Call("GET", f"{DESK}/recordings/{{id}}/download"),
        Call("DELETE", f"{DESK}/recordings/{{id}}", 204),
        Call("GET", f"{DESK}/recordings/{{id}}", 404),
        Call("POST", f"{DESK}/stop"),
    ],
}
LACKING = {
    "git": "" if shutil.which("git") else "git",
    "lsp": "" if shutil.which("pylsp", path=str(Path(sys.executable).parent)) else "python-lsp-server",
    "desktop": ", ".join(MISSING),
}
MARKS = {"desktop": [pytest.mark.desktop, pytest.mark.slow]}

NOT_HERE = {("POST", "/init"): "the platform's own first call to its daemon; no client makes it"}
"""Operations without a call above, with the reason."""

EMPTY_ERRORS = "/process/interpreter/"
"""Errors of these have no body, one of the weaknesses of v0.190.0 that the daemon keeps (see quirks)."""

OPTIONAL = {
    ("POST", "/env"),
    ("POST", "/process/interpreter/context"),
    ("POST", "/process/pty"),
    ("GET", "/files"),
}
"""Operations that may be called with nothing, although they are called with something above."""


def filled(node: Any, known: dict[str, str]) -> Any:
    """A value with the placeholders of its texts filled in."""
    if isinstance(node, str):
        for name, value in known.items():
            node = node.replace(f"{{{name}}}", value)
        return node
    if isinstance(node, dict):
        return {key: filled(value, known) for key, value in node.items()}
    return [filled(item, known) for item in node] if isinstance(node, list) else node


@pytest.fixture(scope="module")
def own_daemon(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon with an entrypoint."""
    home = tmp_path_factory.mktemp("contract") / "home"
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "init.defaultBranch", "GIT_CONFIG_VALUE_0": "main"}
    running = start_daemon(home, entrypoint="echo entered", env=env)
    yield running
    assert running.stop() == 0


@pytest.fixture
async def client(own_daemon: Daemon) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(own_daemon.url, headers=SDK) as session:
        yield session


async def carry_out(client: aiohttp.ClientSession, call: Call, known: dict[str, str]) -> None:
    """Make one call, check its answer, keep what later calls need."""
    path = filled(call.path, known)
    if call.status == 101:
        async with client.ws_connect(path) as socket:
            assert not socket.closed
        return
    form = None
    if call.form:
        form = aiohttp.FormData()
        for name, value in filled(call.form, known).items():
            form.add_field(name, value, **({"filename": "x"} if "file" in name.split(".")[-1] else {}))
    options = (
        {"params": filled(call.query, known), "json": filled(call.json, known)}
        if form is None
        else {
            "params": filled(call.query, known),
            "data": form,
        }
    )
    async with client.request(call.method, path, **options) as answer:
        text = (await answer.read()).decode("utf-8", "replace")
        what = f"{call.method} {path}: {answer.status} {text[:300]}"
        assert answer.status == call.status, what
        if call.path.startswith(EMPTY_ERRORS) and answer.status >= 400 and not text:
            return
        kind = answer.headers.get("Content-Type", "")
        check_answer(TOOLBOX, call.method, call.path, call.status, text, kind)
        if answer.status >= 400:
            check_error(json.loads(text), call.method, path, call.status)
        for name, key in call.keep.items():
            known[name] = json.loads(text)[key]


def check_error(body: dict[str, Any], method: str, path: str, status: int) -> None:
    """The shape from which the SDK makes its exceptions."""
    assert body["statusCode"] == status
    assert body["source"] == "DAYTONA_DAEMON"
    assert body["message"]
    assert body["code"]
    assert (body["method"], body["path"]) == (method, path)


@pytest.mark.parametrize("family", [pytest.param(name, marks=MARKS.get(name, [])) for name in FAMILIES])
async def test_answers_fit_the_client_and_the_description(
    own_daemon: Daemon, client: aiohttp.ClientSession, family: str
) -> None:
    if LACKING.get(family):
        pytest.skip(f"needs {LACKING[family]}")
    known = {"home": str(own_daemon.home)}
    for call in FAMILIES[family]:
        known |= call.values
        await carry_out(client, call, known)


async def test_a_call_without_what_it_needs_is_400_everywhere(client: aiohttp.ClientSession) -> None:
    """Every operation that takes something, called with nothing."""
    needy = {
        (call.method, call.path)
        for calls in FAMILIES.values()
        for call in calls
        if (call.query or call.json) and not call.path.startswith(DESK)  # test_desktop.py has those
    }
    for method, path in sorted(needy - OPTIONAL):
        real = path.replace("{sessionId}", "none").replace("{commandId}", "none").replace("{id}", "none")
        body = None if method == "GET" else {}
        async with client.request(method, real, json=body) as answer:
            text = await answer.text()
            assert answer.status in (400, 404, 410), f"{method} {path}: {answer.status} {text[:200]}"
            check_error(json.loads(text), method, real, answer.status)


@other_sdk
def test_every_operation_is_called_or_has_a_reason() -> None:
    """Of the SDK's client, and of the description where it is at hand."""
    called = {(call.method, call.path) for calls in FAMILIES.values() for call in calls}
    wanted = set(operations(TOOLBOX)) | described(TOOLBOX)
    assert wanted - called - set(NOT_HERE) == set()
    assert set(NOT_HERE) <= wanted
    assert not set(NOT_HERE) & called
