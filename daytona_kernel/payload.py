"""What is sent into the sandbox: the agent's sources, and IPython where the sandbox lacks it."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from . import wire

HERE = Path(__file__).parent
ENTRY = "__daytona__"
PURE_ROOTS = ("ipython", "comm")
"""Distributions whose pure-Python closure makes IPython and widgets work."""


def request_code(request: dict[str, Any]) -> str:
    """Python source that hands ``request`` to the agent; the cell's text travels as data, never as source."""
    return f"{ENTRY}({json.dumps(wire.dumps(request))})"


@functools.cache
def agent_hash() -> str:
    """Hash of the agent's sources: names the package in the sandbox, so versions never mix."""
    return hashlib.sha256("".join(_sources().values()).encode()).hexdigest()[:12]


@functools.cache
def _sources() -> dict[str, str]:
    sources = {"wire": (HERE / "wire.py").read_text(encoding="utf-8")}
    for path in sorted((HERE / "agent").glob("*.py")):
        if path.stem != "loader":
            sources["agent" if path.stem == "__init__" else f"agent.{path.stem}"] = path.read_text("utf-8")
    return sources


@functools.cache
def _packed_agent() -> str:
    package = f"_daytona_agent_{agent_hash()}"
    sources = {package: ""} | {f"{package}.{name}": text for name, text in _sources().items()}
    loader = (HERE / "agent" / "loader.py").read_text(encoding="utf-8")
    bundle = json.dumps({"package": package, "sources": sources, "loader": loader})
    return base64.b64encode(zlib.compress(bundle.encode(), 9)).decode("ascii")


def bootstrap_code(options: dict[str, Any], request: dict[str, Any]) -> str:
    """Source of a context's first execution: start the agent, then serve ``request``.

    It leaves no name of its own in the context's globals.
    """
    return (
        "exec('import base64,json,zlib\\n"
        "B=json.loads(zlib.decompress(base64.b64decode(DATA)))\\n"
        'SOURCES,PACKAGE=B["sources"],B["package"]\\n'
        'exec(compile(B["loader"],"<daytona agent loader>","exec",dont_inherit=True))\','
        f"{{'__name__':'_daytona_loader','DATA':'{_packed_agent()}',"
        f"'USER_NS':globals(),'OPTIONS':__import__('json').loads({json.dumps(wire.dumps(options))})}})\n"
        + request_code(request)
    )


# -- IPython for a sandbox without it ------------------------------------------------------------------


class NoPureIPython(Exception):
    """This side's IPython can not be sent: it is not installed as ordinary files, or needs another Python."""


def ipython_requires() -> str:
    """The Python that this side's IPython asks for, such as ``>=3.11``; empty if it does not say."""
    message: Any = importlib.metadata.metadata("ipython")  # typeshed's protocol for it lacks ``get``
    return message.get("Requires-Python") or ""


def python_suits(version: str) -> bool:
    """Whether a sandbox Python of ``version`` (``3.12.1``) can run this side's IPython."""
    match = re.search(r">=\s*(\d+)\.(\d+)", ipython_requires())
    if match is None:
        return True
    return tuple(int(part) for part in version.split(".")[:2]) >= (int(match[1]), int(match[2]))


def ipython_closure() -> dict[str, importlib.metadata.Distribution]:
    """IPython and what it needs, by normalized name, as installed here.

    Distributions with compiled code are left out.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [*PURE_ROOTS, "typing-extensions", "exceptiongroup"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not _is_pure(distribution):
            continue
        found[name] = distribution
        waiting += [
            re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0]
            for requirement in distribution.requires or []
            if "extra ==" not in requirement
        ]
    return found


def _is_pure(distribution: importlib.metadata.Distribution) -> bool:
    return not any(str(path).endswith((".so", ".pyd", ".dylib")) for path in distribution.files or [])


@functools.cache
def ipython_hash() -> str:
    """Hash of names and versions in the closure: names its directory in the sandbox."""
    versions = [f"{name}=={dist.version}" for name, dist in sorted(ipython_closure().items())]
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]


def ipython_zip() -> bytes:
    """The closure as a zip archive of modules and metadata, without tests and caches; about 3.7 MB.

    Raises :class:`NoPureIPython` if IPython itself is not among what can be packed.
    """
    closure = ipython_closure()
    if "ipython" not in closure:
        raise NoPureIPython("this installation of IPython has no list of files")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for distribution in closure.values():
            for path in distribution.files or []:
                text = str(path)
                if _wanted(text) and (source := Path(str(path.locate()))).is_file():
                    archive.write(source, text)
    return buffer.getvalue()


def _wanted(path: str) -> bool:
    parts = path.split("/")
    if (
        path.startswith("..")
        or "__pycache__" in parts
        or "tests" in parts
        or path.endswith((".pyc", "RECORD"))
    ):
        return False
    # of jedi's stubs the standard library's alone: the rest is for packages that bring their own sources
    return "third_party" not in parts or "typeshed/stdlib/" in path
