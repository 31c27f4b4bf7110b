"""Values as bytes and back: the same value, and nothing run that the bytes have chosen."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import inspect
import json
import pathlib
import pickle
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import values

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
MOMENT = datetime.datetime(2026, 10, 25, 2, 30, 0, 123456, fold=1)


def back(value: object, **options: Any) -> Any:
    return values.load(b"".join(values.dump(value)), **options)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
NESTED = st.recursive(
    PLAIN
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.datetimes()
    | st.timedeltas()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(NESTED)
def test_what_is_nested_comes_back_equal(value: Any) -> None:
    found = back(value)
    assert found == value
    assert repr(found) == repr(value)  # types, too: 1 == 1.0 == True


@pytest.mark.parametrize(
    "value",
    [
        {1, "a"},
        frozenset({2}),
        bytearray(b"\0\xff"),
        range(3, 9, 2),
        collections.deque([1, 2], maxlen=3),
        collections.OrderedDict(b=1, a=2),
        collections.Counter("abca"),
        {"not": [float("inf"), -0.0]},
        {"int": 1},
        {"pickle": 0},
        "\udcff lone",
        datetime.date(2026, 1, 2),
        datetime.time(1, 2, fold=1),
        MOMENT.replace(tzinfo=BERLIN),
        MOMENT.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-3.5))),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
        pathlib.Path("/a/b"),
        np.float32(1.5),
        np.datetime64("2026-01-02"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_come_back_with_their_types(value: Any) -> None:
    found = back([value])[0]
    assert type(found) is type(value)
    assert found == value
    assert repr(found) == repr(value)


def test_a_zone_keeps_which_of_two_hours_it_is() -> None:
    assert back(MOMENT.replace(tzinfo=BERLIN)).utcoffset() == datetime.timedelta(hours=1)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="int16").reshape(2, 3),
        np.asfortranarray(np.ones((2, 3))),
        np.array(3),
        np.zeros((0, 4)),
        np.array(["a", "bc"]),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([[1, "a"], [None, {"b": 2}]], dtype=object),
        np.array(["NaT", "2026-01-02"], dtype="M8[s]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_keep_shape_and_type(array: Any) -> None:
    found = back({"array": array})["array"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


DAYS = pd.date_range("2026-03-28", periods=3, freq="D", tz="Europe/Berlin")
PAUSES = pd.to_timedelta([1, 2, None], unit="s")
PAIRS = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", None])
FRAMES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan]}),
    "labels that are no texts": pd.DataFrame(np.ones((2, 2)), columns=[0, "x"]),
    "the same label twice": pd.DataFrame([[1, "a"]], columns=["x", "x"]),
    "the same row twice": pd.DataFrame({"a": [1, 2]}, index=["r", "r"]),
    "texts": pd.DataFrame({"a": ["x", None, "é"]}),
    "objects": pd.DataFrame({"a": [1, "x", (2, 3), None]}, dtype=object),
    "texts as objects": pd.DataFrame({"a": np.array(["x", "y"], dtype=object)}, dtype=object),
    "nothing": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": np.array([], dtype="i4")}),
    "no columns": pd.DataFrame(index=[1, 2, 3]),
    "times": pd.DataFrame({"t": DAYS, "d": DAYS.tz_localize(None), "s": PAUSES}, index=DAYS),
    "categories": pd.DataFrame({"c": pd.Categorical(["x", None, "y"], ["y", "x"], ordered=True)}),
    "own arrays": pd.DataFrame({
        "i": pd.array([1, None, 3], "Int64"),
        "b": pd.array([True, None, False], "boolean"),
        "s": pd.array(["x", None, "y"], "string"),
        "f": pd.array([1.5, None, 2], "Float32"),
    }),
    "levels": pd.DataFrame({("a", 1): [1, 2], ("a", 2): [3, 4]}, index=PAIRS),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_data_frames_come_back_as_they_were(name: str) -> None:
    pd.testing.assert_frame_equal(back(FRAMES[name]), FRAMES[name], check_freq=True, check_index_type="exact")


@pytest.mark.parametrize(
    "series",
    [pd.Series([1, 2], name="n"), pd.Series(DAYS, name=("a", 1)), pd.Series([], dtype="str")],
    ids=["numbers", "times", "nothing"],
)
def test_series_and_indexes_come_back_as_they_were(series: Any) -> None:
    pd.testing.assert_series_equal(back(series), series)
    index = pd.Index(series, name="i")
    pd.testing.assert_index_equal(back(index), index, exact=True)


def test_a_missing_text_stays_missing_in_an_older_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas 2, which Daytona's own snapshots have, has no texts of a kind of their own."""
    series = pd.Series(["x", None], index=["a", "b"], dtype="str" if pd.__version__ >= "3" else object)
    data = b"".join(values.dump(series))
    monkeypatch.setattr(values, "_has_texts", lambda: False)
    found = values.load(data)
    assert found.dtype == object
    assert found.index.dtype == object
    assert found.iloc[0] == "x"
    assert found.isna().tolist() == [False, True]


def test_values_of_pandas_come_back() -> None:
    stamp = pd.Timestamp("2026-10-25 00:30:00.123456789", tz="UTC").tz_convert("Europe/Berlin")
    found = back([stamp, pd.Timestamp("2026-01-02"), pd.Timedelta("1 days 00:00:01.5"), pd.NaT, pd.NA])
    assert found[:3] == [stamp, pd.Timestamp("2026-01-02"), pd.Timedelta("1 days 00:00:01.5")]
    assert str(found[0]) == str(stamp)
    assert found[3] is pd.NaT
    assert found[4] is pd.NA


class Own:
    """A class of somebody's own."""


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"rows": [1, Own()]}, r"\[rows\]\[1\] is a .*Own"),
        (pd.DataFrame({"a": [Own()]}), r"\[a\]\[0\] is a .*Own"),
        (pd.DataFrame({"p": pd.period_range("2026", periods=2, freq="D")}), r"\[p\] has the type period"),
        (len, "builtin_function_or_method"),
        (collections.namedtuple("Pair", "a b")(1, 2), "Pair"),
        (cycle(), "contains itself"),
        (10**5000, "can not be written"),
    ],
    ids=["in a list", "in a frame", "column", "function", "named tuple", "cycle", "long"],
)
def test_what_has_no_safe_form_is_named(value: Any, said: str) -> None:
    with pytest.raises(values.NoSafeForm, match=said):
        values.dump(value)


def test_a_pickle_is_read_only_by_those_who_trust() -> None:
    data = b"".join(values.dump({"safe": 1, "own": Own}, pickled=True))
    with pytest.raises(values.Untrusted, match="runs code of its maker"):
        values.load(data)
    assert values.load(data, trust=True) == {"safe": 1, "own": Own}
    assert values.load(b"".join(values.dump([1], pickled=True))) == [1]  # what needs no pickle is none


def packed(tree: Any, *blobs: bytes) -> bytes:
    return packed_text(json.dumps(tree).encode(), *blobs)


def packed_text(tree: bytes, *blobs: bytes) -> bytes:
    head = json.dumps({"sizes": [len(one) for one in (tree, *blobs)]}).encode()
    return b"".join([values.MAGIC, len(head).to_bytes(8, "big"), head, tree, *blobs])


class Bomb:
    """What a pickle can do."""

    def __reduce__(self) -> Any:
        raise AssertionError("unpickled")


def hostile_npy() -> bytes:
    """An npy file of objects, which NumPy would unpickle if it were let."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([Own()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        pickle.dumps(1),
        values.MAGIC,
        values.MAGIC + b"\xff" * 8,
        packed(1)[:-1],
        packed({"bytes": 0}),
        packed({"bytes": -1}, b"x"),
        packed({"bytes": True}, b"x"),
        packed({"os.system": "true"}),
        packed({"tuple": 1}),
        packed({}),
        packed({"a": 1, "b": 2}),
        packed({"set": [{"dict": [[], []]}]}),
        packed({"dict": [["a"], []]}),
        packed({"npy": 0}, hostile_npy()),
        packed({"npy": 0}, b""),
        packed({"npy": 0}, pickle.dumps(1)),
        packed({"objects": [[10**12], [1]]}),
        packed({"timedelta": [10**12, 0, 0]}),
        packed({"datetime": ["2026-01-01T00:00:00", 0, "../../etc/passwd"]}),
        packed({"Timestamp": ["2026-01-01", "dateutil//etc/passwd"]}),
        packed({"extension": ["category", [1]]}),
        packed({"complex": "os"}),
        packed({"Index": [{"dict": [[], []]}, None, None]}),
        json.dumps([]).encode() * 5,
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(values.Unreadable):
        values.load(data)


def test_deep_trees_are_refused() -> None:
    depth = 100_000
    with pytest.raises(values.Unreadable, match="Recursion"):
        values.load(packed_text(b'{"tuple": [' * depth + b"1" + b"]}" * depth))


@given(st.binary(max_size=200))
def test_any_end_of_the_bytes_is_refused_or_read(tail: bytes) -> None:
    whole = b"".join(values.dump({"a": [1, b"xy"]}))
    assert values.load(b'{"key": "a"}\n' + whole + tail) == {"a": [1, b"xy"]}
    with pytest.raises(values.Unreadable):
        values.load(whole[: len(whole) - 1 - len(tail) % len(whole)])


def test_the_text_of_the_module_runs_alone() -> None:
    """As it does in the sandbox."""
    scope: dict[str, Any] = {"__name__": "alone"}
    exec(inspect.getsource(values), scope)
    frame = FRAMES["times"]
    pd.testing.assert_frame_equal(scope["load"](b"".join(scope["dump"](frame))), frame)
