"""The arrows between the parts: who may import whom.

Read from the source with ``ast``, so that an import inside a function counts too. Imports under
``TYPE_CHECKING`` do not count: they are words for the reader and the type checker, and nothing runs.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "daytona_kernel"

# What runs inside the sandbox may use what is sent there with it: IPython and what IPython itself needs.
AGENT_MAY_USE = {"IPython", "traitlets", "comm", "matplotlib_inline", "matplotlib", "ipykernel"}
NETWORK = {"websockets", "aiohttp", "daytona", "requests", "httpx", "socket", "http", "urllib", "socketio"}
# The one file that stands between the local server and the rest, besides the command line.
MAY_START_LOCAL = {"cli", "service"}

# Above -> below: what is below must not know what is above it.
LADDER = (
    *(
        {"errors"},
        {"config", "toolbox", "controlplane", "service"},
        {"execution"},
        {"link"},
        {"context"},
        {"workplace"},
        {"session"},
    ),
    *({"magics"}, {"sink"}, {"kernel"}, {"extension"}, {"runner"}, {"cli"}),
)
ABOVE = {name: set().union(*LADDER[step + 1 :]) for step, names in enumerate(LADDER) for name in names}
ABOVE["sandbox"] = {"link", *ABOVE["link"]}
ABOVE["transfer"] = {"link", *ABOVE["link"]}
for step in LADDER[: LADDER.index({"workplace"})]:
    for name in step:
        ABOVE[name] |= {"sandbox", "transfer"}
# Three doors to a session, none of which needs another.
ABOVE["extension"] |= {"kernel", "sink"}
ABOVE["runner"] |= {"kernel", "sink", "extension", "session", "link", "sandbox"}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and file of each module of the package."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def is_type_checking(node: ast.AST) -> bool:
    """Tell whether *node* is ``if TYPE_CHECKING:`` (however the name was imported)."""
    if not isinstance(node, ast.If):
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", "")
    return name == "TYPE_CHECKING"


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports under *node* that can happen at run time."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif is_type_checking(child):
            assert isinstance(child, ast.If)
            for statement in child.orelse:
                yield from import_nodes(ast.Module([statement], []))
        else:
            yield from import_nodes(child)


@cache
def imports(module: str) -> frozenset[str]:
    """Return the absolute dotted names that *module* imports; ``from a import b`` gives ``a`` and ``a.b``."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in import_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*anchor, base] if base else anchor)
        names.add(base)
        names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(names)


def own(module: str) -> set[str]:
    """Return the modules of the package that *module* imports."""
    return {name for name in imports(module) if name in MODULES and name != PACKAGE}


def foreign(module: str) -> set[str]:
    """Return the top-level packages outside the standard library and this package that *module* imports."""
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - set(sys.stdlib_module_names) - {PACKAGE, "__main__"}


def part(module: str) -> str:
    """Return the part of the package that *module* belongs to: its file or folder directly under it."""
    return module.split(".")[1] if "." in module else ""


def of_part(name: str) -> list[str]:
    return [module for module in MODULES if part(module) == name]


def test_every_import_of_the_package_is_of_a_module_that_exists() -> None:
    """Guards the other tests too: a name that they fail to resolve would slip through them."""
    for module in MODULES:
        for name in imports(module):
            if name.startswith(PACKAGE + "."):
                assert name in MODULES or name.rpartition(".")[0] in MODULES, f"{module} imports {name}"


def test_the_wire_is_pure_python_alone() -> None:
    assert not foreign("daytona_kernel.wire")
    assert not own("daytona_kernel.wire")


def test_values_run_in_any_sandbox() -> None:
    """Their text is sent there as it is."""
    assert foreign("daytona_kernel.values") == {"numpy", "pandas"}
    assert not own("daytona_kernel.values")


@pytest.mark.parametrize("module", of_part("agent"))
def test_the_agent_uses_only_what_is_sent_with_it(module: str) -> None:
    assert foreign(module) <= AGENT_MAY_USE
    assert {part(name) for name in own(module)} <= {"agent", "wire"}


@pytest.mark.parametrize("module", of_part("local"))
def test_the_local_server_stands_for_somebody_elses(module: str) -> None:
    assert {part(name) for name in own(module)} <= {"local", "_version"}
    assert not foreign(module) & {"daytona", "ipykernel", "jupyter_client", "IPython"}


@pytest.mark.parametrize("module", of_part("kernel") + of_part("sink"))
def test_the_kernel_has_no_network_code(module: str) -> None:
    tops = {name.partition(".")[0] for name in imports(module)}
    assert not tops & NETWORK


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) not in {"local", *MAY_START_LOCAL}])
def test_nobody_else_starts_the_local_server(module: str) -> None:
    assert "local" not in {part(name) for name in own(module)}


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in ABOVE])
def test_what_is_below_does_not_know_what_is_above(module: str) -> None:
    assert not {part(name) for name in own(module)} & ABOVE[part(module)]


def test_no_two_parts_need_each_other() -> None:
    """Between parts (files and folders directly under the package) imports make no circle."""
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        needs.setdefault(part(module), set()).update(part(name) for name in own(module))
    for name, parts in needs.items():
        parts -= {name, ""}
    needs.pop("", None)
    while free := [name for name, parts in needs.items() if not parts & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, f"a circle within {needs}"


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not foreign(PACKAGE)


DISTRIBUTIONS = {
    "IPython": "ipython",
    "dotenv": "python-dotenv",
    "jupyter_client": "jupyter-client",
    "jupyter_core": "jupyter-core",
    "zmq": "pyzmq",
}
"""Names of distributions, where they are not the module's."""
NOT_DECLARED = {
    "comm": "the sandbox's IPython brings it, and so does ipykernel",
    "matplotlib": "the sandbox's own, if it has one",
    "multidict": "aiohttp's own type of headers",
    "numpy": "the sandbox's own, if it has one",
    "pandas": "the sandbox's own, if it has one",
    "yarl": "aiohttp's own type of addresses",
}


def test_what_is_imported_is_declared_and_nothing_else_is() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    declared = set(re.findall(r'"([\w-]+)', block[1]))
    imported = set().union(*map(foreign, MODULES))
    assert {DISTRIBUTIONS.get(name, name) for name in imported - set(NOT_DECLARED)} == declared
    assert set(NOT_DECLARED) <= imported
