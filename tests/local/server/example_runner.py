"""Run examples of Daytona's documentation; a process of its own, since clients that they leave open linger.

``python -m tests.local.server.example_runner HEADING...`` prints a line of JSON for each.
The copy of the documentation has lost its indentation, so only blocks without any can be run.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import daytona as sdk
from daytona import CreateSandboxFromSnapshotParams, Daytona, Sandbox
from daytona.common.errors import DaytonaError

DOCUMENTATION = Path(__file__).resolve().parents[4] / "shared" / "reference" / "docs"

PREPARE = """
mkdir -p workspace/data workspace/src data && cd workspace
echo hi | tee data/file.txt file.txt data/old_name.txt > ../remote_file.txt
git init -q -b main repo && cd repo && mkdir src && echo 1 | tee file.txt README.md src/main.py > /dev/null
git add file.txt && git -c user.name=a -c user.email=b commit -qm 1
git branch feature-branch && git branch old-feature
"""
"""Files and a repository that examples take for granted."""


@functools.cache
def blocks() -> dict[str, str]:
    """Heading of each Python block that can be compiled -> the first such block below it."""
    found: dict[str, str] = {}
    for file in sorted(DOCUMENTATION.glob("*.txt")):
        heading = ""
        for match in re.finditer(r"^#+ ([^\n]+)$|^```python\n(.*?)^```$", file.read_text(), re.M | re.S):
            if match[1] is not None:
                heading = match[1]
            elif match[2] is not None and heading not in found:
                with contextlib.suppress(SyntaxError):
                    ast.parse(match[2])
                    found[heading] = match[2]
    return found


def prepare(client: Daytona) -> None:
    """Make the snapshots that examples name, with the files that they use."""
    box = client.create()
    done = box.process.exec(PREPARE)
    assert done.exit_code == 0, done.result
    for name in ("prepared", "my-snapshot-name", "my_awesome_snapshot"):
        box.create_snapshot(name)
    box.delete()


def run(client: Daytona, box: Sandbox, heading: str, code: str) -> None:
    """Run one example in the world that it takes for granted, and remove what it made."""
    for placeholder in ('"YOUR_API_KEY"', '"your-api-key"'):
        code = code.replace(placeholder, 'os.environ["DAYTONA_API_KEY"]')
    world: dict[str, Any] = {name: getattr(sdk, name) for name in dir(sdk) if not name.startswith("_")}
    world |= {"daytona": client, "sandbox": box, "os": os, "__name__": "__main__"}
    if "computer_use" in code and "computer_use.start" not in code:
        box.computer_use.start()
    if "my-session" in code and "create_pty_session" not in code:
        with contextlib.suppress(DaytonaError):
            box.process.kill_pty_session("my-session")
        world["pty_handle"] = box.process.create_pty_session(id="my-session")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, heading, "exec"), world)
    finally:
        for left in client.list():
            if left.id != box.id:
                client.delete(client.get(left.id))


def main(headings: list[str]) -> None:
    """Run the examples with these headings."""
    client = Daytona()
    prepare(client)
    os.chdir(tempfile.mkdtemp())
    box: Sandbox | None = None
    for heading in headings:
        error = None
        code = blocks().get(heading)
        if code is not None:
            try:
                if box is None:
                    box = client.create(CreateSandboxFromSnapshotParams(snapshot="prepared"))
                run(client, box, heading, code)
                if re.search(r"sandbox\.(stop|delete|start|archive)\(|daytona\.(stop|delete|start)\(", code):
                    with contextlib.suppress(DaytonaError):  # it may be what the example has deleted
                        client.delete(client.get(box.id))
                    box = None
            except BaseException:
                error = traceback.format_exc()[-1500:]
        print(json.dumps({"heading": heading, "known": code is not None, "error": error}), flush=True)
    os._exit(0)  # what examples left open would keep the process for its connections' sake


if __name__ == "__main__":
    main(sys.argv[1:])
