"""`--json` of every command, in both doors: one document on stdout, the same as what is assigned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daytona_kernel.magics import registry

from .doors import Door


@dataclass(frozen=True)
class Case:
    """How to use a command: its words, with cells before and after, and what its value has.

    ``wanted``: a type, or the keys of an object, or with a list around them of each of its items; or, as a
    text, what the error says where the local server can not do it.
    """

    words: str
    wanted: Any
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


FILE = "%%daytona write {place}/a.txt\none\n"
JOB = "%daytona bg --name {name} -- sh -c 'echo out; read x; echo $x'"
KILL = "%daytona kill {name}"
VALUE = "{assign}value = 1\n%daytona push value --as {name}"
SCRATCH = "%daytona create --name {name}"
OFF = "%daytona delete {name} --yes"
REPOSITORY = (
    "%daytona exec -- sh -c 'cd {place} && git init -q -b main o && cd o && echo 1 >f && git add f && "
    "git -c user.name=a -c user.email=a@b commit -qm one && cd .. && git clone -q --bare o o.git && "
    "git clone -q o.git w && cd w && git config user.name a && git config user.email a@b && echo 2 >f'"
)
MOVED = {"path", "size", "sha256", "local", "remote"}

CASES = {
    "config": Case("", {"backend", "auto_stop"}),
    "help": Case("", list),
    "list": Case("--limit 1", [{"id", "name", "state", "labels"}], ("%daytona start",)),
    "sdk": Case("", {"id", "name"}),
    "status": Case("", {"id", "name", "state"}, ("%daytona start",)),
    "cat": Case("{place}/a.txt", str, (FILE,)),
    "chmod": Case("600 {place}/a.txt", list, (FILE,)),
    "download": Case("{place}/a.txt --to {here}/", [MOVED], (FILE,)),
    "find": Case("'*.txt' {place}", list, (FILE,)),
    "grep": Case("one {place}", [{"file", "line", "content"}], (FILE,)),
    "ls": Case("{place}", [{"name", "size"}], (FILE,)),
    "mkdir": Case("{place}/d", list),
    "mv": Case("{place}/a.txt {place}/b.txt", str, (FILE,)),
    "rm": Case("{place}/a.txt", list, (FILE,)),
    "stat": Case("{place}/a.txt", {"name", "size"}, (FILE,)),
    "upload": Case("{here}/local.txt --to {place}/", [MOVED]),
    "preview": Case("8231", str, (), ("%daytona preview 8231 --revoke",)),
    "previews": Case("", [{"port", "url"}], ("%daytona preview 8232",), ("%daytona preview 8232 --revoke",)),
    "serve": Case("8233 -- python3 -m http.server 8233", str, (), ("%daytona serve 8233 --stop",)),
    "bg": Case("--name {name} -- sleep 60", str, (), (KILL,)),
    "exec": Case("-- sh -c 'echo a; echo b >&2'", {"exit_code", "stdout", "stderr"}),
    "jobs": Case("", [{"name", "state", "command"}], (JOB,), (KILL,)),
    "kill": Case("{name}", str, (JOB,)),
    "logs": Case("{name}", {"exit_code", "stdout", "stderr"}, (JOB,), (KILL,)),
    "send": Case("{name} y", str, (JOB,), (KILL,)),
    "session list": Case("", list),
    "session rm": Case("{name}", str, ("%%daytona bash --session {name}\ntrue",)),
    "push": Case("value --as {name}", list, ("{assign}value = 1",), ("%daytona shelf rm {name}",)),
    "pull": Case("{name} --as value --shelf", list, (VALUE,), ("%daytona shelf rm {name}",)),
    "shelf list": Case("", [{"key", "about", "size"}], (VALUE,), ("%daytona shelf rm {name}",)),
    "shelf rm": Case("{name}", list, (VALUE,)),
    "archive": Case("", str, (SCRATCH,), (OFF,)),
    "attach": Case("{name}", str, ("%daytona fork {name}",), (OFF,)),
    "create": Case("--name {name}", str, (), (OFF,)),
    "delete": Case("{name} --yes", str, (SCRATCH,)),
    "detach": Case("", str, (SCRATCH,)),
    "fork": Case("{name}", str, (), (OFF,)),
    "keepalive": Case("1m", (int, float), (), ("%daytona keepalive off",)),
    "label": Case("json=1", dict, (), ("%daytona label json=",)),
    "missed": Case("", {"status", "back"}, ("%%daytona\nprint('missed')",)),
    "pause": Case("", str),
    "recover": Case("", "there is nothing to recover"),
    "resize": Case("--cpu 2", {"cpu", "memory", "disk"}),
    "restart": Case("", (str, type(None))),
    "set": Case("auto_stop=2h", dict),
    "start": Case("", str),
    "stop": Case("", str),
    "context list": Case("", [{"id"}], ("%%daytona\n1",)),
    "context new": Case("", (str, type(None)), (), ("%daytona restart",)),
    "context use": Case("default", str, (), ("%daytona context new",)),
    "context rm": Case("{context}", str),
    "env from": Case("{here}/env", list),
    "env list": Case("", list),
    "env set": Case("JSON_MODE=1", list),
    "net allow": Case("10.0.0.0/8", "can not be enforced by the local sandbox server"),
    "net block": Case("", str, (), ("%daytona net open",)),
    "net open": Case("", str),
    "snapshot activate": Case("local-python", str),
    "snapshot create": Case("{name}", str, (), ("%daytona snapshot delete {name} --yes",)),
    "snapshot delete": Case("{name} --yes", str, ("%daytona snapshot create {name}",)),
    "snapshot list": Case("", [{"name", "state"}]),
    "ssh": Case("--show-token", str),
    "terminal": Case("--show-token", str),
    "volume create": Case("{name}", str, (), ("%daytona volume delete {name} --yes",)),
    "volume delete": Case("{name} --yes", str, ("%daytona volume create {name}",)),
    "volume list": Case("", list),
    "git clone": Case("{place}/o.git {place}/c", str, (REPOSITORY,)),
    "git commit": Case("{place}/w -m two", str, (REPOSITORY,)),
    "git pull": Case("{place}/w", str, (REPOSITORY,)),
    "git push": Case("{place}/w", str, (REPOSITORY,)),
    "git status": Case("{place}/w", {"branch"}, (REPOSITORY,)),
}
RECORDING = "%daytona record start --label {name}"
RECORDED = "%daytona record stop"
DESKTOP = {
    "vnc start": Case("", str),
    "vnc status": Case("", dict),
    "vnc logs": Case("x11vnc", str),
    "vnc restart": Case("novnc", str),
    "vnc view": Case("", str),
    "vnc stop": Case("", str),
    "screenshot": Case("", {"format", "width", "height", "bytes"}),
    "windows": Case("", list),
    "click": Case("10 10", dict),
    "drag": Case("10 10 20 20", dict),
    "key": Case("a", str),
    "move": Case("10 10 --shot", dict),
    "scroll": Case("10 10 down", dict),
    "type": Case("abc", int),
    "record start": Case("", str, (), (RECORDED,)),
    "record stop": Case("", str, (RECORDING,)),
    "record list": Case("", [{"id"}], (RECORDING, RECORDED)),
    "record download": Case("--save {here}/film.mp4", str, (RECORDING, RECORDED)),
}


def test_every_command_is_tried() -> None:
    assert {*CASES, *DESKTOP} == {*registry.commands()}


def try_out(door: Door, name: str, case: Case, here: Path) -> None:
    """Run a command with `--json`, and look at what it prints."""
    words = {
        "place": f"json/{name.replace(' ', '-')}",
        "here": here,
        "name": f"json-{name.replace(' ', '-')}-{door.name}",
        "assign": "",
        "context": "",
    }
    if any("{place}" in text for text in (case.words, *case.before)) and FILE not in case.before:
        door("%daytona mkdir {place}".format(**words)).ok()
    (here / "local.txt").write_text("local\n")
    (here / "env").write_text("JSON_FILE=1\n")
    if "{context}" in case.words:
        door("%daytona context new").ok()
        words["context"] = json.loads(door("%daytona context list --json").ok().stdout)[0]["id"]
    for cell in case.before:
        door(cell.format(**words)).ok()
    first, mark, program = case.words.format(**words).partition("-- ")
    outcome = door(f"%daytona {name} {first} --json {mark}{program}")
    for cell in case.after:
        door(cell.format(**words)).ok()
    assert not outcome.shown, outcome.text
    wanted = case.wanted
    if isinstance(wanted, str):
        assert wanted in outcome.evalue
        assert not outcome.stdout
        return
    value = json.loads(outcome.ok().stdout)
    if isinstance(wanted, (list, set)):
        items = value if isinstance(wanted, list) else [value]
        assert items
        keys = wanted[0] if isinstance(wanted, list) else wanted
        assert all(keys <= item.keys() for item in items), items
    else:
        assert isinstance(value, wanted), value


@pytest.mark.parametrize("name", CASES)
def test_json_is_one_document_on_stdout(door: Door, tmp_path: Path, name: str) -> None:
    if door.name in registry.commands()[name].doors:
        try_out(door, name, CASES[name], tmp_path)


@pytest.mark.desktop
@pytest.mark.parametrize("name", DESKTOP)
def test_json_of_the_desktop_is_one_document_on_stdout(door: Door, tmp_path: Path, name: str) -> None:
    outcome = door("%daytona vnc start")
    if outcome.ename:
        pytest.skip(f"no desktop here: {outcome.evalue}")
    try_out(door, name, DESKTOP[name], tmp_path)
