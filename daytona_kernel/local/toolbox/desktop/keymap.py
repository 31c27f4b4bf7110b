"""Keys for characters that are on no key of the keyboard.

xdotool lends such a character a key only for the moment of its own key press. A program that looks at the
keyboard's map a little later misses it (seen with xterm on a busy machine: one character in twenty). So keys
are lent here, and for good, before xdotool types: with two requests of the X protocol over its socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from ..errors import ToolboxError

TIMEOUT_SECONDS = 5.0
_CHANGE_MAPPING, _GET_MAPPING, _GET_FOCUS = 100, 101, 43


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
        """List the keys that mean nothing."""
        count = self.last_key - self.first_key + 1
        self._socket.sendall(struct.pack("<BxHBBxx", _GET_MAPPING, 2, self.first_key, count))
        width, data = self._reply()
        symbols = struct.unpack(f"<{len(data) // 4}I", data)
        return [
            self.first_key + key for key in range(count) if not any(symbols[key * width : (key + 1) * width])
        ]

    def give(self, key: int, symbol: int) -> None:
        """Give a key its meaning, and wait until the server has done so."""
        self._socket.sendall(struct.pack("<BBHBBxxII", _CHANGE_MAPPING, 1, 4, key, 2, symbol, symbol))
        self._socket.sendall(struct.pack("<BxH", _GET_FOCUS, 1))
        self._reply()

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
                for character in characters:
                    self._lend_one(connection, character)
            finally:
                connection.close()
        except OSError as exc:
            raise ToolboxError(503, f"the X server cannot be asked for keys: {exc}") from exc

    def _lend_one(self, connection: Connection, character: str) -> None:
        key = self._lent.pop(character, None)
        if key is None:
            if self._free:
                key = self._free.pop()
            elif self._lent:
                key = self._lent.pop(next(iter(self._lent)))
            else:
                return  # no key to lend at all; xdotool will do what it can
            connection.give(key, keysym(character))
        self._lent[character] = key  # the newest is last


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
