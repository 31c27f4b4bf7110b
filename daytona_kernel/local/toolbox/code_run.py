"""Programs without state (``/process/code-run``), with the charts that a Python program shows."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from aiohttp import web

from .children import CHILDREN
from .errors import ToolboxError
from .fields import body_fields
from .process import timeout_field
from .settings import SETTINGS, SPAWN_ENV
from .shell import find_shell, run

MARKER = "dtn_artifact_k39fd2:"
_IMPORTS_MATPLOTLIB = re.compile(r"^\s*(?:from\s+matplotlib\b|import\s.*\bmatplotlib\b)", re.MULTILINE)

_TEXTS = ("type", "title", "png", "x_label", "y_label", "x_scale", "y_scale", "label", "value", "group")
_NUMBERS = ("angle", "radius", "min", "first_quartile", "median", "third_quartile", "max")
_NUMBER_LISTS = ("x_ticks", "y_ticks", "outliers")
_TEXT_LISTS = ("x_tick_labels", "y_tick_labels")


@functools.cache
def runner_source() -> str:
    """Give the text of the program that runs programs with charts."""
    return (files(__package__) / "chart_runner.py").read_text("utf-8")


def program(language: str, code: str, env: Mapping[str, str], python: str) -> str:
    """Choose the shell command that runs ``code`` from its standard input.

    :raises ToolboxError: 400 for a language that is not known.
    """
    if language == "python":
        interpreter = "python3" if shutil.which("python3", path=env.get("PATH")) else shlex.quote(python)
        if _IMPORTS_MATPLOTLIB.search(code):
            return f"{interpreter} -u -c {shlex.quote(runner_source())}"
        return f"{interpreter} -u -"
    if language == "javascript":
        return "node -"
    if language == "typescript":
        return "ts-node" if shutil.which("ts-node", path=env.get("PATH")) else "npx ts-node"
    raise ToolboxError(400, f"unsupported language: {language!r} (python, javascript or typescript)")


def take_charts(output: str) -> tuple[str, list[dict[str, Any]]]:
    """Take the lines that describe charts out of ``output``; one that makes no sense goes with its line."""
    if MARKER not in output:
        return output, []
    rest: list[str] = []
    charts: list[dict[str, Any]] = []
    for line in output.splitlines(keepends=True):
        before, marker, description = line.partition(MARKER)
        rest.append(before)
        if not marker:
            continue
        try:
            artifact = json.loads(description)
        except ValueError:
            continue
        if isinstance(artifact, dict) and artifact.get("type") == "chart" and is_chart(artifact.get("value")):
            charts.append(artifact["value"])
    return "".join(rest), charts


def is_chart(value: Any) -> bool:
    """Tell whether a description fits the types of the API, by which clients parse it."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name, ""), str) for name in _TEXTS)
        and all(_is_number(value.get(name, 0)) for name in _NUMBERS)
        and all(_is_list(value.get(name, []), _is_number) for name in _NUMBER_LISTS)
        and all(_is_list(value.get(name, []), lambda item: isinstance(item, str)) for name in _TEXT_LISTS)
        and _is_list(value.get("points", []), lambda point: _is_list(point, _is_number))
        and _is_list(value.get("elements", []), is_chart)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: Any, fits: Any) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)


async def code_run(request: web.Request) -> web.Response:
    """Run a program to its end and answer with its exit code, its output and its charts."""
    fields = await body_fields(request)
    code = fields.text("code")
    env = request.app[SPAWN_ENV] | fields.environment("envs")
    command = program(fields.text("language"), code, env, request.app[SETTINGS].python)
    # Unquoted, as the real daemon joins them (v0.190.0): the shell sees them.
    command = " ".join([command, *fields.texts("argv")])
    outcome = await run(
        request.app[CHILDREN],
        [find_shell(env), "-c", command],
        env=env,
        cwd=request.app[SETTINGS].work_dir,
        stdin=code.encode("utf-8", "replace"),
        timeout_seconds=timeout_field(fields),
    )
    output, charts = take_charts(outcome.text)
    answer: dict[str, Any] = {"exitCode": outcome.exit_code, "result": output}
    if charts:
        answer["artifacts"] = {"charts": charts}
    return web.json_response(answer)


def setup(app: web.Application) -> None:
    """Add the route."""
    app.router.add_post("/process/code-run", code_run)
