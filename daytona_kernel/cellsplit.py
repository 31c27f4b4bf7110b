"""PURE: which parts of a cell run in the sandbox, and which ``%daytona`` lines run here, in order.

IPython's own transformer says what is a magic, so that a ``%daytona`` in a string is text. Only statements
at the top level of the cell are split off: what is in a loop or a function can not be run from here, and
the sandbox has a magic of that name that says so.

Lines of tracebacks go on counting from the cell's top: remote parts start with comment lines in place of what
came before (blank lines would not do, IPython drops those at a cell's top).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

MAGIC = "daytona"
MARK = "%" + MAGIC
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""A line as Python counts them; ``str.splitlines`` ends lines in more places (form feeds, U+2028)."""
FILLER = "#\n"
"""One line that is code and does nothing."""


@dataclass(frozen=True)
class Remote:
    """Lines for the sandbox. ``code`` has as many lines before the first as the cell had."""

    code: str


@dataclass(frozen=True)
class Local:
    """A ``%daytona`` line, or with ``body`` a ``%%daytona`` cell, to be run on this side.

    ``target``: what ``target = %daytona ...`` assigns to, as source; empty if it is no assignment.
    ``line_number`` counts from 1.
    """

    line: str
    body: str | None = None
    target: str = ""
    line_number: int = 1


Part = Remote | Local


def split(cell: str) -> list[Part] | None:
    """The parts of a cell in order, or ``None`` if nothing in it is for this side.

    ``None``, too, for a cell with a syntax error: nothing of such a cell runs, and the sandbox's own Python
    says what is wrong with it.
    """
    if MARK not in cell:
        return None
    lines = _cleaned_lines(cell)
    if lines and lines[0].startswith("%%"):
        return _cell_magic(lines)
    tree = _parsed(lines)
    if tree is None:
        return None
    commands = _commands(tree)
    if not commands:
        return None
    return _parts(lines, tree, commands)


def _cell_magic(lines: list[str]) -> list[Part] | None:
    name, _, rest = lines[0][2:].rstrip("\n").partition(" ")
    if name != MAGIC:
        return None
    return [Local(rest.strip(), "".join(lines[1:]))]


def _cleaned_lines(cell: str) -> list[str]:
    """The cell's lines as IPython runs them: no prompts, common indentation or blank lines at the top."""
    from IPython.core.inputtransformer2 import (
        classic_prompt,
        ipython_prompt,
        leading_empty_lines,
        leading_indent,
    )

    if not cell.endswith("\n"):
        cell += "\n"
    lines = _LINE.findall(cell)
    for clean in (leading_empty_lines, leading_indent, classic_prompt, ipython_prompt):
        lines = clean(lines)
    return _LINE.findall("".join(lines))


def _parsed(lines: list[str]) -> ast.Module | None:
    """The cell with each magic turned into a call, lines where they were; ``None`` for what is no Python.

    IPython fails over some cells with whatever error it likes (found by fuzzing: ``x = %'''`` with a line
    after it gives IndexError). It does the same in the sandbox, and runs nothing of them there.
    """
    try:
        source = "".join(_transformed(lines))
    except Exception:
        return None
    try:
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, "<cell>", "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.Module) else None


def _transformed(lines: list[str]) -> list[str]:
    """IPython's token transformations, with blank lines where a magic took several lines."""
    from IPython.core.inputtransformer2 import TransformerManager, make_tokens_by_line

    transformers = TransformerManager().token_transformers
    for _ in range(len(lines) + 1):
        tokens = make_tokens_by_line(lines)
        found = [item for kind in transformers if (item := kind.find(tokens)) is not None]
        if not found:
            return lines
        first = min(found, key=lambda item: item.sortby())
        new_lines = first.transform(lines)
        start, missing = first.start_line, len(lines) - len(new_lines)
        lines = [*new_lines[: start + 1], *["\n"] * missing, *new_lines[start + 1 :]]
    return lines


def _commands(tree: ast.Module) -> dict[int, Local]:
    """The statements of the module that are for this side, by their index."""
    found = {}
    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.Expr):
            target, value = "", statement.value
        elif isinstance(statement, ast.Assign):
            target, value = " = ".join(ast.unparse(one) for one in statement.targets), statement.value
        else:
            continue
        line = _magic_line(value)
        if line is not None and _alone(tree.body, index):
            found[index] = Local(line, None, target, statement.lineno)
    return found


def _magic_line(node: ast.expr) -> str | None:
    """The line of ``get_ipython().run_line_magic('daytona', line)``, the form IPython gives to the magic."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    owner = node.func.value
    if not (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name)):
        return None
    words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if (owner.func.id, node.func.attr, len(words), len(node.args)) != ("get_ipython", "run_line_magic", 2, 2):
        return None
    if words[0] == MAGIC:
        return words[1].strip()
    return "help" if words[0] in ("pinfo", "pinfo2") and words[1] in (MARK, "%" + MARK) else None


def _alone(body: list[ast.stmt], index: int) -> bool:
    """Whether no other statement shares a line with this one."""
    statement = body[index]
    before = index == 0 or (body[index - 1].end_lineno or 0) < statement.lineno
    after = index + 1 == len(body) or body[index + 1].lineno > (statement.end_lineno or statement.lineno)
    return before and after


def _parts(lines: list[str], tree: ast.Module, commands: dict[int, Local]) -> list[Part]:
    parts: list[Part] = []
    taken = 0
    indexes = sorted(commands)
    for index in indexes:
        statement = tree.body[index]
        _add_remote(parts, lines, taken, statement.lineno - 1, tree)
        parts.append(commands[index])
        taken = _end_of_command(lines, statement, tree.body, index)
    _add_remote(parts, lines, taken, len(lines), tree, last=True)
    return parts


def _end_of_command(lines: list[str], statement: ast.stmt, body: list[ast.stmt], index: int) -> int:
    """The line after a command; one that was continued with backslashes ends where IPython ends it."""
    from IPython.core.inputtransformer2 import find_end_of_continued_line

    end = int(find_end_of_continued_line(lines, statement.lineno - 1)) + 1
    return min(end, body[index + 1].lineno - 1) if index + 1 < len(body) else end


def _add_remote(
    parts: list[Part], lines: list[str], start: int, end: int, tree: ast.Module, *, last: bool = False
) -> None:
    """Add lines ``start`` to ``end`` (0-based, exclusive) if there is a statement in them."""
    inside = [node for node in tree.body if start < node.lineno <= end]
    if not inside:
        return
    code = FILLER * start + "".join(lines[start:end])
    if not last and isinstance(inside[-1], ast.Expr):
        # Only the last expression of a cell is shown, and this one is not it.
        code += "None\n"
    parts.append(Remote(code))
