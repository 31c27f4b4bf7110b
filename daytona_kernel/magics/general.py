"""``help``, ``status``, ``list``, ``config``, ``sdk``: what there is."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from .. import usage
from ..config import DaytonaSettings, Duration, find_credential
from . import registry
from .host import Host, Result, UsageError
from .registry import Parser, command
from .sdk import state_text, translated
from .words import Markup, duration, escape, now, printable, size, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox, Sandbox

    from ..service import Service

READ_BY_THE_SDK = {"api_url": "DAYTONA_API_URL", "target": "DAYTONA_TARGET"}
"""Settings whose variables are read where they are needed, and not as the setting's default."""
NEARLY_FULL = 0.9
CLEARLY_MORE = 1.2
"""By so much a machine has more memory than the sandbox may use, if it is not the sandbox's that is told."""
COLOURS = {"started": "#2da44e", "error": "#e5534b", "build_failed": "#e5534b"}


def _help_arguments(parser: Parser) -> None:
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="the command to explain")


@command("help", "General", _help_arguments, examples=("%daytona help", "%daytona help upload"))
async def show_help(host: Host, args: argparse.Namespace) -> Result:
    """List the commands, or explain one."""
    table = {name: one for name, one in registry.commands().items() if host.door in one.doors}
    cells = registry.commands(cell=True)
    if args.words:
        words = args.words
        found, _ = registry.find(words, cells if words[0] in cells and words[0] not in table else table)
        text = found.parser().format_help()
        return Result(text, text)
    rows: list[tuple[str, str, str]] = []
    lines = ["Commands of %daytona; each has --help:"]
    for group in registry.GROUPS:
        members = [one for one in table.values() if one.group == group]
        members += [one for one in cells.values() if one.group == group]
        if not members:
            continue
        lines += ["", group]
        for one in members:
            title = f"%%daytona {one.name}" if one.cell else one.name
            lines.append(f"  {title:<20} {one.summary}")
            rows.append((group, title, one.summary))
            group = ""  # noqa: PLW2901 - named once per group
    html = table_html(("", "Command", ""), rows, "%daytona COMMAND --help explains one")
    return Result([row[1] for row in rows], "\n".join(lines), html)


@command("status", "General", examples=("%daytona status", "facts = %daytona status"))
async def status(host: Host, args: argparse.Namespace) -> Result:
    """Show which sandbox the cells run in, its state and its clocks. Starts none."""
    session, manager = host.session, host.session.manager
    facts: dict[str, Any] = {"backend": "local" if session.settings.is_local else "daytona"}
    sandbox = await host.settled_sandbox()
    if sandbox is None:
        facts["state"] = "none yet"
        rows = [("backend", facts["backend"]), ("sandbox", "none yet: the first cell makes or finds one")]
        return _card("No sandbox yet", rows, facts)
    state = await manager.state()
    if state not in ("", "destroyed"):
        with translated():
            await sandbox.refresh_data()
    info = session.info if session.context_id else {}
    facts.update(
        id=sandbox.id,
        name=sandbox.name,
        state=state or "unknown",
        owned=manager.owned,
        target=sandbox.target,
        snapshot=sandbox.snapshot,
        cpu=sandbox.cpu,
        memory_gib=sandbox.memory,
        disk_gib=sandbox.disk,
        auto_stop_minutes=sandbox.auto_stop_interval,
        auto_archive_minutes=sandbox.auto_archive_interval,
        auto_delete_minutes=sandbox.auto_delete_interval,
        public=sandbox.public,
        network=_network(sandbox),
        isolation=isolation(sandbox.runner_id),
        context=session.context_id,
        python=info.get("python", ""),
        ipython=info.get("shell_version", "") if info.get("shell") == "IPython" else "",
        cwd=host.python_cwd,
    )
    if sandbox.error_reason:
        facts["error"] = sandbox.error_reason
    if facts["state"] == "started" and facts["context"]:
        facts["memory_used"], facts["memory_total"] = await _memory(host)
    return _card(f"Sandbox {sandbox.name}", _status_rows(sandbox, facts), facts)


async def _memory(host: Host) -> tuple[int, int]:
    """Bytes of memory in use, and that there are, by the control group or else the machine; 0 if unknown."""
    session = host.session
    if session.toolbox is None or not session.info.get("pid"):
        return 0, 0
    found = await usage.ask(session.toolbox, str(session.info["executable"]), int(session.info["pid"]))
    about = found.get("host_virtual_memory")
    used, total = (about.get("used"), about.get("total")) if isinstance(about, dict) else (0, 0)
    if not isinstance(used, int) or not isinstance(total, int) or not 0 < used <= total:
        return 0, 0
    return used, total


def _memory_text(facts: dict[str, Any]) -> str:
    used, total = facts.get("memory_used", 0), facts.get("memory_total", 0)
    if not total:
        return ""
    text = f"{size(used)} of {size(total)}"
    limit = facts.get("memory_gib") or 0
    if total > CLEARLY_MORE * limit * 2**30 > 0:  # its control group can not be seen from inside
        return f"{text} of the whole machine; the sandbox may use {limit:g} GiB"
    return f"{text}: NEARLY FULL, what takes more is killed" if used > NEARLY_FULL * total else text


def isolation(runner_id: str | None) -> str:
    """How a local sandbox is kept apart, as the local server tells; empty for the real service."""
    kind = (runner_id or "").partition("local-")[2]
    return {"": "", "none": "NOT ISOLATED"}.get(kind, f"isolated by {kind}")


def _status_rows(sandbox: AsyncSandbox, facts: dict[str, Any]) -> list[tuple[str, Any]]:
    where = "local sandbox on this machine" if facts["backend"] == "local" else f"Daytona, {sandbox.target}"
    if facts["isolation"]:
        where += f" ({facts['isolation']})"
    rows: list[tuple[str, Any]] = [
        ("state", coloured(facts["state"])),
        ("id", sandbox.id),
        ("where", where),
        ("snapshot", sandbox.snapshot or ""),
        ("resources", f"{sandbox.cpu} vCPU, {sandbox.memory} GiB memory, {sandbox.disk} GiB disk"),
        ("memory in use", _memory_text(facts)),
        ("auto-stop", _auto_stop(sandbox, facts["state"])),
        ("auto-archive", _after(sandbox.auto_archive_interval, "the service's longest time")),
        ("auto-delete", _after(sandbox.auto_delete_interval, "at once when stopped")),
        ("network", facts["network"]),
        ("python", f"{facts['python']}, IPython {facts['ipython']}" if facts["python"] else "not started"),
        ("context", facts["context"] or "none yet"),
        ("directory", facts["cwd"]),
        ("yours", "made for this notebook" if facts["owned"] else "attached: never deleted with the kernel"),
    ]
    if sandbox.public:
        rows.append(("previews", "PUBLIC: anybody may open them"))
    if facts.get("error"):
        rows.append(("error", facts["error"]))
        if sandbox.recoverable:
            rows.append(("hint", "%daytona recover may repair it"))
    return [row for row in rows if row[1]]


def _card(title: str, rows: list[tuple[str, Any]], facts: dict[str, Any]) -> Result:
    plain = [(name, printable(_plain(value))) for name, value in rows]
    text = f"{printable(title)}\n{table_text((), plain)}"
    html = (
        '<div style="border:1px solid #8884;border-radius:6px;padding:6px 12px;display:inline-block">'
        f"{table_html((), rows, title)}</div>"
    )
    return Result(facts, text, html)


def _plain(value: Any) -> str:
    return value.plain if isinstance(value, _Coloured) else str(value)


class _Coloured(Markup):
    """A state in colour, which knows its plain text."""

    plain = ""


def coloured(state: str) -> Markup:
    """A state in the colour that goes with it."""
    colour = COLOURS.get(state, "#bf8700")
    markup = _Coloured(f'<b style="color:{colour}">{escape(state)}</b>')
    markup.plain = state
    return markup


def _network(sandbox: AsyncSandbox) -> str:
    if sandbox.network_block_all:
        return "blocked"
    if sandbox.network_allow_list:
        return f"only {sandbox.network_allow_list}"
    return "open"


def _auto_stop(sandbox: AsyncSandbox, state: str) -> str:
    minutes = sandbox.auto_stop_interval
    if minutes is None:
        return ""
    if not minutes:
        return "never: it runs, and costs, until it is stopped"
    text = f"after {duration(minutes * 60)} without activity"
    last = sandbox.last_activity_at
    if state == "started" and last:
        try:
            moment = datetime.fromisoformat(str(last).replace("Z", "+00:00"))
            left = moment + timedelta(minutes=minutes) - now()
            text += f" (in {duration(max(0, int(left.total_seconds())))})"
        except (ValueError, TypeError):
            pass
    return text


def _after(minutes: float | None, zero: str) -> str:
    if minutes is None:
        return ""
    if minutes < 0:
        return "never"
    return zero if minutes == 0 else f"after {duration(minutes * 60)} stopped"


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only with this label")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default 100)")


def key_values(words: list[str], what: str) -> dict[str, str]:
    """``K=V`` words as a dictionary. Raises :class:`UsageError` for a word that is none."""
    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise UsageError(f"{word!r} is no {what}.", hint="Write it like name=value.")
        found[key] = value
    return found


@command("list", "General", _list_arguments, examples=("%daytona list", "%daytona list --label team=ml"))
async def list_sandboxes(host: Host, args: argparse.Namespace) -> Result:
    """List the sandboxes that these credentials reach."""
    from daytona import ListSandboxesQuery

    labels = key_values(args.label, "label")
    client = await host.client()
    found = []
    current = host.session.manager.sandbox
    with translated():
        query = ListSandboxesQuery(labels=labels or None, limit=min(max(args.limit, 1), 200))
        async for item in client.list(query):
            found.append(item)
            if len(found) >= args.limit:
                break
    value = [
        {"id": one.id, "name": one.name, "state": state_text(one.state), "labels": dict(one.labels or {})}
        for one in found
    ]
    if not value:
        return Result(value, "There are no sandboxes.")
    here = current.id if current is not None else ""
    header = ("", "name", "state", "id", "resources", "labels")
    rows = [
        (
            "→" if one.id == here else "",
            printable(one.name),
            state_text(one.state),
            one.id,
            f"{one.cpu} vCPU, {one.memory} GiB",
            ", ".join(
                f"{k}={v}"
                for k, v in (one.labels or {}).items()
                if not k.startswith(("code-toolbox", "daytona-kernel"))
            ),
        )
        for one in found
    ]
    rich = [(row[0], row[1], coloured(row[2]), *row[3:]) for row in rows]
    return Result(value, table_text(header, rows), table_html(header, rich))


@command("config", "General", examples=("%daytona config",))
async def config(host: Host, args: argparse.Namespace) -> Result:
    """Show the settings and where each comes from. Secrets are masked."""
    settings = host.session.settings
    found = {name: _setting(settings, name) for name in sorted(settings.trait_names(config=True))}
    rows = [
        (name, duration(value) if _is_time(value, settings, name) else value, origin)
        for name, (value, origin) in found.items()
    ]
    header = ("setting", "value", "from")
    values = {name: {"value": value, "from": origin} for name, (value, origin) in found.items()}
    return Result(values, table_text(header, rows), table_html(header, rows))


def _setting(settings: DaytonaSettings, name: str) -> tuple[str | int | float | bool, str]:
    """The value of a setting, fit to be shown, and where it comes from."""
    value = getattr(settings, name)
    origin = "configuration" if name in settings.config.get(type(settings).__name__, {}) else "default"
    if origin == "default" and value and value != settings.traits()[name].default_value:
        origin = "environment"
    if name == "api_key":
        found = value or find_credential("DAYTONA_API_KEY")
        origin = "configuration" if value else "environment or .env" if found else "not set"
        value = "••••" if found else ""
    elif name == "env_vars":
        value = ", ".join(f"{key}=••••" for key in value)
    elif name in READ_BY_THE_SDK and not value:
        value = os.environ.get(READ_BY_THE_SDK[name], "")
        origin = "environment" if value else origin
    return value if isinstance(value, (str, int, float, bool)) else str(value or ""), origin


def _is_time(value: object, settings: DaytonaSettings, name: str) -> TypeGuard[float]:
    """Whether this is a time in seconds."""
    return isinstance(settings.traits()[name], Duration) and isinstance(value, float)


@command("sdk", "General", doors=("ipython",), examples=("sandbox = %daytona sdk",))
async def sdk(host: Host, args: argparse.Namespace) -> Result:
    """Give the SDK's own (synchronous) sandbox object, for what no command covers."""
    sandbox = await host.sandbox()
    service = host.session.manager.service
    assert service is not None
    if args.json:
        return Result({"id": sandbox.id, "name": sandbox.name})
    found = await asyncio.to_thread(_sync_sandbox, service, sandbox.id)
    return Result(found, f"daytona.Sandbox {sandbox.name} ({sandbox.id})")


def _sync_sandbox(service: Service, sandbox_id: str) -> Sandbox:
    from daytona import Daytona, DaytonaConfig

    config = DaytonaConfig(api_key=service.api_key or None, api_url=service.api_url or None)
    return Daytona(config).get(sandbox_id)
