"""What of a cell runs where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daytona_kernel.cellsplit import Local, Remote, split


def test_a_cell_without_the_magic_is_not_looked_at() -> None:
    assert split("print('daytona')\nthis is no python") is None


@pytest.mark.parametrize(
    "cell",
    [
        "s = '''\n%daytona ls\n'''",
        "for i in x:\n    %daytona ls",
        "def f():\n    %daytona ls",
        "if x:\n    y = %daytona ls",
        "a = 1; %daytona ls",
        "get_ipython().run_line_magic('daytona', line)",
        "exec('%daytona ls')",
        "%%time\n%daytona ls",
        "%%daytonas\nx",
        "%daytonas ls",
        "x = (\n%daytona ls",
        "# %daytona ls",
        "!echo %daytona ls",
    ],
)
def test_what_is_not_at_the_top_level_stays_for_the_sandbox(cell: str) -> None:
    assert split(cell) is None


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("%daytona ls", [Local("ls")]),
        ("  %daytona ls -l  ", [Local("ls -l")]),
        ("%daytona", [Local("")]),
        ("%daytona?", [Local("help")]),
        ("x = %daytona preview 80", [Local("preview 80", None, "x")]),
        ("a.b['c'] = %daytona ls", [Local("ls", None, "a.b['c']")]),
        ("%%daytona bash --session a\nls\n", [Local("bash --session a", "ls\n")]),
        ("%%daytona", [Local("", "")]),
        ("x = 1\n%daytona ls", [Remote("x = 1\n"), Local("ls", line_number=2)]),
        ("%daytona ls\n\n1/0", [Local("ls"), Remote("#\n\n1/0\n")]),
        ("%daytona ls\n# nothing else\n", [Local("ls")]),
        ("%daytona exec -- a \\\n   b\nx", [Local("exec -- a     b"), Remote("#\n#\nx\n")]),
        ("x\n%daytona ls", [Remote("x\nNone\n"), Local("ls", line_number=2)]),
        ("await f()\n%daytona ls", [Remote("await f()\nNone\n"), Local("ls", line_number=2)]),
        ("\n\n%daytona ls", [Local("ls")]),
        ("s = '\x0c\u2028'\n%daytona ls", [Remote("s = '\x0c\u2028'\n"), Local("ls", line_number=2)]),
    ],
)
def test_cells_are_split(cell: str, parts: list[Local | Remote]) -> None:
    assert split(cell) == parts


STATEMENTS = st.sampled_from(
    [
        "x = 1",
        "print('%daytona ls')",
        "!echo hi",
        "%timeit -n1 pass",
        "y = %pwd",
        "for i in range(3):\n    %daytona ls\n    pass",
        "def f():\n    return '''\n%daytona ls\n'''",
        "text = '''a\n  b\n'''",
        "x?",
        "",
        "# a comment",
        "value = (1 +\n    2)",
        "await thing()",
    ]
)
COMMANDS = st.sampled_from(["%daytona ls", "name = %daytona status", "%daytona exec -- a \\\n  b"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.booleans(), STATEMENTS, COMMANDS), min_size=1, max_size=8))
def test_each_statement_goes_to_its_side_at_its_line(plan: list[tuple[bool, str, str]]) -> None:
    """Remote lines keep their numbers, local commands their order, and nothing is lost or doubled."""
    chunks = [command if is_command else statement for is_command, statement, command in plan]
    cell = "\n".join(["first = 1", *chunks]) + "\n"
    parts = split(cell)
    wanted = [chunk for (is_command, _, _), chunk in zip(plan, chunks, strict=True) if is_command]
    if not wanted:
        assert parts is None
        return
    assert parts is not None
    local = [part for part in parts if isinstance(part, Local)]
    assert len(local) == len(wanted)
    lines = cell.splitlines()
    for part, chunk in zip(local, wanted, strict=True):
        assert lines[part.line_number - 1] == chunk.splitlines()[0]
        assert bool(part.target) == chunk.startswith("name")
    seen = set()
    for part in parts:
        if isinstance(part, Remote):
            for number, line in enumerate(part.code.splitlines()):
                if line not in ("#", "None", ""):
                    assert lines[number] == line
                    assert number not in seen
                    seen.add(number)
    commands = {i for part in local for i in (part.line_number - 1, part.line_number)}
    for number, line in enumerate(lines):
        code = line.strip() and not line.startswith("#")
        assert number in seen or number in commands or not code


def test_a_cell_that_ipython_itself_fails_over_is_left_to_the_sandbox() -> None:
    assert split("x = %'''\n%daytonas= tona!'o ") is None
