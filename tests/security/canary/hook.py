"""What every Python of a run with canaries does at its start. ``install`` copies it into ``site-packages``.

Nothing here is part of the product, and nothing here changes what it does: keys and tokens get a mark in
front of what they had anyway. Not in sandboxes: what runs there has no keys to mark.
"""

# This is run before anything else: as long as nothing is deleted, it imports only what is loaded already.
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing `typing` would take longer than all the rest
if TYPE_CHECKING:
    from typing import Any

FINDINGS = ROOT = HERE = ""
"""The file of findings, the directory to search, where this package is: the copy has them."""
MARK = "".join(("c0ffee", "5ec7"))
IN_SANDBOX = "DAYTONA_SANDBOX_ID"
NO_SECRETS = ("daytona_kernel.local.events", "daytona_kernel.local.secrets_store")
"""Modules that make names of sockets and placeholders with the function for tokens."""
SHORTEST = 16
"""Bytes of the shortest secret; shorter ones are names."""
LONG = 32
"""Characters of a token with room for a mark."""


def caller() -> str:
    """The module that called a function of this one."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


def mark_secrets(module: Any) -> None:
    """Put the mark into what our package gets from ``secrets``."""
    token_hex, token_bytes, token_urlsafe = module.token_hex, module.token_bytes, module.token_urlsafe

    def marked_hex(count: int | None = None) -> str:
        mark = MARK + "a" if (count or 32) >= SHORTEST and caller().startswith("daytona_kernel") else ""
        return str(mark + token_hex(count))

    def marked_urlsafe(count: int | None = None) -> str:
        mark = MARK + "a" if (count or 32) >= SHORTEST and caller().startswith("daytona_kernel") else ""
        return str(mark + token_urlsafe(count))

    def marked_bytes(count: int | None = None) -> bytes:
        raw: bytes = token_bytes(count)
        if len(raw) < SHORTEST or not caller().startswith("daytona_kernel"):
            return raw
        mark = bytes.fromhex(MARK + "d0")
        return mark + raw[len(mark) :]  # keys for ciphers and cookies have a length

    module.token_hex, module.token_bytes, module.token_urlsafe = marked_hex, marked_bytes, marked_urlsafe


def mark_tokens(module: Any) -> None:
    """Put the mark into the local server's tokens."""
    new_token = module.new_token

    def marked(length: int = 32) -> str:
        if caller() in NO_SECRETS:
            return str(new_token(length))
        # The usual ones keep their length, which clients see, and 108 bits by chance.
        return str(MARK + "b" + new_token(length - len(MARK) - 1 if length >= LONG else length))

    module.new_token = marked


PATCHES = {"secrets": mark_secrets, "daytona_kernel.local.records": mark_tokens}


class Executing:
    """A loader's ``exec_module`` with something after it."""

    def __init__(self, execute: Any, then: Any) -> None:
        self.execute, self.then = execute, then

    def __call__(self, module: Any) -> None:
        """Fill the module."""
        self.execute(module)
        self.then(module)


class Finder:
    """Changes a module right after its import, before anybody has its functions."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Called for each import of something that is not loaded yet."""
        patch = PATCHES.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                loader: Any = spec.loader
                loader.exec_module = Executing(loader.exec_module, patch)
                return spec
        return None


def note(path: str, *, tree: bool) -> None:
    """Search what is about to be deleted."""
    try:
        found = [one.as_json() for one in searcher(tree)(path)]
    except Exception as exc:  # whoever deletes has nothing to do with it: CI's search tells
        place = {"path": path, "member": "", "offset": 0, "form": "", "kind": "", "mode": 0, "private": False}
        found = [{**place, "around": f"could not be searched: {exc!r}"}]
    if found:
        import json

        when = f"deleted {os.environ.get('PYTEST_CURRENT_TEST', '')}".strip()
        # One write, so that processes do not mix their lines.
        lines = "".join(json.dumps({**one, "when": when}) + "\n" for one in found)
        descriptor = os.open(FINDINGS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, lines.encode())
        os.close(descriptor)


def searcher(tree: bool) -> Any:
    """The searching function; loaded when something is deleted for the first time."""
    name = "_canary_search"
    if name not in sys.modules:
        import importlib.util

        spec = importlib.util.spec_from_file_location(
            name, os.path.join(HERE, "__init__.py"), submodule_search_locations=[HERE]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
    from importlib import import_module

    module = import_module(f"{name}.search")
    return module.search_tree if tree else module.search_file


def ours(path: Any) -> bool:
    """Whether a path is below the directory that the run writes to."""
    try:
        return os.path.abspath(os.fsdecode(path)).startswith(ROOT + "/")
    except (TypeError, ValueError):
        return False


class Watched:
    """``os.unlink`` that searches a file first.

    No function: ``pathlib`` of Python 3.10 would make it a method.
    """

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, path: Any, *, dir_fd: int | None = None) -> None:
        """Files of a tree have a `dir_fd`; they were searched with the tree."""
        if dir_fd is None and ours(path):
            note(os.fsdecode(path), tree=False)
        self.original(path, dir_fd=dir_fd)


def watch_unlink() -> None:
    """Search single files before they are deleted."""
    for name in ("unlink", "remove"):
        watched = Watched(getattr(os, name))
        setattr(os, name, watched)
        os.supports_dir_fd.add(watched)  # shutil.rmtree asks


def watch_rmtree(module: Any) -> None:
    """Search trees before they are deleted."""
    original = module.rmtree

    def rmtree(path: Any, *arguments: Any, **options: Any) -> None:
        if ours(path) and options.get("dir_fd") is None:
            note(os.fsdecode(path), tree=True)
        original(path, *arguments, **options)

    rmtree.avoids_symlink_attacks = original.avoids_symlink_attacks  # type: ignore[attr-defined]
    module.rmtree = rmtree


def start() -> None:
    """Begin, unless this is a sandbox: one with bubblewrap does not see the directory."""
    if IN_SANDBOX in os.environ or not os.path.isdir(ROOT):
        return
    PATCHES["shutil"] = watch_rmtree
    for name, patch in PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, Finder())
    watch_unlink()
