"""The table of all endpoints in ``docs/local-server.md``: ``python -m tests.local.endpoints`` writes it anew.

What the toolbox does is said by the docstrings of its handlers; what the control plane does, and where either
differs from the service, by the notes below.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daytona_kernel.local.toolbox.app import create_app
from daytona_kernel.local.toolbox.settings import ToolboxSettings

from .operations import TOOLBOX, operations, shape, used_by_sdk

PAGE = Path(__file__).resolve().parents[2] / "docs" / "local-server.md"
BEGIN, END = "<!-- begin of the generated table -->\n", "<!-- end of the generated table -->\n"

CONTROL_NOTES = {
    "activate_snapshot": "Makes a snapshot usable again; 400 if it is.",
    "archive_sandbox": "Marks a stopped sandbox as archived; its files stay where they are, "
    "there is no other storage.",
    "config_controller_get_config": "What clients need to know, and how isolated sandboxes are.",
    "create_sandbox": "From a snapshot (answers when it has started) or an image (answers in "
    "`pending_build`). Refused: GPUs, network allow lists, images that take"
    " local files.",
    "create_sandbox_snapshot": "Copies the files of a started or stopped sandbox while its processes "
    "hold still.",
    "create_secret": "Kept in memory: gone when the server ends.",
    "create_snapshot": "Builds an image into a snapshot, or gives a snapshot of this server "
    "another name and size.",
    "create_ssh_access": "A record with a token and an expiry. There is no SSH gateway: nobody "
    "can log in with it.",
    "create_volume": "A directory of the server, ready at once.",
    "create_warm_pool": "Keeps spare sandboxes ready, 10 in all, for snapshots without files of"
    " their own; 422 for others.",
    "delete_sandbox": "Ends its processes and removes its files; the name is free at once.",
    "delete_secret": "Removes it; sandboxes that have started with it keep it until they stop.",
    "delete_volume": "Removes the directory; 409 while a sandbox has it.",
    "delete_warm_pool": "Takes the wish back.",
    "expire_signed_port_preview_url": "The link does not work any more.",
    "fork_sandbox": "A new sandbox with a copy of the files; processes are not copied.",
    "get_all_snapshots": "In pages, with filters by name and source.",
    "get_build_logs_url": "A link to the log; it can be followed while the build runs.",
    "get_port_preview_url": "`http://PORT-SANDBOX.localhost:…` and the sandbox's token.",
    "get_push_access": "503: the SDK's storage client speaks nothing but https to a known "
    "authority, so no server on this machine can serve it. Images can not "
    "take local files; upload them into the sandbox.",
    "get_sandbox": "By id, else by name.",
    "get_sandbox_metrics": "A sample each half minute while started, for six hours, in memory.",
    "get_sandbox_signing_key": "The key for signed file links.",
    "get_secret": "Without the value.",
    "get_signed_port_preview_url": "A link with a token of its own, for 1 second to 1 day.",
    "get_snapshot": "By id, else by name.",
    "get_snapshot_build_logs_url": "A link to the log; it can be followed while the build runs.",
    "get_toolbox_proxy_url": "The base URL of all sandboxes' toolboxes.",
    "get_volume_by_name": "404 if there is none, on which the SDK may create it.",
    "list_sandboxes": "With all filters, sort orders and cursors; new sandboxes are in it at once.",
    "list_secrets_paginated": "All in one page, without values.",
    "list_volumes": "Deleted ones are forgotten at once.",
    "list_warm_pools": "With the number of spares that are ready.",
    "pause_sandbox": "Stops all processes where they are; `start` lets them go on.",
    "recover_sandbox": "Starts a sandbox that is in `error` again.",
    "remove_snapshot": "Removes its files, breaks its build off; 403 for those that come with the server.",
    "replace_labels": "Replaces all labels.",
    "resize_sandbox": "Changes CPUs, memory and disk by the service's rules; in force at once"
    " where control groups work.",
    "revoke_ssh_access": "Forgets one record, or all of the sandbox.",
    "rotate_signing_key": "A new key; links signed with the old one end.",
    "set_auto_archive_interval": "Acts on the clock; 0 stands for 30 days.",
    "set_auto_delete_interval": "Acts on the clock; 0 deletes at the stop, -1 never.",
    "set_auto_pause_interval": "Acts on the clock; 0 never.",
    "set_autostop_interval": "Acts on the clock; 0 never.",
    "set_ttl": "Deletes the sandbox so many minutes from now; 0 never.",
    "start_sandbox": "From stopped, archived or paused; answers when it has started.",
    "stop_sandbox": "Ends all processes and keeps the files; an ephemeral sandbox is deleted.",
    "update_last_activity": "Counts as activity.",
    "update_network_settings": "Cuts a sandbox off the network and back, while it runs if it has a "
    "network of its own; allow lists are refused.",
    "update_public_status": "Opens the sandbox's previews to everybody on this machine, or closes them.",
    "update_sandbox_secrets": "Takes effect at the next start.",
    "update_secret": "Takes effect at the next start of a sandbox.",
    "update_warm_pool": "Changes the number of spares.",
    "validate_ssh_access": "Whether a record is valid.",
}
"""Operation of the SDK -> what the server does for it."""

TOOLBOX_NOTES = {
    "create_interpreter_context": "Start a Python of its own with its own variables.",
    "delete_interpreter_context": "End a context and its Python.",
    "execute_interpreter_code": "Run code in a context; output comes as it is printed (WebSocket).",
    "initialize": "404: the service's own first call to its daemon; no client makes it.",
    "key_down": "Hold a key down.",
    "key_up": "Release a key.",
    "list_interpreter_contexts": "List the contexts, without the default one.",
    "mouse_down": "Hold a button down.",
    "mouse_up": "Release a button.",
    "take_screenshot": "Give a picture of the screen (PNG).",
    "take_compressed_screenshot": "Give a picture as PNG, JPEG or WebP, with quality and scale.",
    "take_region_screenshot": "Give a picture of a part of the screen.",
    "take_compressed_region_screenshot": "Give a picture of a part, as PNG, JPEG or WebP, with quality and "
    "scale.",
    "find_accessibility_nodes": "503 `A11Y_UNAVAILABLE`: there is no accessibility tree here.",
    "focus_accessibility_node": "503 `A11Y_UNAVAILABLE`.",
    "invoke_accessibility_node": "503 `A11Y_UNAVAILABLE`.",
    "set_accessibility_node_value": "503 `A11Y_UNAVAILABLE`.",
    "get_accessibility_tree": "503 `A11Y_UNAVAILABLE`: there is no accessibility tree here.",
    "get_system_metrics": "Show CPU, memory and disk: of the sandbox's control group, else of the"
    " whole machine.",
    "start": "Start the server of a project; does nothing if it runs. Needs `python-lsp-server` or, for "
    "TypeScript, `typescript-language-server`.",
    "set_file_permissions": "Change mode, owner and group, as far as they are given and a plain user may.",
}


def handlers() -> dict[tuple[str, str], Callable[..., Any]]:
    """The daemon's handlers by method and shape of the path."""
    app = create_app(ToolboxSettings("table", "/home/daytona", "/home/daytona", "python3"))
    found = {}
    for route in app.router.routes():
        info = route.resource.get_info() if route.resource is not None else {}
        found[route.method, shape(str(info.get("formatter") or info.get("path")))] = route.handler
    return found


def first_sentence(docstring: str | None) -> str:
    """What a docstring says first, as it stands in a table."""
    text = " ".join((docstring or "").split(":raises")[0].split()).replace("``", "`")
    sentence = re.split(r"(?<=[a-z)`])\. ", text)[0].rstrip(".")
    return f"{sentence}." if sentence else ""


def rows() -> list[tuple[str, str, str]]:
    """Endpoint, name and what the server does, of everything that the SDK can call."""
    table = [
        (f"{method} {path}", one.name, CONTROL_NOTES.get(one.name, ""))
        for (method, path), one in used_by_sdk().items()
    ]
    known = handlers()
    for (method, path), one in operations(TOOLBOX).items():
        handler = known.get((method, shape(path)))
        said = TOOLBOX_NOTES.get(one.name) or first_sentence(handler.__doc__ if handler else "")
        table.append((f"{method} /toolbox/SANDBOX{path}", one.name, said))
    return sorted(table, key=lambda row: row[0].split(" ", 1)[::-1])


def table_text() -> str:
    """The table in Markdown."""
    lines = ["| endpoint | operation | what the server does |", "|---|---|---|"]
    lines += [f"| `{endpoint}` | `{name}` | {said} |" for endpoint, name, said in rows()]
    return "\n".join(lines) + "\n"


def page_with(table: str) -> str:
    """The page with another table in it."""
    text = PAGE.read_text()
    return text[: text.index(BEGIN) + len(BEGIN)] + table + text[text.index(END) :]


if __name__ == "__main__":
    PAGE.write_text(page_with(table_text()))
