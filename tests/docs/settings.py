"""Writes ``docs/settings.md`` from the traits: ``python -m tests.docs.settings``."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch

from daytona_kernel import config
from daytona_kernel.config import DaytonaSettings, Duration
from daytona_kernel.magics.words import duration

from .pages import ROOT

PAGE = ROOT / "docs" / "settings.md"

HEAD = """# Settings

<!-- Made by `python -m tests.docs.settings` from the traits of DaytonaSettings; do not edit. -->

Everything has a default, and most people need no setting at all. There are four places for one; the first
that has it counts:

1. the command line of a kernel: `--DaytonaSettings.auto_stop=2h` in the `argv` of a kernelspec,
2. the file `daytona_kernel_config.py` in your IPython profile (`~/.ipython/profile_default/`), with lines
   such as `c.DaytonaSettings.auto_stop = "2h"`,
3. an environment variable, set before Jupyter starts, or for one kernel with
   `jupyter daytona install --name NAME --env VARIABLE=VALUE`,
4. the default.

`%daytona config` shows in a notebook which value each setting has, and where it comes from. Secrets are
masked.

Times are written like `45s`, `30m`, `1h30m` or `7d`. A switch in the environment is `1` or `0`.
"""

LOCAL = """
## The local server

It reads these when it starts, so stop a running one first (`jupyter daytona local stop`).

| variable | default | what it does |
|---|---|---|
| `DAYTONA_LOCAL_DIR` | user's data and runtime directories | one directory for all that the server keeps |
| `DAYTONA_LOCAL_ISOLATION` | `auto` | `bubblewrap`, `none`, or `auto`: bubblewrap where it works |
| `DAYTONA_LOCAL_NETWORK` | `auto` | `own` for each sandbox (needs slirp4netns), `shared`, or `auto` |
| `DAYTONA_LOCAL_PYTHON` | the server's own | interpreter that sandboxes are made from |
| `DAYTONA_LOCAL_IDLE_MINUTES` | 15 | minutes without a running sandbox until the server leaves; 0 = never |
| `DAYTONA_LOCAL_POOL` | 2 | sandboxes that are kept ready |
| `DAYTONA_LOCAL_RATES` | 30,000 calls, 600 new sandboxes ... | requests a minute: `NAME=NUMBER,…` with \
`authenticated`, `failed-auth`, `sandbox-create`, `sandbox-lifecycle`, `sandbox-list`; 0 = no limit |
| `DAYTONA_LOCAL_PREVIEW_WARNING` | `0` | `1`: browsers see a page of warning first, as in the service |
| `DAYTONA_LOCAL_QUIRKS` | `all` | `none`: without the weaknesses of the service that only tests want |

## For finding faults

| variable | what it does |
|---|---|
| `DAYTONA_KERNEL_LOG` | level of the kernel's log: `DEBUG`, `INFO`, `WARNING` or `ERROR` |
"""


def variables() -> dict[str, list[str]]:
    """The environment variables that each setting's default is read from."""
    found: dict[str, list[str]] = {}
    for name, trait in sorted(DaytonaSettings.class_traits(config=True).items()):
        asked: list[str] = []

        def record(variable: str, fallback: str = "", asked: list[str] = asked) -> str:
            asked.append(variable)
            return fallback

        with patch.object(config, "_env", record):
            getattr(DaytonaSettings(), name)
        named = re.findall(r"DAYTONA_[A-Z_]+[A-Z]", trait.help)
        found[name] = [*dict.fromkeys(asked)] or named[:1]
    return found


def default_text(name: str, trait: Any) -> str:
    """A setting's default, where no variable is set."""
    with patch.object(config, "_env", lambda variable, fallback="": fallback):
        value = getattr(DaytonaSettings(), name)
    if value is None or value in ("", {}, []):
        return "none"
    if isinstance(trait, Duration):
        return duration(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def page() -> str:
    """The text of the page."""
    lines = [HEAD]
    asked = variables()
    for name, trait in sorted(DaytonaSettings.class_traits(config=True).items()):
        words = ", ".join(f"`{variable}`" for variable in asked[name]) or "none"
        help = re.sub(r" *Environment: DAYTONA_[A-Z_]+\.$", "", trait.help).replace("*", "\\*")
        lines += [f"### `{name}`", "", help, ""]
        lines += [f"Variable: {words}. Default: {default_text(name, trait)}.", ""]
    return "\n".join(lines).rstrip() + "\n" + LOCAL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
