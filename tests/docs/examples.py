"""What the examples of ``docs/magics.md`` need before them, and what puts things back after them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOME = "base"
"""The sandbox that all examples find themselves in."""

SANDBOX_FILES = """
from pathlib import Path
import base64
pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
for folder in ("results", "model", "data", "src", "build"):
    Path(folder).mkdir()
Path("plot.png").write_bytes(base64.b64decode(pixel))
texts = {
    "notes.md": "# Notes", "run.sh": "true", "results/a.csv": "a", "model/weights": "1", "data/b.csv": "b",
    "src/a.py": "# TODO", "draft.csv": "c", "old.csv": "d", "build/x": "x", "model.pkl": "m",
    "train.py": "print(1)", "Makefile": "test:\\n\\ttrue",
}
for name, text in texts.items():
    Path(name).write_text(text + "\\n")
"""
HOST_FILES = {
    "data.csv": "a\n",
    "data/one.csv": "b\n",
    "project/main.py": "1\n",
    ".env.sandbox": "STAGE=test\n",
    "../.ssh/config": "",
}
_ORIGIN = """%%daytona bash
cd && git init -q -b main seed && cd seed && echo one >file && git add file
git config --global user.name a && git config --global user.email a@example.org
git commit -qm one && cd && git clone -q --bare seed origin.git
git config --global url."$HOME/origin.git".insteadOf https://example.org/project.git
"""
_JOB = "%daytona bg --name {} -- sh -c 'read answer'"
_BACK = f"%daytona attach {HOME}"


@dataclass(frozen=True)
class Needs:
    """What a command's examples need: cells before and after them, bodies of cells, answers to questions."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    body: str = ""
    answers: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """What the local server says where an example needs the service: a text for each example, or nothing."""


NEEDS = {
    "download": Needs(after=("!rm -rf model",)),
    "write": Needs(body="print(1)"),
    "kill": Needs((_JOB.format("web"),)),
    "bg": Needs(after=("%daytona kill web", "%daytona kill python-1")),
    "logs": Needs(
        ("%daytona bg --name web -- echo 1", "%daytona bg --name train -- echo 2"),
        ("%daytona kill web", "%daytona kill train"),
    ),
    "send": Needs((_JOB.format("install"),), ("%daytona kill install",)),
    "session rm": Needs(("%%daytona bash --session work\ntrue",)),
    "bash": Needs(body="echo $((6 * 7))", after=("%daytona session rm work",)),
    "js": Needs(body="console.log(6 * 7)"),
    "ts": Needs(body="const x: number = 6 * 7\nconsole.log(x)"),
    "python": Needs(body="import sys\nprint(sys.argv)"),
    "push": Needs(("df = [1]\nthreshold = 2\nprices = {'tea': 3.5}",)),
    "pull": Needs(
        ("result = 1\nprices = {'tea': 3.5}\n%daytona push result\n%daytona push prices --as team/prices",)
    ),
    "shelf rm": Needs(("prices = {}\n%daytona push prices --as team/prices",)),
    "archive": Needs(("%daytona create --name scratch",), (_BACK, "%daytona delete scratch --yes")),
    "attach": Needs(
        ("%daytona fork etl --use", "%daytona label nb=etl", _BACK, "%daytona fork agent"),
        (_BACK, "%daytona delete etl --yes", "%daytona delete agent --yes"),
    ),
    "create": Needs(after=("%daytona delete --yes", _BACK, "%daytona delete etl --yes")),
    "delete": Needs(("%daytona create --name scratch",), (_BACK,)),
    "detach": Needs(after=(_BACK,)),
    "fork": Needs(after=(_BACK, "%daytona delete experiment --yes")),
    "keepalive": Needs(after=("%daytona keepalive off",)),
    "missed": Needs(("print('missed')",)),
    "pause": Needs(after=("%daytona start",)),
    "recover": Needs(refused=("there is nothing to recover",)),
    "stop": Needs(after=("%daytona start",)),
    "context new": Needs(("1",)),
    "context rm": Needs(("1",)),
    "context use": Needs(("1",), ("%daytona context new",)),
    "net allow": Needs(refused=("can not be enforced by the local sandbox server",)),
    "net block": Needs(after=("%daytona net open",)),
    "snapshot activate": Needs(
        ("%daytona snapshot create ready",), ("%daytona snapshot delete ready --yes",)
    ),
    "snapshot create": Needs(
        after=("%daytona snapshot delete ready --yes", "%daytona snapshot delete py --yes")
    ),
    "snapshot delete": Needs(("%daytona snapshot create old",)),
    "ssh": Needs(refused=("no SSH gateway", "")),
    "volume delete": Needs(("%daytona volume create data",)),
    "volume create": Needs(after=("%daytona volume delete data --yes",)),
    "record download": Needs(("%daytona record start", "%daytona screenshot", "%daytona record stop")),
    "record start": Needs(after=("%daytona record stop",)),
    "record stop": Needs(("%daytona record start",)),
    "git clone": Needs((_ORIGIN,), ("!mkdir -p done && mv project done/",)),
    "git commit": Needs(("!git clone -q ~/origin.git project && echo two >> project/file",)),
    "git push": Needs(answers=("password",)),
    "git status": Needs(),
}
"""By the command's name; nothing for the others. Commands run in the order of the page."""

DESKTOP = "%daytona vnc start"
"""Before each example of the group Desktop."""


def furnish(folder: Path) -> None:
    """Write the files of this machine that the examples upload and read."""
    for name, text in HOST_FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
