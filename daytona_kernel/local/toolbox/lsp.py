"""Language servers (``/lsp``): python-lsp-server for Python, typescript-language-server for the rest."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from .children import CHILDREN
from .errors import ToolboxError, path_error
from .fields import Fields, body_fields, query_fields
from .lsp_client import LanguageServer
from .paths import resolve
from .settings import SETTINGS, SPAWN_ENV

Key = tuple[str, str]
SERVERS = web.AppKey("language_servers", dict[Key, LanguageServer])
STARTING = web.AppKey("language_servers_starting", dict[Key, asyncio.Lock])

PROGRAMS = {
    "python": (["pylsp"], "pip install python-lsp-server"),
    "typescript": (["typescript-language-server", "--stdio"], "npm install -g typescript-language-server"),
    "javascript": (["typescript-language-server", "--stdio"], "npm install -g typescript-language-server"),
}
SUFFIXES = {
    "python": (".py",),
    "typescript": (".ts", ".tsx"),
    "javascript": (".js", ".jsx", ".mjs", ".cjs"),
}
MAX_SEARCHED_FILES = 500
"""Where a server cannot search a project (pylsp), so many of its files are asked for their symbols."""
_SKIPPED_DIRECTORIES = {"node_modules", "__pycache__", "site-packages"}


def key_of(app: web.Application, fields: Fields) -> Key:
    """Read which server a request means: (language, absolute project directory).

    :raises ToolboxError: 400 for a language that has none.
    """
    language = fields.text("languageId").lower()
    if language not in PROGRAMS:
        raise ToolboxError(400, f"unsupported language: {language!r} ({', '.join(PROGRAMS)})")
    return language, os.path.normpath(resolve(app, fields.text("pathToProject")))


def server_of(app: web.Application, fields: Fields) -> LanguageServer:
    """Find the running server that a request means.

    :raises ToolboxError: 400 LSP_SERVER_NOT_INITIALIZED if it has not been started.
    """
    server = app[SERVERS].get(key_of(app, fields))
    if server is None or not server.running:
        raise ToolboxError(
            400, "the language server has not been started for this project", "LSP_SERVER_NOT_INITIALIZED"
        )
    return server


def file_of(app: web.Application, fields: Fields) -> str:
    """Read which file a request means: absolute, or relative to the project or to the working directory."""
    uri = fields.text("uri")
    path = unquote(uri[len("file://") :]) if uri.startswith("file://") else uri
    if not path or "\0" in path:
        raise ToolboxError(400, f"invalid uri: {uri!r}")
    in_project = os.path.join(key_of(app, fields)[1], path)
    return in_project if os.path.exists(in_project) else os.path.join(app[SETTINGS].work_dir, path)


def uri_of(path: str) -> str:
    """Name a file for a language server."""
    return f"file://{quote(os.path.normpath(path))}"


async def start(request: web.Request) -> web.Response:
    """Start the server of a project; does nothing if it runs."""
    fields = await body_fields(request)
    key = key_of(request.app, fields)
    async with request.app[STARTING].setdefault(key, asyncio.Lock()):
        running = request.app[SERVERS].get(key)
        if running is None or not running.running:
            request.app[SERVERS][key] = await _launch(request.app, key)
    return web.Response()


async def _launch(app: web.Application, key: Key) -> LanguageServer:
    language, project = key
    argv, remedy = PROGRAMS[language]
    if shutil.which(argv[0], path=app[SPAWN_ENV].get("PATH")) is None:
        raise ToolboxError(500, f"{argv[0]} is not installed in this sandbox: {remedy}")
    try:
        server = LanguageServer(app[CHILDREN], argv, app[SPAWN_ENV], project)
    except OSError as exc:
        raise ToolboxError(400, f"cannot start {argv[0]}: {exc}") from exc
    try:
        await server.initialize(project)
    except BaseException:
        await server.stop()
        raise
    return server


async def stop(request: web.Request) -> web.Response:
    """Stop the server of a project."""
    fields = await body_fields(request)
    server_of(request.app, fields)
    await request.app[SERVERS].pop(key_of(request.app, fields)).stop()
    return web.Response()


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


async def did_open(request: web.Request) -> web.Response:
    """Tell the server that a file is being edited, with its content on disk."""
    fields = await body_fields(request)
    server = server_of(request.app, fields)
    path = file_of(request.app, fields)
    try:
        text = await asyncio.to_thread(_read_text, path)
    except (OSError, ValueError) as exc:
        error = path_error(exc, path)
        raise ToolboxError(400, error.message, error.code) from exc
    document = {
        "uri": uri_of(path),
        "languageId": key_of(request.app, fields)[0],
        "version": 1,
        "text": text,
    }
    server.notify("textDocument/didOpen", {"textDocument": document})
    return web.Response()


async def did_close(request: web.Request) -> web.Response:
    """Tell the server that a file is not being edited any more."""
    fields = await body_fields(request)
    server = server_of(request.app, fields)
    document = {"uri": uri_of(file_of(request.app, fields))}
    server.notify("textDocument/didClose", {"textDocument": document})
    return web.Response()


def symbols(found: Any, uri: str) -> list[dict[str, Any]]:
    """Bring a server's symbols into the API's one form: a flat list, each with its place. Pure."""
    flat = []
    for one in found or []:
        location = one.get("location") or {"uri": uri, "range": one.get("selectionRange") or one.get("range")}
        flat.append({"name": one["name"], "kind": one["kind"], "location": location})
        flat += symbols(one.get("children"), uri)
    return flat


async def _symbols_of_file(server: LanguageServer, path: str) -> list[dict[str, Any]]:
    uri = uri_of(path)
    found = await server.request("textDocument/documentSymbol", {"textDocument": {"uri": uri}})
    return symbols(found, uri)


async def document_symbols(request: web.Request) -> web.Response:
    """List the symbols of a file."""
    fields = query_fields(request)
    server = server_of(request.app, fields)
    return web.json_response(await _symbols_of_file(server, file_of(request.app, fields)))


def source_files(project: str, suffixes: tuple[str, ...]) -> list[str]:
    """List the project's source files: nearest first, at most :data:`MAX_SEARCHED_FILES`."""
    found: list[str] = []
    for directory, names, files in os.walk(project):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED_DIRECTORIES)
        found += [os.path.join(directory, name) for name in sorted(files) if name.endswith(suffixes)]
        if len(found) >= MAX_SEARCHED_FILES:
            break
    return found[:MAX_SEARCHED_FILES]


async def workspace_symbols(request: web.Request) -> web.Response:
    """Search the symbols of a project by part of their name."""
    fields = query_fields(request)
    query = fields.text("query", "")
    server = server_of(request.app, fields)
    if server.capabilities.get("workspaceSymbolProvider"):
        return web.json_response(symbols(await server.request("workspace/symbol", {"query": query}), ""))
    language, project = key_of(request.app, fields)
    found = []
    for path in await asyncio.to_thread(source_files, project, SUFFIXES[language]):
        in_file = await _symbols_of_file(server, path)
        found += [symbol for symbol in in_file if query.lower() in symbol["name"].lower()]
    return web.json_response(found)


_ITEM_FIELDS = ("label", "kind", "detail", "documentation", "sortText", "filterText", "insertText")


def completion_list(answer: Any) -> dict[str, Any]:
    """Bring a server's completions into the API's form. Pure."""
    if isinstance(answer, list):
        answer = {"isIncomplete": False, "items": answer}
    answer = answer or {}
    items = [
        {name: item[name] for name in _ITEM_FIELDS if item.get(name) is not None}
        for item in answer.get("items", [])
    ]
    return {"isIncomplete": bool(answer.get("isIncomplete")), "items": items}


async def completions(request: web.Request) -> web.Response:
    """Complete at a position of a file."""
    fields = await body_fields(request)
    server = server_of(request.app, fields)
    position = fields.get("position")
    if not isinstance(position, dict):
        raise ToolboxError(400, "position is required", "INVALID_REQUEST_BODY")
    place = Fields(position)
    params: dict[str, Any] = {
        "textDocument": {"uri": uri_of(file_of(request.app, fields))},
        "position": {name: place.integer(name, low=0, high=2**31) for name in ("line", "character")},
    }
    context = fields.get("context")
    if isinstance(context, dict):
        params["context"] = {name: value for name, value in context.items() if value is not None}
    return web.json_response(completion_list(await server.request("textDocument/completion", params)))


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    yield
    for server in app[SERVERS].values():
        if server.running:
            await server.stop()


def setup(app: web.Application) -> None:
    """Add the routes and the clean-up."""
    app[SERVERS] = {}
    app[STARTING] = {}
    app.cleanup_ctx.append(_lifetime)
    posts = {
        "start": start,
        "stop": stop,
        "did-open": did_open,
        "did-close": did_close,
        "completions": completions,
    }
    for name, handler in posts.items():
        app.router.add_post(f"/lsp/{name}", handler)
    app.router.add_get("/lsp/document-symbols", document_symbols)
    app.router.add_get("/lsp/workspacesymbols", workspace_symbols)
