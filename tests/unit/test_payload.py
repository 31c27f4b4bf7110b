"""What is sent into the sandbox: code that carries data as data, and an IPython that works."""

from __future__ import annotations

import ast
import builtins
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import payload

REQUEST = {"id": "r1", "type": "hello", "content": {}}


def argument(code: str) -> Any:
    """The request in `code`, read without running it."""
    tree = ast.parse(code)
    call = tree.body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert ast.unparse(call.value.func) == payload.ENTRY
    (literal,) = call.value.args
    return json.loads(ast.literal_eval(literal))


@given(st.text(), st.text())
def test_a_cell_travels_as_data_and_never_as_source(code: str, key: str) -> None:
    request = {"id": "x", "content": {"code": code, key: [code]}}
    source = payload.request_code(request)
    assert source.isascii()
    assert "\n" not in source
    assert argument(source) == request


@pytest.mark.parametrize("code", ['")\nimport os', "\\", "\x00", "'''", '"""', "\ud800", "\u2028", "{}\r\n"])
def test_a_cell_can_not_leave_its_quotes(code: str) -> None:
    assert argument(payload.request_code({"id": "x", "content": {"code": code}}))["content"]["code"] == code


def test_the_agents_sources_name_their_package() -> None:
    assert len(payload.agent_hash()) == 12
    bundle = payload._sources()
    assert "wire" in bundle
    assert "agent.bootstrap" in bundle
    assert "agent.loader" not in bundle


def run_bootstrap(tmp_path: Path, after: str) -> str:
    """Run the first execution's code in a fresh interpreter as the worker does, then `after`; its output."""
    code = payload.bootstrap_code({"name": "test", "capture": False}, REQUEST)
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\n"
        "ns = {'__name__': '__main__', '__builtins__': __builtins__}\n"
        "before = set(ns)\n"
        f"exec(compile({code!r}, '<string>', 'exec'), ns)\n" + after
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=env, timeout=60
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_the_bootstrap_starts_an_agent_that_answers(tmp_path: Path) -> None:
    from daytona_kernel import wire

    out = run_bootstrap(tmp_path, "")
    chunks = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    lines = [item for chunk in chunks for item in wire.Splitter().feed(chunk["text"])]
    receiver = wire.Receiver("r1")
    frames = [receiver.feed(line) for line in lines if isinstance(line, wire.Line)]
    done = frames[-1]
    assert done is not None
    assert done.type == "done"
    assert done.content["reply"]["status"] == "ok"
    assert done.content["reply"]["shell"] == "IPython"


def test_the_bootstrap_leaves_no_name_of_its_own_in_the_notebooks_namespace(tmp_path: Path) -> None:
    out = run_bootstrap(tmp_path, "print('NAMES', json.dumps(sorted(set(ns) - before)))\n")
    names = set(json.loads(out.split("NAMES ", 1)[1].splitlines()[0]))
    dunders = {"__doc__", "__package__", "__loader__", "__spec__"}
    of_ipython = {"In", "Out", "_", "__", "___", "_i", "_ii", "_iii", "_dh", "_ih", "_oh", "_sh"}
    of_ipython |= {"get_ipython", "exit", "quit", "open", "__builtin__", "__builtins__"}
    assert names - dunders - of_ipython == set()


def test_options_of_the_bootstrap_are_data_too() -> None:
    nasty = {"name": "\"'); import os #\n", "capture": True}
    code = payload.bootstrap_code(nasty, REQUEST)
    compile(code, "<string>", "exec")
    assert "import os #" not in [line.strip() for line in code.splitlines()]


def test_importing_the_payload_defines_no_entry_here() -> None:
    assert not hasattr(builtins, payload.ENTRY)


# -- IPython -------------------------------------------------------------------------------------------


def test_the_closure_is_pure_python_and_has_what_ipython_needs() -> None:
    closure = payload.ipython_closure()
    assert {"ipython", "comm", "traitlets", "jedi", "parso", "pygments"} <= set(closure)
    assert not any(payload._is_pure(dist) is False for dist in closure.values())


@pytest.mark.parametrize(
    ("requires", "version", "suits"),
    [
        (">=3.11", "3.10.13", False),
        (">=3.11", "3.11.0", True),
        (">=3.11", "3.9.1", False),
        (">=3.11", "3.14.0rc1", True),
        (">= 3.10, !=3.12", "3.13.1", True),
        ("", "3.8.0", True),
    ],
)
def test_a_python_that_is_too_old_does_not_get_this_sides_ipython(
    monkeypatch: pytest.MonkeyPatch, requires: str, version: str, suits: bool
) -> None:
    monkeypatch.setattr(payload, "ipython_requires", lambda: requires)
    assert payload.python_suits(version) is suits


def test_the_archive_holds_modules_and_metadata_only() -> None:
    with zipfile.ZipFile(io.BytesIO(payload.ipython_zip())) as archive:
        names = archive.namelist()
        assert sum(info.compress_size for info in archive.infolist()) < 5_000_000
    assert "IPython/__init__.py" in names
    assert any(name.endswith(".dist-info/METADATA") for name in names)
    assert not [name for name in names if name.startswith(("/", "..")) or ".." in name.split("/")]
    assert not [name for name in names if name.endswith((".pyc", ".so")) or "__pycache__" in name]


def test_an_ipython_without_a_list_of_files_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "ipython_closure", dict)
    with pytest.raises(payload.NoPureIPython):
        payload.ipython_zip()


def test_ipython_works_from_the_archive_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(payload.ipython_zip())) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "import IPython, comm, importlib.metadata as m\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell()\n"
        "shell.run_cell('x = 6 * 7'); print(IPython.__file__, shell.user_ns['x'])\n"
        "from IPython.core.completer import provisionalcompleter\n"
        "with provisionalcompleter():\n"
        "    print([c.text for c in shell.Completer.completions('import os; os.pathse', 20)])\n"
    )
    # -I -S: nothing of this environment's site-packages can help
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipy")},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"{tmp_path}/IPython/__init__.py 42" in result.stdout
    assert "pathsep" in result.stdout
