"""``push`` and ``pull``: values between this IPython and the sandbox, and between notebooks.

Between notebooks they go over the shelf, a directory of this machine (:mod:`daytona_kernel.shelf`): so they
get from any sandbox to any other, and into a plain IPython. What a sandbox has written is read here by
:mod:`daytona_kernel.values` only, and in the kernel not at all: there its bytes go on to the next sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import keyword
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from .. import fetching, transfer, values
from ..errors import SandboxProtocolError
from ..shelf import Entry, Shelf
from ..toolbox import Toolbox
from ..transfer import Item
from .cells import RemoteError, run_code
from .host import CommandFailed, Host, Result, UsageError
from .progress import Progress
from .registry import Parser, command
from .words import did_you_mean, duration, now, printable, size, table_html, table_text

_PICKLE_HINT = "--pickle sends it anyway."
_PICKLE_HERE_HINT = "--pickle --trust takes it anyway."
_TRUST_HINT = "--trust, if you do trust who made it."
_SAVE = """
def _save(scope, names, folder, pickled):
    import difflib, os
    for name in names:
        if name not in scope:
            near = difflib.get_close_matches(name, [n for n in scope if n[:1] != "_"], 1, 0.55)
            raise NoVariable(f"{name!r}" + (f" {near[0]}" if near else ""))
    os.mkdir(folder, 0o700)
    for number, name in enumerate(names):
        try:
            pieces = dump(scope[name], pickled)
        except NoSafeForm as exc:
            raise NoSafeForm(f"{name}: {exc}") from None
        with open(f"{folder}/{number}", "wb") as file:
            file.writelines(pieces)
class NoVariable(Exception): pass
_save(scope, names, folder, pickled)
"""
_LOAD = """
def _load(scope, loads, trust):
    found = {}
    for name, path in loads:
        with open(path, "rb") as file:
            data = file.read()
        found[name] = load(data, trust)
    scope.update(found)
_load(scope, loads, trust)
"""


def _push_arguments(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="variable").completer = (  # type: ignore[attr-defined]
        "variable"
    )
    parser.add_argument(
        "--as",
        dest="key",
        metavar="KEY",
        help="name on the shelf, like team/prices; ending in / it is put before",
    ).completer = "shelf"  # type: ignore[attr-defined]
    parser.add_argument("--shelf", action="store_true", help="to the shelf; in the kernel it is always there")
    parser.add_argument("--pickle", action="store_true", help="pickle what has no safer form")


@command(
    "push",
    "Variables",
    _push_arguments,
    examples=("%daytona push df threshold", "%daytona push prices --as team/prices"),
)
async def push(host: Host, args: argparse.Namespace) -> Result:
    """Hand variables on: in a plain IPython to the sandbox's Python, else to other notebooks.

    In the kernel, and with --shelf or --as anywhere, they go to the shelf, a directory of your machine. There
    they stay until shelf rm, and every notebook of yours can pull them, whichever sandbox it uses.

    Numbers, texts, bytes, times, lists, dictionaries and the like, numpy arrays, and pandas' data frames,
    series and indexes arrive as what they were. Other things need --pickle, and whoever pulls them --trust.
    """
    names = _checked_names(args.names)
    here = host.door != "kernel"
    if here and not (args.shelf or args.key):
        return await _push_to_sandbox(host, names, args.pickle)
    keys = _shelf_keys(names, args.key)
    shelf = _shelf(host)
    with ExitStack() as stack:
        if here:
            pieces = [await _dumped(host, name, args.pickle) for name in names]
            for key, one in zip(keys, pieces, strict=True):
                file = stack.enter_context(shelf.put(key, "plain IPython"))
                await asyncio.to_thread(file.writelines, one)
        else:
            sandbox = await host.sandbox()
            source = f"sandbox {sandbox.name}"
            async with _written(host, names, args.pickle) as remote:
                files = [stack.enter_context(shelf.put(key, source)) for key in keys]
                await _fetch(host, remote, files, shelf.folder)
    return _pushed(shelf, names, keys)


def _pushed(shelf: Shelf, names: Sequence[str], keys: Sequence[str]) -> Result:
    lines = []
    for name, key in zip(names, keys, strict=True):
        entry = shelf.entry(key)
        about = _words(entry.about, entry.size) if entry else "gone already"
        lines.append(f"{name} → shelf: {key} ({about})")
    lines.append(f"Elsewhere: %daytona pull {' '.join(keys)}")
    return Result(list(keys), "\n".join(lines))


async def _push_to_sandbox(host: Host, names: list[str], pickled: bool) -> Result:
    pieces = [await _dumped(host, name, pickled) for name in names]
    with _private_folder() as folder:
        paths = [folder / str(number) for number in range(len(names))]
        for path, one in zip(paths, pieces, strict=True):
            await asyncio.to_thread(_write, path, one)
        sizes = [path.stat().st_size for path in paths]
        del pieces
        await _bring(host, list(zip(names, paths, strict=True)), trust=True)  # it is ours
    lines = [
        f"{name} → sandbox ({_words(values.about(host.namespace[name]), length)})"
        for name, length in zip(names, sizes, strict=True)
    ]
    return Result(names, "\n".join(lines))


async def _dumped(host: Host, name: str, pickled: bool) -> list[bytes]:
    """A variable of this IPython as pieces of bytes."""
    if name not in host.namespace:
        near = did_you_mean(name, [one for one in host.namespace if not one.startswith("_")])
        raise UsageError(f"There is no variable {name!r} here.", hint=near)
    try:
        return await asyncio.to_thread(values.dump, host.namespace[name], pickled)
    except values.NoSafeForm as exc:
        raise UsageError(f"{name} has no safe form: {exc}.", hint=_PICKLE_HINT) from exc
    except Exception as exc:  # of its own methods, or of pickle
        raise CommandFailed(f"{name} can not be written: {exc}.") from exc


def _write(path: Path, pieces: list[bytes]) -> None:
    with open(path, "wb") as file:
        file.writelines(pieces)


# -- pull --------------------------------------------------------------------------------------------


def _pull_arguments(parser: Parser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="variable, or its name on the shelf"
    ).completer = (  # type: ignore[attr-defined]
        "shelf"
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of the variable it becomes")
    parser.add_argument(
        "--shelf", action="store_true", help="from the shelf; in the kernel it is always there"
    )
    parser.add_argument(
        "--pickle", action="store_true", help="have the sandbox pickle what has no safer form"
    )
    parser.add_argument(
        "--trust", action="store_true", help="read pickles, too, which runs code of their maker"
    )


@command(
    "pull",
    "Variables",
    _pull_arguments,
    examples=("%daytona pull result", "%daytona pull team/prices --as prices"),
)
async def pull(host: Host, args: argparse.Namespace) -> Result:
    """Fetch variables: in a plain IPython from the sandbox's Python, else those that notebooks have pushed.

    In the kernel, and with --shelf or a name like team/prices anywhere, they come from the shelf, and
    team/prices becomes the variable prices. They have the forms that push has.

    Reading a pickle runs code that its maker has chosen: it needs --trust.
    """
    if args.pickle and not args.trust:
        raise UsageError("Reading a pickle from the sandbox runs its code on this machine.", hint=_TRUST_HINT)
    if args.name is not None and len(args.names) > 1:
        raise UsageError("--as is for one variable.", hint=f"{len(args.names)} are to be pulled.")
    targets = _checked_names([args.name] if args.name is not None else [_last(one) for one in args.names])
    here = host.door != "kernel"
    if here and not args.shelf and not any("/" in name for name in args.names):
        return await _pull_from_sandbox(host, args, targets)
    entries = [_found(host, key) for key in args.names]
    for entry in entries:
        if entry.pickled and not args.trust:
            raise UsageError(
                f"{entry.key} is pickled, and reading it runs code of its maker ({printable(entry.source)}).",
                hint=_TRUST_HINT,
            )
    if here:
        found = [await _loaded(entry.path, entry.key, args.trust) for entry in entries]
        host.namespace.update(zip(targets, found, strict=True))
    else:
        await _bring(host, [(name, one.path) for name, one in zip(targets, entries, strict=True)], args.trust)
    lines = [
        f"{name} ← shelf: {one.key} ({_words(one.about, one.size)}, from {printable(one.source)})"
        for name, one in zip(targets, entries, strict=True)
    ]
    return Result(targets, "\n".join(lines))


async def _pull_from_sandbox(host: Host, args: argparse.Namespace, targets: list[str]) -> Result:
    names, lines, found = _checked_names(args.names), [], []
    with _private_folder() as folder:
        paths = [folder / str(number) for number in range(len(names))]
        async with _written(host, names, args.pickle) as remote:
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("wb")) for path in paths]
                await _fetch(host, remote, files, folder)
        for name, target, path in zip(names, targets, paths, strict=True):
            found.append(await _loaded(path, name, args.trust and args.pickle))
            lines.append(f"{target} ← sandbox ({_words(values.about(found[-1]), path.stat().st_size)})")
    host.namespace.update(zip(targets, found, strict=True))
    return Result(targets, "\n".join(lines))


async def _loaded(path: Path, name: str, trust: bool) -> Any:
    """The value in a file, which may be anybody's."""

    def load() -> Any:
        return values.load(path.read_bytes(), trust)

    try:
        return await asyncio.to_thread(load)
    except values.Untrusted as exc:
        raise UsageError(f"{name} can not be read here: {exc}.", hint=_TRUST_HINT) from exc
    except (values.Unreadable, OSError) as exc:
        raise CommandFailed(f"{name} can not be read here: {printable(str(exc))}.") from exc


def _words(about: str, length: int) -> str:
    """What a value is, and its size where that matters."""
    return printable(about) + (f", {size(length)}" if length >= 4096 else "")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _found(host: Host, key: str) -> Entry:
    shelf = _shelf(host)
    try:
        entry = shelf.entry(key)
    except ValueError as exc:
        raise UsageError(str(exc), hint="Names of the shelf are like prices or team/prices.") from exc
    if entry is None:
        known = shelf.keys()
        near = did_you_mean(key, known) or ("%daytona shelf list shows what is there." if known else "")
        raise UsageError(
            f"There is no {key!r} on the shelf.",
            hint=near or "It is empty: %daytona push puts something there.",
        )
    return entry


# -- the shelf -----------------------------------------------------------------------------------------


def _shelf(host: Host) -> Shelf:
    return Shelf(host.session.settings.shelf)


def _shelf_keys(names: list[str], key: str | None) -> list[str]:
    """Where each variable goes. Raises :class:`UsageError` for what can be no key."""
    if key is None or key.endswith("/"):
        keys = [f"{key or ''}{name}" for name in names]
    elif len(names) == 1:
        keys = [key]
    else:
        raise UsageError("--as KEY is for one variable.", hint=f"For several, end it with a slash: {key}/")
    for one in keys:
        try:
            Shelf(".").path(one)
        except ValueError as exc:
            raise UsageError(
                str(exc), hint="Write letters, digits, _, - and ., and / between names."
            ) from exc
    return keys


@command("shelf list", "Variables", examples=("%daytona shelf list",))
async def shelf_list(host: Host, args: argparse.Namespace) -> Result:
    """List the values on the shelf, which notebooks have pushed for each other."""
    shelf = _shelf(host)
    found = [entry for key in await asyncio.to_thread(shelf.keys) if (entry := shelf.entry(key))]
    value = [
        {"key": one.key, "about": one.about, "size": one.size, "from": one.source, "saved": one.saved}
        | {"pickled": one.pickled}
        for one in found
    ]
    if not found:
        return Result(value, "There is nothing on the shelf: %daytona push puts something there.")
    header = ("name", "what", "size", "from", "age")
    rows = [
        (
            one.key,
            printable(one.about) + (", pickled" if one.pickled else ""),
            size(one.size),
            printable(one.source),
            _age(one.saved),
        )
        for one in found
    ]
    return Result(value, table_text(header, rows), table_html(header, rows))


def _age(saved: str) -> str:
    from datetime import datetime

    try:
        return duration(max(0, int((now() - datetime.fromisoformat(saved)).total_seconds())))
    except (ValueError, TypeError):
        return ""


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("keys", nargs="+", metavar="NAME", help="name on the shelf").completer = (  # type: ignore[attr-defined]
        "shelf"
    )


@command("shelf rm", "Variables", _rm_arguments, examples=("%daytona shelf rm team/prices",))
async def shelf_rm(host: Host, args: argparse.Namespace) -> Result:
    """Take values from the shelf. Variables that were pulled stay."""
    entries = [_found(host, key) for key in args.keys]
    shelf = _shelf(host)
    for entry in entries:
        await asyncio.to_thread(shelf.remove, entry.key)
    return Result(args.keys, f"Gone from the shelf: {', '.join(args.keys)}")


# -- to and from the sandbox -----------------------------------------------------------------------------


def _checked_names(names: list[str]) -> list[str]:
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"{name!r} is no name of a variable.")
    return names


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A directory of this machine for as long as it is needed, for this user only."""
    folder = tempfile.mkdtemp(prefix="daytona-values-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _source() -> str:
    return inspect.getsource(values)


async def _run(host: Host, script: str, **request: Any) -> None:
    """Run a script on the variables of the notebook's Python, with the functions of :mod:`values`."""
    scope = f"{{'__name__': 'daytona_values', 'scope': __import__('builtins').globals(), **{request!r}}}"
    code = f"__import__('builtins').exec({_source() + script!r}, {scope})"
    try:
        await run_code(host, code, silent=True)
    except RemoteError as exc:
        raise _explained(exc, _PICKLE_HINT if host.door == "kernel" else _PICKLE_HERE_HINT) from exc


def _explained(exc: RemoteError, pickle_hint: str) -> Exception:
    said = printable(exc.evalue)[:400]
    if exc.ename == "NoVariable":
        name, _, near = said.partition(" ")
        return UsageError(
            f"There is no variable {name} in the sandbox.", hint=f"Did you mean {near}?" if near else ""
        )
    if exc.ename == "NoSafeForm":
        return UsageError(f"There is no safe form of {said}.", hint=pickle_hint)
    if exc.ename == "Untrusted":
        return UsageError(f"The sandbox did not read it: {said}.", hint=_TRUST_HINT)
    return CommandFailed(f"The sandbox's Python could not do it: {printable(exc.ename)[:80]}: {said}.")


Remote = list[tuple[str, int]]
"""Files of the sandbox with their sizes in bytes."""


@asynccontextmanager
async def _written(host: Host, names: list[str], pickled: bool) -> AsyncIterator[Remote]:
    """Variables of the sandbox's Python as files there, for as long as they are needed."""
    toolbox = await host.toolbox()
    folder = f"{transfer.TEMPORARY}push-{uuid.uuid4().hex}"
    try:
        await _run(host, _SAVE, names=names, folder=folder, pickled=pickled)
        sizes = await toolbox.list_files(folder) or {}
        if any(str(number) not in sizes for number in range(len(names))):
            raise SandboxProtocolError("The sandbox's Python did not write the variables.")
        yield [(f"{folder}/{number}", sizes[str(number)]) for number in range(len(names))]
    finally:
        await asyncio.shield(toolbox.execute("rm", "-rf", folder))


async def _fetch(host: Host, remote: Remote, files: Sequence[IO[bytes]], folder: Path) -> None:
    """Copy files of the sandbox into open files of this machine: not more than they are said to have."""
    toolbox = await host.toolbox()
    total = sum(length for _, length in remote)
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    if total > free:
        raise CommandFailed(f"The values have {size(total)}, and {folder} has room for {size(free)}.")
    with Progress(host, "values", total) as progress:
        for (path, length), file in zip(remote, files, strict=True):
            await _fetch_one(toolbox, path, length, file, progress)


async def _fetch_one(toolbox: Toolbox, path: str, length: int, file: IO[bytes], progress: Progress) -> None:
    left = length
    async for block in fetching.blocks(toolbox, path):
        left -= len(block)
        if left < 0:
            break
        await asyncio.to_thread(file.write, block)
        progress.add(len(block))
    if left:
        raise SandboxProtocolError("The sandbox sent another number of bytes than it had said.")


async def _bring(host: Host, loads: Sequence[tuple[str, Path]], trust: bool) -> None:
    """Have the sandbox's Python read files of this machine into variables; all of them, or none."""
    toolbox = await host.toolbox()
    folder = f"{transfer.TEMPORARY}pull-{uuid.uuid4().hex}"
    items = []
    for number, (_, path) in enumerate(loads):
        info = path.stat()
        items.append(Item(path, f"{folder}/{number}", info.st_size, 0o600, info.st_mtime))
    try:
        with Progress(host, "values", sum(item.size for item in items)) as progress:
            outcome = await transfer.upload(toolbox, items, progress.add)
        if outcome.errors:
            raise CommandFailed(f"The values did not get to the sandbox: {printable(outcome.errors[0][1])}")
        pairs = [[name, item.remote] for (name, _), item in zip(loads, items, strict=True)]
        await _run(host, _LOAD, loads=pairs, trust=trust)
    finally:
        await asyncio.shield(toolbox.execute("rm", "-rf", folder))
