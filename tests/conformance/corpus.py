"""The corpus: files of small cells. `corpus/*.ipy`, one family per file.

# What this family is about.
# requires: pandas                  (skipped where the module is missing)

# %% a name, unique in the file
#: stdin yes                        (answers for input_request, in order; <none> leaves one unanswered)
#: interrupt-on ready               (interrupt when this text is in the output)
#: streams apart                    (see normalise.py; say why in the cell)
#: setup                            (runs on both sides and must succeed there, is not compared)
print("the rest is the cell, without the blank lines around it")
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FLAGS = {"setup", "streams apart", "late output", "no stdin", "silent", "no history", "any order"}


@dataclass
class Cell:
    """One cell and how to run it."""

    family: str
    name: str
    code: str
    answers: list[str] = field(default_factory=list)
    interrupt_on: str | None = None
    flags: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Unique in the corpus."""
        return f"{self.family}/{self.name}"


@dataclass
class Family:
    """One file: cells that run in order in one kernel."""

    name: str
    cells: list[Cell]
    requires: list[str]

    def missing(self) -> list[str]:
        """Modules that the cells need and that are not installed here."""
        return [module for module in self.requires if importlib.util.find_spec(module) is None]


def load_families() -> list[Family]:
    """The whole corpus, in the order of the file names."""
    return [parse_family(path.stem, path.read_text("utf-8")) for path in sorted(CORPUS.glob("*.ipy"))]


def parse_family(name: str, text: str) -> Family:
    """Parses one file. ValueError on a cell name that is used twice, or on an unknown directive."""
    head, *blocks = ("\n" + text).split("\n# %% ")
    requires = [
        module.strip()
        for line in head.splitlines()
        if line.startswith("# requires:")
        for module in line.partition(":")[2].split(",")
    ]
    cells = [_parse_cell(name, block) for block in blocks]
    names = [cell.name for cell in cells]
    doubled = {one for one in names if names.count(one) > 1}
    if doubled:
        raise ValueError(f"{name}: cell names used twice: {sorted(doubled)}")
    return Family(name, cells, requires)


def _parse_cell(family: str, block: str) -> Cell:
    title, _, body = block.partition("\n")
    cell = Cell(family, title.strip(), "")
    lines = body.split("\n")
    while lines and lines[0].startswith("#: "):
        directive = lines.pop(0)[3:].rstrip("\n")
        word, _, value = directive.partition(" ")
        if directive in FLAGS:
            cell.flags.add(directive)
        elif word == "stdin":
            cell.answers.append(value)
        elif word == "interrupt-on" and value:
            cell.interrupt_on = value
        else:
            raise ValueError(f"{family}/{cell.name}: unknown directive {directive!r}")
    cell.code = "\n".join(lines).strip("\n")
    return cell
