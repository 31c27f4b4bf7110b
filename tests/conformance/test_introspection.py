"""What the front end asks about code: is it complete, how does it go on, what is this, what was before."""

from __future__ import annotations

from typing import Any

import pytest

from .driver import Exchange
from .pair import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

# is_complete

SNIPPETS = [
    "1",
    "",
    " ",
    "\n",
    "a = 1",
    "a = (1,",
    "a = [1,\n2",
    "print('x')",
    "print('x'",
    "'unterminated",
    "'''open",
    "'''closed'''",
    "def f():",
    "def f():\n    return 1",
    "def f():\n    return 1\n",
    "def f():\n    return 1\n\n",
    "class A:",
    "class A:\n    x = 1\n    def m(self):",
    "for i in range(3):\n    print(i)",
    "for i in range(3):\n    print(i)\n",
    "if True:\n    pass\nelse:",
    "try:\n    pass",
    "try:\n    pass\nexcept X:\n    pass\n",
    "with a as b:",
    "x = = 1",
    "import = 7",
    "a b",
    "return",
    ")",
    "%matplotlib inline",
    "%%time",
    "%%time\nx",
    "%%time\nx\n",
    "%%bash\necho\n\n",
    "!ls",
    "!ls \\",
    "x = !ls",
    "print?",
    "?",
    "a \\",
    "a = 1 + \\\n",
    "@decorator",
    "@decorator\ndef f():",
    "async def f():",
    "await x",
    "[i async for i in y]",
    "lambda:",
    "# comment",
    "if x: pass",
    "\tx = 1",
    "  x = 1",
    "x = {'a': 1,\n     'b':",
    "f(a,\n  b",
    "'\\N{no such}'",
    "match x:\n    case 1:",
    "x = 5 €",
    "\x00",
]


@pytest.mark.parametrize("code", SNIPPETS)
async def test_is_complete(pair: Pair, code: str) -> None:
    """Status and indentation of a snippet."""
    await pair.same("is_complete_request", {"code": code})


# complete

COMPLETIONS = [
    "thi",
    "thing.",
    "thing.me",
    "thing.method(",
    "thing.method(fir",
    "Thing.",
    "docu",
    "documented(",
    "documented(b",
    "math.",
    "math.si",
    "import ma",
    "import json.",
    "from math import ",
    "from math import si",
    "from collections import O",
    "words['",
    "words['al",
    "words[",
    'words["gam',
    "%tim",
    "%%ti",
    "%cd a_",
    "%matplotlib ",
    "%config In",
    "%lsma",
    "!l",
    "!cat one_",
    "open('one_",
    "open('two_file.",
    "'a_dir",
    "te",
    "text.upp",
    "text.",
    "items.ap",
    "no_such_name_at_all",
    "thing.no_such",
    "pri",
    "impor",
    "whi",
    "Tru",
    "x = num",
    "print(num",
    "print(text.up",
    "a = thing.colour.",
    "[].",
    "{}.ke",
    "1.",
    "(1).",
    "'abc'.",
    "''.join(it",
    "for i in it",
    "lambda: num",
    "\\alph",
    "\\beta",
    "thing.prop.",
    "json.dum",
    "os.path.jo",
    "collections.O",
    "_",
    "__",
    "@prop",
    "get_ipython().ru",
    "In[",
    "Out",
    "grö",
    "",
    " ",
    "(",
    "# comm",
    "'in a string ",
    "def documented2(a, b): ret",
    "%run one_",
    "%load two",
    "%timeit num",
    "%%timeit\nnum",
    "a = 1\nb = thi",
    "a = 1\nthing.\nc = 3",
]


#: Magics that only the kernel under test has.
OUR_OWN = ("%daytona", "%%daytona")


def completion(exchange: Exchange) -> dict[str, Any]:
    """The content of a complete_reply with the matches as a set."""
    content = dict(exchange.content)
    content["matches"] = sorted(match for match in content["matches"] if match not in OUR_OWN)
    types = content["metadata"].get("_jupyter_types_experimental", [])
    content["metadata"] = sorted(str(one) for one in types if one["text"] not in OUR_OWN)
    return content


@pytest.mark.parametrize("code", COMPLETIONS)
async def test_complete(pair: Pair, code: str) -> None:
    """Matches, the range that they replace, and their types, with the cursor at the end."""
    one, two = await pair.request("complete_request", {"code": code, "cursor_pos": len(code)})
    assert completion(two) == completion(one)


CURSORS = [("thing.met + 1", 9), ("thi\nmath.s", 3), ("🎉; thin", 7), ("ü = thi", 7), ("a.b", 0)]


@pytest.mark.parametrize(("code", "cursor"), CURSORS)
async def test_complete_within_code(pair: Pair, code: str, cursor: int) -> None:
    """The cursor's position counts in code points, also in the middle of the code."""
    one, two = await pair.request("complete_request", {"code": code, "cursor_pos": cursor})
    assert completion(two) == completion(one)


async def test_complete_of_a_name_defined_before(pair: Pair) -> None:
    """Names of earlier cells are completed at once."""
    await pair.same_cell("a_quite_new_name = 1")
    one, two = await pair.request("complete_request", {"code": "a_quite_n", "cursor_pos": 9})
    assert completion(two) == completion(one)
    assert completion(two)["matches"] == ["a_quite_new_name"]


# inspect

INSPECTED = [
    "documented",
    "documented(",
    "documented(1, ",
    "Thing",
    "thing",
    "thing.method",
    "thing.method(1",
    "thing.prop",
    "thing.colour",
    "len",
    "math",
    "math.sin",
    "math.sin(",
    "text",
    "text.upper",
    "number",
    "words",
    "json.dumps",
    "int",
    "no_such_name",
    "thing.no_such",
    "",
    " ",
    "%timeit",
    "%%bash",
    "1 + ",
    "print(len",
    "get_ipython",
    "collections.OrderedDict",
    "x = documented",
    "os.path",
    "'text'",
]


@pytest.mark.parametrize("detail", [0, 1])
@pytest.mark.parametrize("code", INSPECTED)
async def test_inspect(pair: Pair, code: str, detail: int) -> None:
    """What Shift-Tab shows, at both levels of detail."""
    await pair.same("inspect_request", {"code": code, "cursor_pos": len(code), "detail_level": detail})


@pytest.mark.parametrize(
    ("code", "cursor"), [("documented(len(text))", 14), ("math.sin(1)", 3), ("a = Thing()", 6)]
)
async def test_inspect_within_code(pair: Pair, code: str, cursor: int) -> None:
    """The object at the cursor, not the last one."""
    await pair.same("inspect_request", {"code": code, "cursor_pos": cursor, "detail_level": 0})


async def test_inspect_without_sections(pair: Pair) -> None:
    """`omit_sections` leaves out what it names."""
    content = {
        "code": "documented",
        "cursor_pos": 4,
        "detail_level": 0,
        "omit_sections": ["file", "type_name"],
    }
    await pair.same("inspect_request", content)


# history

HISTORIES: list[dict[str, Any]] = [
    {"hist_access_type": "tail", "n": 3, "output": False, "raw": True},
    {"hist_access_type": "tail", "n": 3, "output": True, "raw": True},
    {"hist_access_type": "tail", "n": 2, "output": False, "raw": False},
    {"hist_access_type": "tail", "n": 0, "output": False, "raw": True},
    {"hist_access_type": "range", "session": 0, "start": 1, "stop": 3, "output": False, "raw": True},
    {"hist_access_type": "range", "session": 0, "start": 1, "stop": 4, "output": True, "raw": True},
    {"hist_access_type": "range", "session": 1, "start": 1, "stop": 3, "output": False, "raw": True},
    {"hist_access_type": "range", "session": 99, "start": 1, "stop": 3, "output": False, "raw": True},
    {"hist_access_type": "range", "session": 0, "start": 1, "output": False, "raw": False},
    {"hist_access_type": "search", "pattern": "6 **", "n": 5, "output": False, "raw": True},
    {"hist_access_type": "search", "pattern": "6 **", "n": 5, "output": True, "raw": True},
    {"hist_access_type": "search", "pattern": "*time*", "n": 5, "output": False, "raw": False},
    {"hist_access_type": "search", "pattern": "6 **", "n": 5, "output": False, "raw": True, "unique": True},
    {"hist_access_type": "search", "pattern": "nothing like it", "n": 5, "output": False, "raw": True},
    {"hist_access_type": "nonsense", "output": False, "raw": True},
]


async def test_history(fresh: Pair) -> None:
    """Tail, range and search, with and without output, raw and translated."""
    for code in ("6 * 7", "%time pass", "x = 5", "6 * 7", "'text'"):
        await fresh.execute(code)
    for content in HISTORIES:
        await fresh.same("history_request", content)
