"""The reference page of all commands, from their parsers: ``python -m daytona_kernel.magics.reference``."""

from __future__ import annotations

import argparse
import sys

from .registry import GROUPS, Command, commands

HEAD = """# `%daytona`: reference

<!-- Made by `python -m daytona_kernel.magics.reference`; do not edit. A test compares it with them. -->

The same commands work in a notebook with the Daytona kernel and, after `%load_ext daytona_kernel`, in any
IPython. Commands act on this notebook's sandbox; they run on your machine, because of what is written at the
top level of a cell. In the kernel, code that runs in the sandbox can not use them. Relative paths of the
sandbox begin where the notebook's Python is, also after a `%cd`.

`%daytona help COMMAND` and `%daytona COMMAND --help` show the same in a cell. Every line command takes
`--json`, which prints its value, and `name = %daytona COMMAND` assigns it. Words are taken apart by the rules
of a shell (quotes, backslashes); in the kernel nothing in them is replaced, in plain IPython `{name}` and
`$name` are. Times are written like `90s`, `30m`, `1h30m`, `7d`.
"""


def page() -> str:
    """The whole page, in Markdown."""
    table = [*commands().values(), *commands(cell=True).values()]
    lines = [HEAD]
    for group in GROUPS:
        members = [one for one in table if one.group == group]
        lines.append(f"## {group}\n")
        for one in members:
            lines += _entry(one)
    return "\n".join(lines).rstrip() + "\n"


def _entry(command: Command) -> list[str]:
    sign = "%%daytona" if command.cell else "%daytona"
    parser = command.parser()
    actions = [one for one in parser._actions if one.dest not in ("help", "json")]
    usage = " ".join([f"{sign} {command.name}", *(_usage(one) for one in actions)])
    if command.argv:
        usage += " -- COMMAND [ARGUMENT ...]"
    where = " *(plain IPython only)*" if command.doors == ("ipython",) else ""
    lines = [f"### `{sign} {command.name}`{where}\n", command.description + "\n", "```text", usage, "```\n"]
    if actions:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| {_name(one)} | {_cell(one.help or '')} |" for one in actions]
        lines.append("")
    if command.examples:
        lines += ["```python", *command.examples, "```\n"]
    return lines


def _metavar(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(str(one) for one in action.choices) + "}"
    metavar = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    return str(metavar)


def _usage(action: argparse.Action) -> str:
    name = _metavar(action)
    if action.option_strings:
        text = action.option_strings[-1] + ("" if action.nargs == 0 else f" {name}")
        return text if action.required else f"[{text}]"
    return {"+": f"{name} [...]", "*": f"[{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_cell(_metavar(action))}`"
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return ", ".join(f"`{one}{_cell(value)}`" for one in action.option_strings)


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
