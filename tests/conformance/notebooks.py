"""Runs notebooks under `python3` and under the kernel under test, as nbclient does, and compares each cell.

    python -m tests.conformance.notebooks [--json FILE] [--beside] [--cell-timeout S] [--limit S] PATH...

Where they differ, `python3` runs the notebook once more: a cell that differs from itself says nothing about
the other kernel, and is counted apart. The exit code is 1 if any other cell differs.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import copy
import difflib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from .driver import REFERENCE, UNDER_TEST, kernel_environment
from .normalise import FACTS_EXPRESSION, Normaliser, merge_streams
from .private import private_server

#: What is compared of a notebook besides its cells.
WIDGETS, LANGUAGE = "widget state", "language info"
#: Not copied beside a notebook, in bytes.
LARGE = 50_000_000


@dataclass
class Run:
    """What one kernel made of a notebook: the lines of each part, and why it is not whole."""

    parts: dict[str, list[str]] = field(default_factory=dict)
    trouble: str = ""
    seconds: float = 0.0


@dataclass
class Comparison:
    """A notebook under both kernels. `verdicts`: by part, `equal`, `varies`, `differs` or `not run`."""

    notebook: str
    verdicts: dict[str, str] = field(default_factory=dict)
    differences: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    trouble: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """How many parts have which verdict."""
        return Counter(self.verdicts.values())


class Runner:
    """Runs one notebook in one kernel."""

    def __init__(self, kernel: str, cell_timeout_s: float, limit_s: float) -> None:
        self.kernel = kernel
        self.cell_timeout_s = cell_timeout_s
        self.limit_s = limit_s

    async def run(self, notebook: NotebookNode, beside: Path | None) -> Run:
        """A fresh kernel in a fresh directory, with copies of the files in `beside`.

        A cell that takes too long, or a dead kernel, ends the run; what has run until then is recorded.
        """
        with tempfile.TemporaryDirectory(prefix="notebook-", ignore_cleanup_errors=True) as directory:
            home = Path(directory, "home")
            home.mkdir()
            if beside is not None:
                copy_files(beside, home)
            log = Path(directory, "log")
            try:
                with log.open("wb") as file:
                    return await self._run(copy.deepcopy(notebook), home, file)
            except RuntimeError as error:
                return Run(trouble=f"does not start: {error}: {log.read_text('utf-8', 'replace')[-500:]}")

    async def _run(self, notebook: NotebookNode, home: Path, log: Any) -> Run:
        client = NotebookClient(
            notebook,
            kernel_name=self.kernel,
            allow_errors=True,
            timeout=self.cell_timeout_s,
            resources={"metadata": {"path": str(home)}},
        )
        client.reset_execution_trackers()
        run = Run()
        environment = kernel_environment(home)
        # As in an activated environment: `!python` is the Python of the kernel. And as in a sandbox: the
        # system's programs and /tmp.
        environment["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        environment.pop("TMPDIR", None)
        async with client.async_setup_kernel(env=environment, stdout=log, stderr=log):
            normaliser = Normaliser(await ask_facts(client))
            started = time.monotonic()
            for index, cell in enumerate(notebook.cells):
                if time.monotonic() - started > self.limit_s:
                    run.trouble = f"more than {self.limit_s:g} s"
                    break
                try:
                    await client.async_execute_cell(cell, index)
                except (CellTimeoutError, DeadKernelError) as error:
                    run.trouble = f"cell {index}: {type(error).__name__}"
                    break
                if cell.cell_type == "code":
                    run.parts[f"cell {index}"] = cell_lines(cell, normaliser)
            else:
                client.set_widgets_metadata()
                normaliser.new_cell()
                widgets = json.dumps(notebook.metadata.get("widgets", {}), indent=1)
                run.parts[WIDGETS] = normaliser.text(widgets).split("\n")
            language = json.dumps(notebook.metadata.get("language_info"), indent=1, sort_keys=True)
            run.parts[LANGUAGE] = language.split("\n")
            run.seconds = time.monotonic() - started
        return run


async def ask_facts(client: NotebookClient) -> dict[str, str]:
    """The paths of a kernel that was just started, without a trace in its history."""
    assert client.kc is not None
    reply = await client.kc._async_execute_interactive(  # execute_interactive, with its type
        "", silent=True, store_history=False, user_expressions={"facts": FACTS_EXPRESSION}, timeout=120
    )
    assert "facts" in reply["content"].get("user_expressions", {}), (client.kernel_name, reply)
    value = reply["content"]["user_expressions"]["facts"]["data"]["text/plain"]
    facts: dict[str, str] = json.loads(ast.literal_eval(value))
    return facts


def cell_lines(cell: NotebookNode, normaliser: Normaliser) -> list[str]:
    """All of an executed cell that a reader can see."""
    normaliser.new_cell()
    lines = [f"execution_count = {cell.execution_count}"]
    messages = []
    for output in cell.outputs:
        content = {key: value for key, value in output.items() if key not in ("output_type", "metadata")}
        if output.get("metadata"):
            content["metadata"] = output["metadata"]
        messages.append({"msg_type": output["output_type"], "content": content})
    for message in merge_streams(messages):
        lines += normaliser.lines(message)
    return lines


def copy_files(source: Path, target: Path) -> None:
    """Copies what lies next to a notebook, but for notebooks' own leavings and very large files."""

    def unwanted(directory: str, names: list[str]) -> Iterable[str]:
        paths = [Path(directory, name) for name in names]
        return [p.name for p in paths if p.name.startswith(".") or (p.is_file() and p.stat().st_size > LARGE)]

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=unwanted)


def load(path: Path) -> tuple[NotebookNode | None, str]:
    """A notebook without its outputs, or `None` and why it is left out."""
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
        if any("source" not in cell for cell in notebook.cells):
            raise ValueError("a cell without source")
    except Exception as error:
        return None, f"can not be read: {type(error).__name__}"
    language = notebook.metadata.get("kernelspec", {}).get("language") or notebook.metadata.get(
        "language_info", {}
    ).get("name", "python")
    if "python" not in language.lower():
        return None, f"written in {language}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code:
        return None, "no code"
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    return notebook, ""


async def compare(path: Path, *, cell_timeout_s: float, limit_s: float, beside: bool) -> Comparison:
    """Runs a notebook under both kernels at the same time, and under `python3` again if they differ."""
    comparison = Comparison(str(path))
    notebook, comparison.left_out = load(path)
    if notebook is None:
        return comparison
    files = path.parent if beside else None
    reference = Runner(REFERENCE, cell_timeout_s, limit_s)
    # The other kernel may be slower; that is looked at by its seconds, and not a difference.
    tested = Runner(UNDER_TEST, 3 * cell_timeout_s, 3 * limit_s)
    first, other = await asyncio.gather(reference.run(notebook, files), tested.run(notebook, files))
    if first.trouble:
        comparison.left_out = f"{REFERENCE}: {first.trouble}"
        return comparison
    again = first if first.parts == other.parts else await reference.run(notebook, files)
    comparison.seconds = {REFERENCE: first.seconds, UNDER_TEST: other.seconds}
    comparison.trouble = other.trouble
    comparison.sources = {f"cell {i}": cell.source for i, cell in enumerate(notebook.cells)}
    for part, expected in first.parts.items():
        judge(comparison, part, (expected, again.parts.get(part), other.parts.get(part)))
    return comparison


def judge(
    comparison: Comparison, part: str, three: tuple[list[str], list[str] | None, list[str] | None]
) -> None:
    """Gives a part its verdict, and keeps the difference if there is one."""
    expected, again, actual = three
    if actual in (expected, again):
        comparison.verdicts[part] = "equal"
        return
    if actual is None:
        comparison.verdicts[part] = "not run"
        return
    comparison.verdicts[part] = "varies" if again != expected else "differs"
    names = (REFERENCE, UNDER_TEST)
    comparison.differences[part] = list(difflib.unified_diff(expected, actual, *names, n=2, lineterm=""))


def report(comparison: Comparison, verbose: bool) -> None:
    """One line for the notebook, and its differences."""
    if comparison.left_out:
        print(f"{comparison.notebook}: left out, {comparison.left_out}", flush=True)
        return
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(comparison.counts.items()))
    times = " ".join(f"{name} {seconds:.1f} s" for name, seconds in comparison.seconds.items())
    trouble = f" TROUBLE {comparison.trouble}" if comparison.trouble else ""
    print(f"{comparison.notebook}: {counts} ({times}){trouble}", flush=True)
    for part, diff in comparison.differences.items():
        if comparison.verdicts[part] == "differs" or verbose:
            print(f"--- {part}, {comparison.verdicts[part]}:\n{comparison.sources.get(part, '')[:1500]}")
            print("\n".join(line[:400] for line in diff[:60]), flush=True)


def summary(comparisons: Sequence[Comparison]) -> str:
    """The totals."""
    ran = [one for one in comparisons if not one.left_out]
    total: Counter[str] = sum((one.counts for one in ran), Counter())
    judged = total["equal"] + total["differs"] + total["not run"]
    share = 100 * total["equal"] / judged if judged else 100.0
    words = ", ".join(f"{total[verdict]} {verdict}" for verdict in ("equal", "differs", "not run", "varies"))
    return f"{len(ran)} notebooks ({len(comparisons) - len(ran)} left out): {words}; {share:.2f} % equal"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.notebooks", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="notebooks, or directories to search for them")
    parser.add_argument("--json", type=Path, help="write everything there, after each notebook")
    parser.add_argument(
        "--beside", action="store_true", help="copy the files beside a notebook to both kernels"
    )
    parser.add_argument("--cell-timeout", type=float, default=60.0, help="in seconds, under python3")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="of a whole notebook, in seconds, under python3"
    )
    parser.add_argument("--verbose", action="store_true", help="show cells that differ under python3 alone")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares all notebooks; the exit code."""
    options = parse_arguments(arguments)
    paths: list[Path] = []
    for path in options.paths:
        paths += sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
    comparisons: list[Comparison] = []
    with private_server():
        for path in paths:
            limits = {"cell_timeout_s": options.cell_timeout, "limit_s": options.limit}
            comparison = asyncio.run(compare(path, beside=options.beside, **limits))
            comparisons.append(comparison)
            report(comparison, options.verbose)
            if options.json:
                options.json.write_text(json.dumps([asdict(one) for one in comparisons], indent=1))
    print(summary(comparisons))
    return int(any(one.counts["differs"] or one.counts["not run"] for one in comparisons))


if __name__ == "__main__":
    sys.exit(main())
