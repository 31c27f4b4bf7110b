"""Keys for characters that are on no key of the keyboard.

xdotool lends such a character a key only for the moment of its own key press. A program that looks at the
keyboard's map a little later misses it (seen with xterm on a busy machine: one character in twenty). So keys
are lent here, and for good, before xdotool types: with a few requests of the X protocol over its socket.

A window manager grabs its keys and buttons anew at every change of the map, and a click is lost while it does
(openbox takes some 30 ms for each change). So all keys of a piece of text change at once, and typing begins
when the window manager has answered a question that it was asked after the change.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping

from ..errors import ToolboxError

TIMEOUT_SECONDS = 5.0
MANAGER_SECONDS = 3.0
"""How long a window manager may take to answer. One that does not once is not asked again."""
_CREATE_WINDOW, _INTERN_ATOM, _SEND_EVENT, _GET_FOCUS, _CHANGE_MAPPING, _GET_MAPPING = 1, 16, 25, 43, 100, 101
_XF86 = 0x1008FF
"""The upper bytes of the names of keys such as "volume up"; nobody presses them here."""
_PROPERTY_NOTIFY, _CLIENT_MESSAGE = 28, 33
_EVENT_MASK, _PROPERTY_CHANGE, _TO_THE_MANAGER = 0x800, 0x400000, 0x180000


def keysym(character: str) -> int:
    """Give the X name of a character: Latin-1 as it is, others as Unicode keysyms."""
    code = ord(character)
    return code if 0xA0 <= code <= 0xFF else 0x01000000 | code


def setup_request(cookie: bytes) -> bytes:
    """Build the first message to a server (little-endian, MIT-MAGIC-COOKIE-1)."""
    name = b"MIT-MAGIC-COOKIE-1"
    return struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(name), len(cookie)) + name + b"\0\0" + cookie


class Connection:
    """A connection to the X server that knows just what is needed here. Blocking; use it in a thread."""

    def __init__(self, display: str, cookie: bytes) -> None:
        """Connect.

        :raises OSError: if the server cannot be reached or refuses.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_SECONDS)
        try:
            self._socket.connect(f"/tmp/.X11-unix/X{display.lstrip(':')}")  # noqa: S108 (X11 fixes the place)
            self._socket.sendall(setup_request(cookie))
            status, _, _, words = struct.unpack("<BxHHH", self._read(8))
            body = self._read(4 * words)
            if status != 1:
                raise ConnectionRefusedError(
                    body.decode("latin-1").strip("\0\n ") or "refused by the X server"
                )
        except BaseException:
            self._socket.close()
            raise
        self.first_key, self.last_key = body[26], body[27]
        self._own_ids = struct.unpack_from("<I", body, 4)[0]
        vendor, formats = struct.unpack_from("<H", body, 16)[0], body[21]
        self._root = struct.unpack_from("<I", body, 32 + (vendor + 3) // 4 * 4 + 8 * formats)[0]

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("the X server has gone")
            data += piece
        return data

    def _reply(self) -> tuple[int, bytes]:
        """Read up to the next reply: (its second byte, what follows the first 32 bytes)."""
        while True:
            head = self._read(32)
            if head[0] == 1:
                return head[1], self._read(4 * struct.unpack_from("<I", head, 4)[0])
            if head[0] == 0:
                raise OSError(f"X error {head[1]}")
            # anything else is an event, such as MappingNotify

    def free_keys(self) -> list[int]:
        """List the keys that mean nothing, or what only multimedia keyboards have, the longest run last."""
        count = self.last_key - self.first_key + 1
        self._socket.sendall(struct.pack("<BxHBBxx", _GET_MAPPING, 2, self.first_key, count))
        width, data = self._reply()
        symbols = struct.unpack(f"<{len(data) // 4}I", data)
        spare = [
            self.first_key + key
            for key in range(count)
            if all(symbol == 0 or symbol >> 8 == _XF86 for symbol in symbols[key * width : (key + 1) * width])
        ]
        return [key for run in sorted(runs(spare), key=len) for key in run]

    def give(self, symbols: Mapping[int, int]) -> None:
        """Give keys their meanings, neighbours in one change, and wait until the server has done so."""
        for keys in runs(symbols):
            meanings = [symbols[key] for key in keys for _ in range(2)]  # without and with shift
            head = struct.pack("<BBHBBxx", _CHANGE_MAPPING, len(keys), 2 + len(meanings), keys[0], 2)
            self._socket.sendall(head + struct.pack(f"<{len(meanings)}I", *meanings))
        self._socket.sendall(struct.pack("<BxH", _GET_FOCUS, 1))
        self._reply()

    def _atom(self, name: str) -> int:
        data = name.encode()
        padding = b"\0" * (-len(data) % 4)
        words = 2 + (len(data) + 3) // 4
        self._socket.sendall(struct.pack("<BBHHxx", _INTERN_ATOM, 0, words, len(data)) + data + padding)
        while True:
            head = self._read(32)
            if head[0] == 1:
                return int(struct.unpack_from("<I", head, 8)[0])

    def wait_for_manager(self, seconds: float) -> bool:
        """Ask the window manager for the frame of a window of ours; whether it has answered in time.

        It takes what it hears in order, so by then it has dealt with everything before.
        """
        question, answer = self._atom("_NET_REQUEST_FRAME_EXTENTS"), self._atom("_NET_FRAME_EXTENTS")
        window = self._own_ids
        self._socket.sendall(
            struct.pack(
                "<BBHIIhhHHHHIII",
                *(
                    _CREATE_WINDOW,
                    0,
                    9,
                    window,
                    self._root,
                    0,
                    0,
                    1,
                    1,
                    0,
                    0,
                    0,
                    _EVENT_MASK,
                    _PROPERTY_CHANGE,
                ),
            )
        )
        message = struct.pack("<BBHII20x", _CLIENT_MESSAGE, 32, 0, window, question)
        self._socket.sendall(struct.pack("<BBHII", _SEND_EVENT, 0, 11, self._root, _TO_THE_MANAGER) + message)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            event = self._read(32)
            if event[0] == 0:
                raise OSError(f"X error {event[1]}")
            if event[0] == _PROPERTY_NOTIFY and struct.unpack_from("<I", event, 8)[0] == answer:
                return True
        return False

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


class LentKeys:
    """The keys lent so far on one X server. The one lent longest ago is lent anew when all are taken."""

    def __init__(self, display: str, cookie: bytes) -> None:
        self._display = display
        self._cookie = cookie
        self._free: list[int] | None = None
        self._lent: dict[str, int] = {}
        self._manager_answers = True

    @property
    def capacity(self) -> int:
        """How many characters can have a key at once; known after the first :meth:`lend`."""
        return len(self._free or []) + len(self._lent)

    def lend(self, characters: Iterable[str]) -> None:
        """See to it that ``characters`` (at most :attr:`capacity`) have keys. Blocking.

        :raises ToolboxError: 503 if the X server does not cooperate.
        """
        try:
            connection = Connection(self._display, self._cookie)
            try:
                if self._free is None:
                    self._free = connection.free_keys()
                symbols = self._assign(characters)
                if symbols:
                    connection.give(symbols)
                    if self._manager_answers:
                        self._manager_answers = connection.wait_for_manager(MANAGER_SECONDS)
            finally:
                connection.close()
        except OSError as exc:
            raise ToolboxError(503, f"the X server cannot be asked for keys: {exc}") from exc

    def _assign(self, characters: Iterable[str]) -> dict[int, int]:
        """Choose a key for each character; those that change, with their new meanings."""
        symbols: dict[int, int] = {}
        for character in characters:
            key = self._lent.pop(character, None)
            if key is None:
                if self._free:
                    key = self._free.pop()
                elif self._lent:
                    key = self._lent.pop(next(iter(self._lent)))
                else:
                    continue  # no key to lend at all; xdotool will do what it can
                symbols[key] = keysym(character)
            self._lent[character] = key  # the newest is last
        return symbols


def runs(keys: Iterable[int]) -> list[list[int]]:
    """Group numbers into runs of neighbours."""
    groups = itertools.groupby(enumerate(sorted(keys)), lambda pair: pair[1] - pair[0])
    return [[key for _, key in group] for _, group in groups]


def batches(text: str, capacity: int) -> list[str]:
    """Cut a text so that no piece has more than ``capacity`` different characters that need a lent key."""
    pieces: list[str] = []
    piece, lent = "", set[str]()
    for character in text:
        if not character.isascii() and character not in lent:
            if len(lent) >= capacity:
                pieces.append(piece)
                piece, lent = "", set()
            lent.add(character)
        piece += character
    return [*pieces, piece] if piece else pieces
