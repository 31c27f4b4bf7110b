"""``push`` and ``pull``: values between this IPython and the sandbox."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import keyword
import pickle
import uuid
from typing import Any

from .cells import RemoteError, run_code
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .words import did_you_mean, printable, size

_PLAIN = (str, int, float, bool, type(None))
_READ = {
    "json": "__import__('json').loads(open({path!r}, encoding='utf-8').read())",
    "npy": "__import__('numpy').load({path!r}, allow_pickle=False)",
    "parquet": "__import__('pandas').read_parquet({path!r})",
    "pickle": "__import__('pickle').loads(open({path!r}, 'rb').read())",
}
_WRITE = r"""
def plain(v):
    if type(v) in (list,): return all(map(plain, v))
    if type(v) is dict: return all(type(k) is str and plain(x) for k, x in v.items())
    return type(v) in (str, int, float, bool, type(None))
def dump(v):
    import io, json
    kind = type(v).__module__.partition(".")[0], type(v).__name__
    if plain(v): return b"json", json.dumps(v).encode()
    buffer = io.BytesIO()
    if kind[0] == "numpy" and hasattr(v, "dtype") and not v.dtype.hasobject:
        import numpy; numpy.save(buffer, v, allow_pickle=False); return b"npy", buffer.getvalue()
    if kind == ("pandas", "DataFrame"):
        try: v.to_parquet(buffer); return b"parquet", buffer.getvalue()
        except ImportError: pass
    if pickled:
        import pickle; return b"pickle", pickle.dumps(v, 4)
    return b"none", ".".join(kind).encode()
kind, data = dump(value)
with open(path, "wb") as file: file.write(kind + b"\n" + data)
"""
"""Writes ``value`` to ``path``: its kind in the first line, then its bytes."""


def _push_arguments(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="variable")
    parser.add_argument("--pickle", action="store_true", help="pickle what has no safer form")


def _checked_names(names: list[str]) -> list[str]:
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"{name!r} is no name of a variable.")
    return names


@command("push", "Variables", _push_arguments, doors=("ipython",), examples=("%daytona push df threshold",))
async def push(host: Host, args: argparse.Namespace) -> Result:
    """Copy variables of this IPython to the sandbox's Python.

    Numbers, texts, lists and dictionaries go as JSON, numpy arrays as npy, data frames as Parquet.
    """
    values = []
    for name in _checked_names(args.names):
        if name not in host.namespace:
            near = did_you_mean(name, [one for one in host.namespace if not one.startswith("_")])
            raise UsageError(f"There is no variable {name!r} here.", hint=near)
        values.append((name, *await asyncio.to_thread(_dumped, name, host.namespace[name], args.pickle)))
    toolbox = await host.toolbox()
    for name, kind, data in values:
        path = f"/tmp/.daytona-push-{uuid.uuid4().hex}"  # noqa: S108 - in the sandbox
        await toolbox.upload(path, data, timeout_s=3600)
        try:
            await run_code(host, f"{name} = {_READ[kind].format(path=path)}", silent=True)
        except RemoteError as exc:
            raise CommandFailed(f"{name} could not be read in the sandbox: {exc}") from exc
        finally:
            await asyncio.shield(toolbox.execute("rm", "-f", path))
    text = "\n".join(f"{name} → sandbox ({kind}, {size(len(data))})" for name, kind, data in values)
    return Result([name for name, _, _ in values], text)


def _plain(value: Any) -> bool:
    """Whether JSON gives the same value back, types included."""
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _plain(item) for key, item in value.items())
    return type(value) in _PLAIN


def _dumped(name: str, value: Any, pickled: bool) -> tuple[str, bytes]:
    kind = type(value).__module__.partition(".")[0], type(value).__name__
    if _plain(value):
        return "json", json.dumps(value).encode()
    buffer = io.BytesIO()
    if kind[0] == "numpy" and hasattr(value, "dtype") and not value.dtype.hasobject:
        import numpy

        numpy.save(buffer, value, allow_pickle=False)
        return "npy", buffer.getvalue()
    if kind == ("pandas", "DataFrame"):
        try:
            value.to_parquet(buffer)
            return "parquet", buffer.getvalue()
        except ImportError:
            pass
    if pickled:
        return "pickle", pickle.dumps(value, 4)
    raise UsageError(f"{name} is a {'.'.join(kind)}, for which there is no safe form.", hint=_HINT)


_HINT = "--pickle sends it anyway (data frames: install pyarrow on both sides)."


def _pull_arguments(parser: Parser) -> None:
    _push_arguments(parser)
    parser.add_argument("--trust", action="store_true", help="with --pickle: run what the sandbox made of it")


@command("pull", "Variables", _pull_arguments, doors=("ipython",), examples=("%daytona pull result",))
async def pull(host: Host, args: argparse.Namespace) -> Result:
    """Copy variables of the sandbox's Python to this IPython, in the forms of push.

    Reading a pickle runs code here that the sandbox has chosen, so --pickle needs --trust as well.
    """
    names = _checked_names(args.names)
    if args.pickle and not args.trust:
        raise UsageError(
            "Reading a pickle from the sandbox runs its code on this machine.", hint="--trust, if you do."
        )
    toolbox, lines = await host.toolbox(), []
    for name in names:
        path = f"/tmp/.daytona-pull-{uuid.uuid4().hex}"  # noqa: S108 - in the sandbox
        scope = f"{{'value': {name}, 'path': {path!r}, 'pickled': {args.pickle}}}"
        try:
            await run_code(host, f"__import__('builtins').exec({_WRITE!r}, {scope})", silent=True)
            content = await toolbox.download(path)
        except RemoteError as exc:
            raise CommandFailed(f"{name} could not be pulled: {exc}") from exc
        finally:
            await asyncio.shield(toolbox.execute("rm", "-f", path))
        kind, _, data = (content or b"").partition(b"\n")
        if kind == b"none":
            about = printable(data.decode("utf-8", "replace"))
            raise UsageError(
                f"{name} is a {about}, for which there is no safe form.",
                hint="--pickle --trust takes it anyway.",
            )
        host.namespace[name] = await asyncio.to_thread(
            _loaded, kind.decode("ascii", "replace"), data, args.pickle
        )
        lines.append(f"{name} ← sandbox ({kind.decode()}, {size(len(data))})")
    return Result(names, "\n".join(lines))


def _loaded(kind: str, data: bytes, pickled: bool) -> Any:
    try:
        if kind == "json":
            return json.loads(data)
        if kind == "npy":
            import numpy

            return numpy.load(io.BytesIO(data), allow_pickle=False)
        if kind == "parquet":
            import pandas  # type: ignore[import-untyped]

            return pandas.read_parquet(io.BytesIO(data))
    except (ImportError, ValueError) as exc:
        raise CommandFailed(f"What the sandbox sent can not be read here: {exc}") from exc
    if kind == "pickle" and pickled:
        return pickle.loads(data)  # noqa: S301 - the person asked for it with --pickle --trust
    raise CommandFailed("The sandbox sent a value in an unknown form.")
