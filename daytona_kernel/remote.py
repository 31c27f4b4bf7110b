"""Small Python scripts that ``%daytona`` runs in the sandbox, and their JSON answers.

The sandbox has Python 3 (the kernel needs it), but not always ``find`` with ``-printf``, ``tar`` or ``ss``.
The answers come from a place that is not trusted: whoever uses one checks what is in it.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from .answers import parsed
from .errors import SandboxProtocolError
from .toolbox import Toolbox

_ARGUMENT_LIMIT = 60_000
"""Characters of a request that travel in the command itself; the system's limit is 128 KiB an argument."""
_FIND_PYTHON = 'for p in python3 python; do command -v "$p" >/dev/null && exec "$p" "$@"; done; exit 127'
_PRELUDE = """
import json, os, sys
a = sys.argv[1]
q = json.loads(a if a[:1] != "@" else open(a[1:]).read())
if a[:1] == "@": os.unlink(a[1:])
os.chdir(q.get("cwd") or ".")
def say(x): print("\\n\\x1e" + json.dumps(x))
"""


async def run_script(toolbox: Toolbox, script: str, timeout_s: int = 120, **request: Any) -> Any:
    """Run ``script`` with ``q``, the request, in the sandbox; what it gave to ``say`` at last.

    Raises :class:`SandboxProtocolError` if the script fails: that is a mistake here or a strange sandbox.
    """
    argument = json.dumps(request)
    if len(argument) > _ARGUMENT_LIMIT:
        path = f"/tmp/.daytona-request-{uuid.uuid4().hex}"  # noqa: S108 - in the sandbox; the name can not be guessed
        await toolbox.upload(path, argument.encode())
        argument = f"@{path}"
    code, output = await toolbox.execute(
        "sh", "-c", _FIND_PYTHON, "sh", "-c", _PRELUDE + script, argument, timeout_s=timeout_s
    )
    answer = output.rpartition("\x1e")[2] if "\x1e" in output else ""
    try:
        return parsed(answer)
    except ValueError as exc:
        said = output.strip()[-300:]
        raise SandboxProtocolError(
            f"A helper script failed in the sandbox (exit code {code}): {said or 'it said nothing'}.",
            hint="The sandbox needs a working python3.",
        ) from exc


MANIFEST = r"""
import glob, stat
out, errors = [], []
def entry(path, rel, st):
    out.append([path, rel, st.st_size, stat.S_IMODE(st.st_mode), st.st_mtime])
def walk(top, base):
    for root, dirs, files in os.walk(top):
        dirs.sort()
        here = os.path.relpath(root, top)
        for d in list(dirs):
            link = os.path.join(root, d)
            if os.path.islink(link): errors.append([link, "a link to a directory is skipped"])
        if not dirs and not files:
            st = os.stat(root)
            name = os.path.normpath(os.path.join(base, here))
            out.append([root, name, -1, stat.S_IMODE(st.st_mode), st.st_mtime])
        for name in sorted(files):
            path = os.path.join(root, name)
            try: st = os.stat(path)
            except OSError as e: errors.append([path, e.strerror]); continue
            if not stat.S_ISREG(st.st_mode): errors.append([path, "not a regular file"]); continue
            entry(path, os.path.normpath(os.path.join(base, here, name)), st)
def near(path):
    import difflib
    try: found = difflib.get_close_matches(os.path.basename(path), os.listdir(os.path.dirname(path)), 1, 0.55)
    except OSError: return ""
    return f"; did you mean {found[0]}?" if found else ""
for source in q["sources"]:
    full = os.path.abspath(os.path.expanduser(source))
    pattern = glob.has_magic(full) and not os.path.lexists(full)
    found = sorted(glob.glob(full, recursive=True)) if pattern else [full] if os.path.lexists(full) else []
    reason = "nothing matches" if pattern else "no such file or directory" + near(full)
    if not found: errors.append([full, reason])
    for path in found:
        try: st = os.stat(path)
        except OSError as e: errors.append([path, e.strerror]); continue
        base = "" if source.endswith("/") and not pattern else os.path.basename(path) or "root"
        if stat.S_ISDIR(st.st_mode): walk(path, base)
        elif stat.S_ISREG(st.st_mode): entry(path, os.path.basename(path), st)
        else: errors.append([path, "not a regular file"])
say({"files": out, "errors": errors})
"""
"""``sources`` (paths and patterns) -> ``files``: [path, name below the target, size or -1 for an empty
directory, mode, mtime], and ``errors``: [path, reason]."""

DESTINATION = r"""
full = os.path.abspath(os.path.expanduser(q["path"] or "."))
say({"path": full, "is_dir": os.path.isdir(full), "exists": os.path.lexists(full)})
"""
"""``path`` -> where it is, whether it is there."""

COMPARE = r"""
out = []
for path in q["paths"]:
    try:
        st = os.stat(path); out.append([st.st_size, st.st_mtime])
    except OSError: out.append(None)
say(out)
"""
"""``paths`` -> [size, mtime] or null of each."""

UNPACK = r"""
errors, made = [], set()
with open(q["bundle"], "rb") as f:
    index = json.loads(f.read(int.from_bytes(f.read(8), "big")))
    for path, size, mode, mtime in index:
        data = f.read(max(0, size))
        folder = path if size < 0 else os.path.dirname(path)
        try:
            if folder not in made: os.makedirs(folder, exist_ok=True); made.add(folder)
            if size < 0: os.chmod(path, mode); continue
            with open(path, "wb") as out: out.write(data)
            os.chmod(path, mode); os.utime(path, (mtime, mtime))
        except OSError as e: errors.append([path, e.strerror or str(e)])
os.unlink(q["bundle"])
say({"errors": errors})
"""
"""``bundle`` -> ``errors``: files are written where its index says; the bundle is deleted."""

PACK = r"""
index, contents, room = [], [], q["limit"]
for path in q["paths"]:
    try:
        with open(path, "rb") as f: data = f.read(room + 1)
    except OSError as e: index.append(e.strerror or str(e)); continue
    if len(data) > room: index.append("has grown while it was transferred"); continue
    room -= len(data); index.append(len(data)); contents.append(data)
head = json.dumps(index).encode()
fd = os.open(q["bundle"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
with open(fd, "wb") as f: f.write(b"".join([len(head).to_bytes(8, "big"), head] + contents))
say(len(index))
"""
"""``paths`` -> a ``bundle`` of at most ``limit`` bytes: an index of sizes or reasons, then the files."""

APPEND = r"""
try:
    with open(q["piece"], "rb") as f: data = f.read()
except FileNotFoundError: data = None
if data is not None:
    with open(os.open(q["path"], os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
        out.seek(q["offset"]); out.truncate(); out.write(data)
    os.unlink(q["piece"])
say(os.path.getsize(q["path"]))
"""
"""``piece``, ``path``, ``offset`` -> the file's size with the piece appended; may be done twice."""

SETTLE = r"""
errors = []
for part, path, mode, mtime in q["files"]:
    try:
        if os.path.isdir(path): raise IsADirectoryError(21, "is a directory")
        os.chmod(part, mode); os.utime(part, (mtime, mtime)); os.replace(part, path)
    except OSError as e: errors.append([path, e.strerror or str(e)])
say({"errors": errors})
"""
"""``files``: [uploaded name, final name, mode, mtime]: put in place what was uploaded under another name."""

PRUNE = r"""
keep, gone = set(q["keep"]), []
for root, dirs, files in os.walk(q["root"], topdown=False):
    for name in files:
        path = os.path.join(root, name)
        if path not in keep:
            gone.append(path)
            if not q["dry"]: os.unlink(path)
say(gone)
"""
"""Delete the files below ``root`` that are not to ``keep``; their names. ``dry``: only the names."""
