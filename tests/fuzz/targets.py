"""What is fuzzed: functions of bytes that must raise nothing but what they say."""

from __future__ import annotations

import argparse
import json
import shlex
import zlib
from base64 import b64encode
from collections.abc import Callable

from daytona_kernel import cellsplit, config, terminal, transfer, trust, wire
from daytona_kernel.errors import DaytonaKernelError
from daytona_kernel.execution import Execution, SocketReader
from daytona_kernel.magics import registry
from daytona_kernel.messages import cleaned, well_formed, well_formed_reply
from daytona_kernel.redaction import Secrets, StreamRedactor

Target = Callable[[bytes], None]
ID = "e1"
SECRET = "dtn_5up3r-s3cret"


def lines(data: bytes) -> None:
    """Standard output of the interpreter: any text, cut at its first byte, as frames and as messages."""
    text = data.decode("utf-8", "surrogateescape")  # so that there are lone surrogates, too
    shown: list[str] = []
    frames: list[wire.Frame] = []
    execution = Execution({"id": ID}, frames.append, lambda name, text: shown.append(text))
    reader = SocketReader(execution, lambda execution, size: None, over_gaps=True)
    cut = data[0] if data else 0
    for piece in (text[:cut], text[cut:]):
        reader.feed(json.dumps({"type": "stdout", "text": piece}))
    reader.feed(data)
    reader.finish()
    for frame in frames:
        content = well_formed(frame.type, frame.content)
        if content is not None:
            json.dumps(cleaned(content), allow_nan=False).encode()
            trust.isolated_message(frame.type, content)
    if execution.result is not None:
        reply = execution.result.get("reply")
        json.dumps(well_formed_reply(reply if isinstance(reply, dict) else {}, 1), allow_nan=False)


def packed(data: bytes) -> None:
    """What a compressed frame unfolds to, and the compressed bytes themselves."""
    for raw in (zlib.compress(data), data):
        receiver = wire.Receiver(ID)
        text = b64encode(raw).decode()
        line = wire.parse_line(json.dumps({"x": ID, "n": 0, "p": [0, 1], "d": text}))
        if line is not None:
            receiver.feed(line)


def words(data: bytes) -> None:
    """A ``%daytona`` line, as far as the words go that it is made of: nothing of it is run."""
    try:
        found = registry.words_of(data.decode("utf-8", "replace")) or ["help"]
        command, rest = registry.find(found, registry.commands())
        if "-h" not in rest and "--help" not in rest:
            assert isinstance(command.parse(rest), argparse.Namespace)
    except (DaytonaKernelError, registry.HelpAsked):
        pass


def durations(data: bytes) -> None:
    """A time for people."""
    try:
        assert config.parse_duration_s(data.decode("utf-8", "replace")) >= 0
    except DaytonaKernelError:
        pass


def cells(data: bytes) -> None:
    """A cell: its parts have all of its ``%daytona`` lines, and no more lines than it has."""
    cell = data.decode("utf-8", "replace")
    for part in cellsplit.split(cell) or []:
        if isinstance(part, cellsplit.Local):
            assert part.line_number >= 1
            assert cellsplit.MAGIC in cell


def names(data: bytes) -> None:
    """A name from the sandbox is inside the target folder, or refused."""
    from pathlib import Path

    folder = Path("/nowhere/in/particular")
    try:
        target = transfer.safe_target(folder, data.decode("utf-8", "surrogateescape"), {})
    except (transfer.UnsafeName, ValueError, OSError):
        return
    assert target.is_relative_to(folder)
    assert ".." not in target.parts


def terminals(data: bytes) -> None:
    """Text that a terminal shows has no control characters but those of colours."""
    text = data.decode("utf-8", "replace")
    shown = terminal.without_sequences(text)
    assert not any(char < " " and char not in "\t\n" for char in shown)
    assert "\x1b" not in terminal.coloured(text).replace("\x1b[", "")


def redaction(data: bytes) -> None:
    """A secret between any two texts, cut anywhere, is not shown whole."""
    secrets = Secrets()
    secrets.add(SECRET)
    around = data.decode("utf-8", "replace").replace(SECRET[:4], "")
    place = data[0] % (len(around) + 1) if data else 0
    text = around[:place] + SECRET + around[place:]
    cut = data[-1] % (len(text) + 1) if data else 0
    stream = StreamRedactor(secrets)
    shown = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.flush()
    assert SECRET not in shown


TARGETS: dict[str, Target] = {
    one.__name__: one for one in (lines, packed, words, durations, cells, names, terminals, redaction)
}

_FRAME = wire.encode(wire.Frame(ID, "display_data", {"data": {"text/html": "<b>"}, "metadata": {}}), 0)
_BIG = wire.encode(wire.Frame(ID, "stream", {"name": "stdout", "text": "x" * 300_000}), 0)
GOOD: dict[str, list[bytes]] = {
    "lines": [
        "".join(_FRAME).encode(),
        b"plain\n\x1e{}\n\x1e" + _BIG[0][:200].encode(),
        "".join(wire.encode(wire.Frame(ID, "done", {"reply": {"status": "ok", "payload": []}}), 0)).encode(),
    ],
    "packed": [b'{"t":"stream","c":{"name":"stdout","text":"x"},"b":["AA=="],"m":{"a":[1]}}'],
    "words": [
        b"upload a b --to c",
        shlex.join(["exec", "--env", "A=1", "--", "ls", "-l"]).encode(),
        b"create --cpu 2 --label a=b --auto-stop 30m",
        b"preview 8000 --expires 1h",
    ],
    "durations": [b"1h30m", b"7d", b"45"],
    "cells": [
        b"x = %daytona ls\nfor a in b:\n    %daytona ls\nprint(1)",
        b"%%daytona bash\nls",
        b"'''\n%daytona no\n'''\n%daytona \\\n  yes",
    ],
    "names": [b"a/b/c", b"../x", b"/etc/passwd"],
    "terminals": [b"\x1b[31mred\x1b[0m\x1b]0;t\x07", "\x9b1m\u202e".encode()],
    "redaction": [b"before after", SECRET.encode()],
}
"""What to begin with."""
