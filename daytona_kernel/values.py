"""PURE: values of Python as bytes and back, on both sides of a ``push`` or ``pull``, without pickle.

This very text also runs in the sandbox, so it needs nothing but the standard library of Python 3.10 or later,
and of NumPy and pandas what is there anyway. Numbers, texts and containers are JSON, in which all that JSON
does not know is a dictionary of one entry: its kind and its content. Arrays and columns are npy files. No
Arrow is needed: Daytona's own snapshots have pandas, but no pyarrow.

Reading makes only what is named here, and runs nothing that the bytes have chosen, unless they hold a pickle
and the reader was told to trust them.

A file of values: perhaps a line of JSON, a note of whoever keeps it; then ``MAGIC``, the length of the head
in 8 bytes, the head (JSON: ``about`` for people, ``pickled``, ``sizes``), the JSON, and the blobs.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

MAGIC = b"DKV1\n"
_PLAIN = frozenset((str, float, bool, type(None)))
_EXTENSION = re.compile(r"(?:U?Int(?:8|16|32|64)|Float(?:32|64)|boolean|string|str)\Z")
"""Types of pandas' own arrays that are read from a list of their values."""
_ZONE = re.compile(r"(?!dateutil)[A-Za-z0-9_+:-]+(?:/[A-Za-z0-9_+-]+)*\Z")
"""Names of time zones; pandas would take some others for names of files."""


class NoSafeForm(TypeError):
    """A value that would have to be pickled. ``str()`` says which and where."""


class Unreadable(ValueError):
    """Bytes that are no value, or none that can be read here."""


class Untrusted(Unreadable):
    """Bytes with a pickle in them, which nobody said to trust."""


# -- writing ---------------------------------------------------------------------------------------


def dump(value: object, pickled: bool = False) -> list[bytes]:
    """A value as pieces of bytes. ``pickled``: pickle what has no safer form.

    Raises :class:`NoSafeForm`. Instances of subclasses have none: their class may not be there at reading.
    """
    writer = _Writer(pickled)
    try:
        tree = json.dumps(writer.tree(value, "")).encode()
    except RecursionError:
        raise NoSafeForm("it contains itself, or is nested too deeply") from None
    except ValueError as exc:  # an integer of thousands of digits
        raise NoSafeForm(f"it can not be written: {exc}") from None
    blobs = [tree, *writer.blobs]
    head = {"about": about(value), "pickled": writer.has_pickle, "sizes": [len(blob) for blob in blobs]}
    text = json.dumps(head).encode()
    return [MAGIC, len(text).to_bytes(8, "big"), text, *blobs]


def about(value: object) -> str:
    """A few words for people about what a value is."""
    kind = type(value).__name__
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:
            return f"{kind} {' x '.join(str(int(count)) for count in shape)}"
        if isinstance(value, (str, bytes, bytearray, list, tuple, dict, set, frozenset)):
            return f"{kind} of {len(value)}"
    except Exception:
        pass  # whatever a strange class does, these are only words
    return kind


class _Writer:
    """Turns a value into a tree for JSON, and blobs that the tree names by their numbers."""

    def __init__(self, pickled: bool) -> None:
        self.blobs: list[bytes] = []
        self.has_pickle = False
        self._pickled = pickled

    def blob(self, data: bytes) -> int:
        self.blobs.append(data)
        return len(self.blobs) - 1

    def npy(self, array: Any) -> int:
        import numpy

        buffer = io.BytesIO()
        numpy.save(buffer, array, allow_pickle=False)
        return self.blob(buffer.getvalue())

    def tree(self, value: Any, where: str) -> Any:
        """The tree of a value. ``where`` it is in the whole, for errors."""
        kind = type(value)
        if kind in _PLAIN or kind is int:
            return value
        if kind is list:
            return self.items(value, where)
        if kind is dict:
            return {"dict": self.pairs(value, where)}
        name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
        write = _WRITERS.get(name, _write_scalar if name.startswith("numpy.") else None)
        reason = f"{where or 'it'} is a {kind.__module__}.{kind.__qualname__}"
        try:
            if write is not None:
                return write(self, value, where)
        except NoSafeForm as exc:
            reason = str(exc)
        if not self._pickled:
            raise NoSafeForm(reason)
        import pickle

        self.has_pickle = True
        return {"pickle": self.blob(pickle.dumps(value, 4))}

    def items(self, values: Iterable[Any], where: str) -> list[Any]:
        values = list(values)
        if _PLAIN.issuperset(map(type, values)):
            return values
        return [self.tree(value, f"{where}[{index}]") for index, value in enumerate(values)]

    def pairs(self, mapping: dict[Any, Any], where: str) -> list[Any]:
        keys = self.items(mapping, f"{where}.keys()")
        return [keys, [self.tree(value, f"{where}[{key!s:.40}]") for key, value in mapping.items()]]


_Write = Callable[[_Writer, Any, str], Any]


def _write_scalar(writer: _Writer, value: Any, where: str) -> Any:
    import numpy

    if not isinstance(value, numpy.generic) or value.dtype.hasobject:
        raise NoSafeForm(f"{where or 'it'} is a {type(value).__module__}.{type(value).__qualname__}")
    return {"scalar": writer.npy(value)}


def _write_ndarray(writer: _Writer, value: Any, where: str) -> Any:
    if not value.dtype.hasobject:
        return {"npy": writer.npy(value)}
    if value.dtype != object:
        raise NoSafeForm(f"{where or 'it'} is an array of {value.dtype}")
    return {"objects": [list(value.shape), writer.items(value.ravel().tolist(), where)]}


def _write_array(writer: _Writer, values: Any, where: str) -> Any:
    """A column or an index of pandas, without its name."""
    import numpy
    import pandas  # type: ignore[import-untyped]

    dtype = values.dtype
    if isinstance(dtype, numpy.dtype) or type(values).__name__ in ("NumpyExtensionArray", "PandasArray"):
        return _write_ndarray(writer, numpy.asarray(values), where)
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = _write_index(writer, values.categories, where)
        codes = writer.npy(numpy.asarray(values.codes))
        return {"categories": [codes, categories, bool(values.ordered)]}
    if isinstance(dtype, pandas.DatetimeTZDtype):
        moments = numpy.asarray(values.tz_convert("UTC").tz_localize(None))
        return {"zoned": [writer.npy(moments), _zone_name(dtype.tz)]}
    name = "string" if str(dtype).startswith("string") else str(dtype)
    if not _EXTENSION.match(name):
        raise NoSafeForm(f"{where or 'it'} has the type {dtype}")
    return {"extension": [name, writer.items(values.astype(object).tolist(), where)]}


def _write_index(writer: _Writer, index: Any, where: str) -> Any:
    import pandas

    names = writer.items(index.names, f"{where}.names")
    if isinstance(index, pandas.RangeIndex):
        return {"RangeIndex": [index.start, index.stop, index.step, names[0]]}
    if isinstance(index, pandas.MultiIndex):
        levels = [_write_index(writer, level, where) for level in index.levels]
        return {"MultiIndex": [levels, [[int(one) for one in codes] for codes in index.codes], names]}
    return {"Index": [_write_array(writer, index.array, where), names[0], getattr(index, "freqstr", None)]}


def _write_series(writer: _Writer, value: Any, where: str) -> Any:
    values = _write_array(writer, value.array, where)
    index = _write_index(writer, value.index, f"{where}.index")
    return {"Series": [values, index, writer.tree(value.name, f"{where}.name")]}


def _write_frame(writer: _Writer, value: Any, where: str) -> Any:
    columns = [
        _write_array(writer, value.iloc[:, number].array, f"{where}[{label!s:.40}]")
        for number, label in enumerate(value.columns)
    ]
    labels = _write_index(writer, value.columns, f"{where}.columns")
    return {"DataFrame": [columns, labels, _write_index(writer, value.index, f"{where}.index")]}


def _zone_name(zone: Any) -> str:
    name = str(zone)
    if not _ZONE.match(name):
        raise NoSafeForm(f"it has the time zone {name}")
    return name


def _write_stamp(writer: _Writer, value: Any, where: str) -> Any:
    if value.tz is None:
        return {"Timestamp": [value.isoformat(), None]}
    return {"Timestamp": [value.tz_convert("UTC").tz_localize(None).isoformat(), _zone_name(value.tz)]}


def _write_moment(writer: _Writer, value: Any, where: str) -> Any:
    """A ``datetime`` or ``time``: without its zone, its fold, and the zone as its key or seconds from UTC."""
    zone: Any = value.tzinfo
    if zone is not None:
        owner = type(zone).__module__.partition(".")[0], type(zone).__name__
        if owner == ("datetime", "timezone"):
            zone = zone.utcoffset(None).total_seconds()
        elif owner == ("zoneinfo", "ZoneInfo") and zone.key:
            zone = zone.key
        else:
            raise NoSafeForm(f"{where or 'it'} has a time zone of the type {'.'.join(owner)}")
    return {type(value).__name__: [value.replace(tzinfo=None).isoformat(), value.fold, zone]}


def _listed(tag: str) -> _Write:
    return lambda writer, value, where: {tag: writer.items(value, where)}


def _paired(tag: str) -> _Write:
    return lambda writer, value, where: {tag: writer.pairs(value, where)}


def _spelled(tag: str, spell: Callable[[Any], Any] = str) -> _Write:
    return lambda writer, value, where: {tag: spell(value)}


_INDEXES = ("", "Range", "Multi", "Categorical", "Datetime", "Timedelta")
_WRITERS: dict[str, _Write] = {
    "builtins.tuple": _listed("tuple"),
    "builtins.set": _listed("set"),
    "builtins.frozenset": _listed("frozenset"),
    "collections.deque": lambda writer, value, where: {"deque": [writer.items(value, where), value.maxlen]},
    "collections.OrderedDict": _paired("OrderedDict"),
    "collections.Counter": _paired("Counter"),
    "builtins.bytes": lambda writer, value, where: {"bytes": writer.blob(value)},
    "builtins.bytearray": lambda writer, value, where: {"bytearray": writer.blob(bytes(value))},
    "builtins.complex": _spelled("complex", lambda value: [value.real, value.imag]),
    "builtins.range": _spelled("range", lambda value: [value.start, value.stop, value.step]),
    "datetime.date": _spelled("date", lambda value: value.isoformat()),
    "datetime.time": _write_moment,
    "datetime.datetime": _write_moment,
    "datetime.timedelta": _spelled(
        "timedelta", lambda value: [value.days, value.seconds, value.microseconds]
    ),
    "decimal.Decimal": _spelled("Decimal"),
    "fractions.Fraction": _spelled("Fraction"),
    "uuid.UUID": _spelled("UUID"),
    "pathlib.PosixPath": _spelled("Path"),
    "pathlib.WindowsPath": _spelled("Path", lambda value: value.as_posix()),
    "numpy.ndarray": _write_ndarray,
    "pandas.DataFrame": _write_frame,
    "pandas.Series": _write_series,
    "pandas.Timestamp": _write_stamp,
    "pandas.Timedelta": _spelled("Timedelta", lambda value: value.isoformat()),
    "pandas.NaTType": _spelled("NaT"),
    "pandas.NAType": _spelled("NA"),
    **dict.fromkeys((f"pandas.{one}Index" for one in _INDEXES), _write_index),
}


# -- reading ---------------------------------------------------------------------------------------


def load(data: bytes, trust: bool = False) -> Any:
    """The value in these bytes. ``trust``: also what is pickled, which runs what its maker chose.

    Raises :class:`Untrusted`, and :class:`Unreadable` for anything else that can not be read.
    """
    view = memoryview(data)
    if data.startswith(b"{"):
        view = view[data.find(b"\n") + 1 :]
    start = len(MAGIC) + 8
    if view[: len(MAGIC)] != MAGIC:
        raise Unreadable("these are no values of push")
    length = int.from_bytes(view[len(MAGIC) : start], "big")
    try:
        head = json.loads(bytes(view[start : start + length]))
        blobs, position = [], start + length
        for size in head["sizes"]:
            if type(size) is not int or not 0 <= size <= len(view) - position:
                raise Unreadable("the end is missing")
            blobs.append(bytes(view[position : position + size]))
            position += size
        tree, *others = blobs
        return _Reader(others, trust).value(json.loads(tree))
    except Unreadable:
        raise
    except ImportError as exc:
        raise Unreadable(f"{exc.name or exc} is missing there") from exc
    except Exception as exc:
        raise Unreadable(f"{type(exc).__name__}: {exc}") from exc


class _Reader:
    """Makes a value of a tree and blobs that come from anywhere. Its methods raise whatever comes."""

    def __init__(self, blobs: list[bytes], trust: bool) -> None:
        self._blobs = blobs
        self._trust = trust

    def value(self, tree: Any) -> Any:
        if type(tree) is list:
            return tree if _PLAIN.issuperset(map(type, tree)) else list(map(self.value, tree))
        if type(tree) is not dict:
            return tree
        ((tag, content),) = tree.items()
        if tag not in _READERS:
            raise Unreadable(f"there is a value of an unknown kind, {tag!r:.40}")
        return _READERS[tag](self, content)

    def blob(self, number: int) -> bytes:
        if type(number) is not int or number < 0:
            raise Unreadable("a blob has no number")
        return self._blobs[number]

    def npy(self, number: int) -> Any:
        import numpy

        return numpy.load(io.BytesIO(self.blob(number)), allow_pickle=False)

    def pairs(self, content: Any) -> Iterable[tuple[Any, Any]]:
        keys, values = content
        return zip(self.value(keys), self.value(values), strict=True)

    def pickle(self, content: Any) -> Any:
        if not self._trust:
            raise Untrusted("it is pickled, and reading a pickle runs code of its maker")
        import pickle

        return pickle.loads(self.blob(content))  # noqa: S301 - the person said --trust

    def objects(self, content: Any) -> Any:
        import numpy

        shape, items = content
        found = numpy.empty(len(items), dtype=object)
        found[:] = [None] * len(items)
        for index, item in enumerate(self.value(items)):
            found[index] = item
        return found.reshape(tuple(shape))

    def categories(self, content: Any) -> Any:
        import pandas

        codes, categories, ordered = content
        return pandas.Categorical.from_codes(self.npy(codes), self.value(categories), ordered=bool(ordered))

    def zoned(self, content: Any) -> Any:
        import pandas

        moments, zone = content
        return pandas.DatetimeIndex(self.npy(moments), tz="UTC").tz_convert(_checked_zone(zone)).array

    def extension(self, content: Any) -> Any:
        import pandas

        name, items = content
        if not _EXTENSION.match(name):
            raise Unreadable(f"there is a column of an unknown type, {name!r:.40}")
        if name == "str" and not _has_texts():  # it would make the text "nan" of what is missing
            return self.objects([[len(items)], items])
        return pandas.array(self.value(items), dtype=name)

    def index(self, content: Any) -> Any:
        import pandas

        values, name, frequency = content
        array = self.value(values)
        index = pandas.Index(array, dtype=array.dtype, name=self.value(name))
        if frequency:
            with contextlib.suppress(ValueError):  # another pandas has another name for it
                index.freq = str(frequency)
        return index

    def multi_index(self, content: Any) -> Any:
        import pandas

        levels, codes, names = content
        return pandas.MultiIndex(levels=self.value(levels), codes=codes, names=self.value(names))

    def range_index(self, content: Any) -> Any:
        import pandas

        start, stop, step, name = content
        return pandas.RangeIndex(start, stop, step, name=self.value(name))

    def series(self, content: Any) -> Any:
        import pandas

        values, index, name = content
        array = self.value(values)
        return pandas.Series(array, index=self.value(index), name=self.value(name), dtype=array.dtype)

    def frame(self, content: Any) -> Any:
        import pandas

        columns, labels, index = content
        rows = self.value(index)
        found = {}
        for number, column in enumerate(columns):
            array = self.value(column)
            found[number] = pandas.Series(array, index=rows, dtype=array.dtype)
        frame = pandas.DataFrame(found, index=rows)
        frame.columns = self.value(labels)
        return frame

    def timestamp(self, content: Any) -> Any:
        import pandas

        text, zone = content
        stamp = pandas.Timestamp(text)
        return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(_checked_zone(zone))

    def missing(self, content: Any) -> Any:
        import pandas

        return pandas.NA


def _has_texts() -> bool:
    """Whether this pandas has texts of an own kind, as from version 3 on. Before, they are objects."""
    import pandas

    return str(pandas.Series([""]).dtype) == "str"


def _checked_zone(name: Any) -> str:
    if not isinstance(name, str) or not _ZONE.match(name):
        raise Unreadable(f"there is an unknown time zone, {name!r:.40}")
    return name


def _moment(kind: str, content: Any) -> Any:
    import datetime

    text, fold, zone = content
    if isinstance(zone, str):
        import zoneinfo

        zone = zoneinfo.ZoneInfo(_checked_zone(zone))
    elif zone is not None:
        zone = datetime.timezone(datetime.timedelta(seconds=zone))
    return getattr(datetime, kind).fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _made(module: str, name: str, spread: bool = False) -> Callable[[_Reader, Any], Any]:
    """Of the standard library, called with the content, or with ``spread`` with each of its items."""

    def read(reader: _Reader, content: Any) -> Any:
        import importlib
        import operator

        make = operator.attrgetter(name)(importlib.import_module(module))
        return make(*content) if spread else make(content)

    return read


def _collected(name: str) -> Callable[[_Reader, Any], Any]:
    make = _made("collections", name)
    return lambda reader, content: make(reader, dict(reader.pairs(content)))


_READERS: dict[str, Callable[[_Reader, Any], Any]] = {
    "dict": lambda reader, content: dict(reader.pairs(content)),
    "tuple": lambda reader, content: tuple(reader.value(content)),
    "set": lambda reader, content: set(reader.value(content)),
    "frozenset": lambda reader, content: frozenset(reader.value(content)),
    "deque": lambda reader, content: collections.deque(reader.value(content[0]), content[1]),
    "OrderedDict": _collected("OrderedDict"),
    "Counter": _collected("Counter"),
    "bytes": lambda reader, content: reader.blob(content),
    "bytearray": lambda reader, content: bytearray(reader.blob(content)),
    "complex": _made("builtins", "complex", spread=True),
    "range": _made("builtins", "range", spread=True),
    "date": _made("datetime", "date.fromisoformat"),
    "time": lambda reader, content: _moment("time", content),
    "datetime": lambda reader, content: _moment("datetime", content),
    "timedelta": _made("datetime", "timedelta", spread=True),
    "Decimal": _made("decimal", "Decimal"),
    "Fraction": _made("fractions", "Fraction"),
    "UUID": _made("uuid", "UUID"),
    "Path": _made("pathlib", "Path"),
    "pickle": _Reader.pickle,
    "npy": _Reader.npy,
    "scalar": lambda reader, content: reader.npy(content)[()],
    "objects": _Reader.objects,
    "categories": _Reader.categories,
    "zoned": _Reader.zoned,
    "extension": _Reader.extension,
    "Index": _Reader.index,
    "MultiIndex": _Reader.multi_index,
    "RangeIndex": _Reader.range_index,
    "Series": _Reader.series,
    "DataFrame": _Reader.frame,
    "Timestamp": _Reader.timestamp,
    "Timedelta": _made("pandas", "Timedelta"),
    "NaT": _made("pandas", "Timestamp"),  # of its name
    "NA": _Reader.missing,
}
