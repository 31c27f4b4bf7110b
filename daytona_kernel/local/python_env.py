"""The Python that a sandbox's user gets: a private, writable environment on top of an interpreter.

It is a virtual environment written by hand, since ``python -m venv`` takes a second: ``pyvenv.cfg``, links to
the interpreter, and one ``.pth`` file that puts the interpreter's own packages behind the sandbox's. So numpy
and friends of the host are there, ``pip install`` works, and what it installs stays in the sandbox.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .safe_files import SafeDir

PROBE = """
import json, os, sys
names = ("site-packages", "dist-packages")
paths = [p for p in sys.path if os.path.basename(p) in names and os.path.isdir(p)]
executable = getattr(sys, "_base_executable", None) or sys.executable
try:
    import ensurepip
    bundled = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
    wheels = [os.path.join(bundled, n) for n in sorted(os.listdir(bundled)) if n.startswith("pip-")]
except (ImportError, OSError):
    wheels = []
print(json.dumps({
    "executable": os.path.realpath(executable), "prefix": sys.prefix, "base_prefix": sys.base_prefix,
    "version": list(sys.version_info[:3]), "packages": paths, "pip_wheel": wheels[-1] if wheels else "",
}))
"""

PIP_SCRIPT = """#!{python}
import re
import sys

from pip._internal.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
    sys.exit(main())
"""


FRONT_END_DATA = frozenset({"lab", "labextensions", "nbextensions", "kernels"})
"""Directories of Jupyter data that only servers and front ends need; they hold hundreds of files."""


class PythonUnusableError(Exception):
    """The interpreter that a sandbox should be made from does not exist or does not work."""


@dataclass(frozen=True)
class PythonInfo:
    """Facts about an interpreter of the host."""

    executable: str
    """The base interpreter, with links resolved: what the sandbox's ``python`` points to."""
    prefix: str
    base_prefix: str
    version: tuple[int, int, int]
    packages: tuple[str, ...]
    """Its package directories, in the order of ``sys.path``."""
    pip_wheel: str
    """The pip that comes with the interpreter, for environments without one; may be empty."""

    @property
    def tag(self) -> str:
        """``3.12``, as in the names of directories and programs."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def directories(self) -> tuple[str, ...]:
        """Everything of the host that a process of this Python has to be able to read."""
        return tuple(dict.fromkeys((self.base_prefix, self.prefix, *self.packages)))


_probed: dict[tuple[str, float], PythonInfo] = {}


async def probe_python(python: str) -> PythonInfo:
    """Ask an interpreter about itself; answers are kept until the file changes.

    ``PythonUnusableError``: if it can not be started, is too old, or does not answer within 20 s.
    """
    key = _locate(python)
    if key not in _probed:
        _probed[key] = await _ask(key[0])
    return _probed[key]


def _locate(python: str) -> tuple[str, float]:
    """Absolute path and modification time of an interpreter."""
    path = shutil.which(os.path.expanduser(python))
    if path is None:
        raise PythonUnusableError(f"there is no Python at {python}")
    path = os.path.abspath(path)
    return path, os.stat(path).st_mtime


async def _ask(path: str) -> PythonInfo:
    arguments = [path, "-c", PROBE]
    env = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "PYTHONSAFEPATH": "1"}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env=env,
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise PythonUnusableError(f"{path} did not answer within 20 seconds") from None
    if process.returncode != 0:
        raise PythonUnusableError(f"{path} does not work: {err.decode(errors='replace').strip()[-300:]}")
    facts = json.loads(out.decode().splitlines()[-1])
    major, minor, micro = facts["version"]
    if (major, minor) < (3, 8):
        raise PythonUnusableError(f"{path} is Python {major}.{minor}; a sandbox needs 3.8 or later")
    return PythonInfo(
        facts["executable"],
        facts["prefix"],
        facts["base_prefix"],
        (major, minor, micro),
        tuple(facts["packages"]),
        facts["pip_wheel"],
    )


def write_environment(target: Path, inside: str, info: PythonInfo, *, bare: bool) -> None:
    """Write the environment into `target`, which the sandbox sees as `inside`.

    Files that the sandbox installed there earlier are left alone, so this also mends an environment after the
    host's Python was upgraded. `bare` leaves the host's packages out.
    """
    config = [
        f"home = {os.path.dirname(info.executable)}",
        "include-system-site-packages = false",
        f"version = {'.'.join(map(str, info.version))}",
        f"executable = {info.executable}",
    ]
    with SafeDir.open(target) as top:
        top.write("pyvenv.cfg", "\n".join(config) + "\n")
        with top.below("bin") as programs:
            programs.link("python", info.executable)
            programs.link("python3", "python")
            programs.link(f"python{info.tag}", "python")
            for name in ("pip", "pip3", f"pip{info.tag}"):
                if not programs.has(name):
                    programs.write(name, PIP_SCRIPT.format(python=f"{inside}/bin/python"), 0o755)
        with (
            top.below("lib") as library,
            library.below(f"python{info.tag}") as versioned,
            versioned.below("site-packages") as packages,
        ):
            packages.write("_host_packages.pth", _host_packages(info, bare=bare))
        if not bare:
            with top.below("share") as share, share.below("jupyter") as own:
                _link_files(own, Path(info.prefix, "share", "jupyter"), FRONT_END_DATA)


def _link_files(own: SafeDir, host: Path, without: frozenset[str] = frozenset()) -> None:
    """Link the host's Jupyter data, such as nbconvert's templates: libraries look in ``sys.prefix``.

    Single files, since pip replaces a link to a file, but would follow one to a directory.
    """
    for path in host.iterdir() if host.is_dir() else ():
        if path.is_dir() and path.name not in without:
            with own.below(path.name) as below:
                _link_files(below, path)
        elif path.is_file() and not own.has(path.name):
            own.link(path.name, str(path))


def _host_packages(info: PythonInfo, *, bare: bool) -> str:
    """The ``.pth`` line that puts the host's packages behind the sandbox's own."""
    behind = [] if bare else list(info.packages)
    calls = [f"site.addsitedir({path!r})" for path in behind]
    if info.pip_wheel and not any(os.path.isdir(os.path.join(path, "pip")) for path in behind):
        # pip runs from its wheel, as ensurepip itself does it.
        calls.append(f"sys.path.append({info.pip_wheel!r})")
    return "import site, sys; " + "; ".join(calls) + "\n" if calls else ""


def server_package_dirs() -> list[str]:
    """The package directories of the server's own interpreter, for the daemon, which runs with ``-I``."""
    names = ("site-packages", "dist-packages")
    return [path for path in sys.path if os.path.basename(path) in names and os.path.isdir(path)]
