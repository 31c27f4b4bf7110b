"""`__main__` around a namespace that exists already."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from daytona_kernel.agent.world import MainModule


@pytest.fixture
def namespace() -> dict[str, Any]:
    return {"__name__": "__main__", "x": 1}


@pytest.fixture
def main(namespace: dict[str, Any]) -> Iterator[MainModule]:
    before = sys.modules["__main__"]
    sys.modules["__main__"] = made = MainModule(namespace)
    yield made
    sys.modules["__main__"] = before


def test_reading_writing_and_deleting_pass_through_to_the_namespace(
    main: MainModule, namespace: dict[str, Any]
) -> None:
    assert main.x == 1
    main.y = 2
    assert namespace["y"] == 2
    del main.x
    assert "x" not in namespace
    namespace["z"] = 3
    assert main.z == 3
    assert main.__dict__ is namespace
    assert vars(main) is namespace


def test_what_is_not_there_is_an_attribute_error(main: MainModule) -> None:
    with pytest.raises(AttributeError):
        _ = main.nothing
    with pytest.raises(AttributeError):
        del main.nothing
    assert not hasattr(main, "nothing")


def test_the_directory_lists_the_namespace(main: MainModule) -> None:
    assert "x" in dir(main)
    assert dir(main) == sorted(dir(main))


def test_it_has_what_a_module_has(main: MainModule, namespace: dict[str, Any]) -> None:
    assert main.__name__ == "__main__"
    assert isinstance(main, type(sys))
    assert {"__doc__", "__loader__", "__spec__", "__package__"} <= namespace.keys()


def test_classes_and_functions_of_a_cell_can_be_pickled(main: MainModule, namespace: dict[str, Any]) -> None:
    exec("class Thing:\n    n = 3\ndef double(x): return 2 * x", namespace)
    assert pickle.loads(pickle.dumps(namespace["Thing"]())).n == 3
    assert pickle.loads(pickle.dumps(namespace["double"])) is namespace["double"]


def test_tables_of_types_have_it_among_the_modules(main: MainModule) -> None:
    """dill saves a session by such a table, and does not look at what a type inherits from."""
    table = {types.ModuleType: "a module", dict: "a dict"}
    assert table[type(main)] == "a module"
    assert len({type(main), MainModule}) == 1


def test_a_cleared_namespace_does_not_break_it(main: MainModule, namespace: dict[str, Any]) -> None:
    namespace.clear()
    assert dir(main) == []
    main.again = 1
    assert namespace == {"again": 1}
