"""What differs between two runs of the *same* kernel, and nothing else, made equal. Each rule has its reason.

A difference between kernels must never be made equal here: it is mended in the kernel, or named with its
reason in `known_differences.py`.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
from collections.abc import Callable
from typing import Any

from PIL import Image

from .driver import KernelUnderTest, Message

#: Asked from each kernel before its first cell, silently.
FACTS_EXPRESSION = (
    "(lambda os, sys, tempfile, json, IPython: json.dumps({"
    "'cwd': os.getcwd(), 'home': os.path.expanduser('~'), 'tmp': tempfile.gettempdir(),"
    " 'real home': os.path.realpath(os.path.expanduser('~')), 'python': sys.base_prefix,"
    " 'environment': sys.prefix, 'libraries': IPython.__file__.partition('/lib/python')[0]}))"
    "(*map(__import__, ('os', 'sys', 'tempfile', 'json', 'IPython')))"
)

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_TIME = r"[\d.]+(?:e[+-]?\d+)? ?(?:ns|[µμu]s|ms|min|s|h|d)\b"

RULES: list[Rule] = [
    # repr() of objects: where the allocator put them.
    (re.compile(r"\b0x[0-9a-fA-F]{6,16}\b"), "0x<address>"),
    # ipykernel's compiler puts cells into a directory named after its process id. The hash of the code that
    # follows is a pure function of the code, and stays.
    (re.compile(r"ipykernel_\d+"), "ipykernel_<pid>"),
    # %time, %%time, %timeit, %prun: durations. The rest of these lines stays.
    (re.compile(rf"((?:[uU]ser|sys|System|total|Wall time) *:? +){_TIME}"), r"\1<time>"),
    (
        re.compile(rf"{_TIME} ± {_TIME} per loop \(mean ± std. dev. of (\d+) runs?, [\d,]+ loops? each\)"),
        r"<time> ± <time> per loop (mean ± std. dev. of \1 runs, <n> loops each)",
    ),
    # %timeit and %time on a busy machine: lines about a slow run and a compiler that took over 100 ms
    (re.compile(r"The slowest run took [\d.]+ times longer than the fastest\. [^\n]*\n"), ""),
    (re.compile(rf"(?m)^(?:Compiler time:|Compiler :|Parser   :) {_TIME}\n"), ""),
    (re.compile(r"\bin \d+\.\d{3} seconds\b"), "in <time> seconds"),
    # tqdm: elapsed, remaining and rate (the bar, the counts and the postfix stay).
    (re.compile(r"\[\d\d:\d\d(?:(?:<|&lt;)(?:\d\d:\d\d|\?))?,[ \u2007]+[\d.?]+(?:s/it|it/s)"), "[<elapsed>"),
    # ISO dates with a time: message metadata, logs, figures.
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<date>"),
    # tempfile names.
    (re.compile(r"<tmp>/tmp[a-z0-9_]{8}\b"), "<tmp>/tmp<random>"),
    # The ports of a kernel, as %connect_info shows them.
    (re.compile(r'_port": \d+'), '_port": <port>'),
    # The repr of IPython's ExecutionInfo writes its address without 0x.
    (re.compile(r"object at [0-9a-f]{8,16},"), "object at <address>,"),
    # %subshell.
    (re.compile(r"\b(thread id|pid): \d+"), r"\1: <number>"),
    # An interpreter has several names, and the tests are started by one of them.
    (re.compile(r"(<environment>/bin/python)3(?:\.\d+)?(?!\w)"), r"\1"),
    # Thread identities and file descriptors in reprs of sockets and threads.
    (re.compile(r"(<[\w.]*Thread\([^)]*), (?:started )?(daemon )?\d+\)"), r"\1, <ident>)"),
    (re.compile(r"Thread 0x<address>"), "Thread <ident>"),
    # `kill`, `ps`-like and multiprocessing reprs.
    (re.compile(r"\bpid[= ]\d+"), "pid=<pid>"),
    (re.compile(r"\bparent=\d+"), "parent=<pid>"),
    # Random ids of pandas' Styler in its HTML.
    (re.compile(r"\bT_[0-9a-f]{5}(?![0-9a-zA-Z])"), "T_<id>"),
    # matplotlib's SVG: ids are salted at random.
    (re.compile(r'(id="|#)([a-z]{0,2})[0-9a-f]{9,12}\b'), r"\1\2<id>"),
]

#: Random ids: message ids (session, process, counter), UUIDs, and the 16 digits of IPython's own display ids.
RANDOM_ID = re.compile(
    r"(?<![0-9a-zA-Z])(?:[0-9a-f]{8}-[0-9a-f]{24}_\d+_\d+"
    r"|[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}|[0-9a-f]{16})(?![0-9a-zA-Z])"
)

#: Text longer than this is shown by its length and hash, so that a diff stays readable.
LONG_TEXT = 20_000
HUGE_TEXT = 250_000


class Normaliser:
    """Turns messages of one kernel into lines that are equal for two runs that say the same."""

    def __init__(self, facts: dict[str, str]) -> None:
        paths = {
            facts["cwd"]: "<home>",
            facts["home"]: "<home>",
            facts["real home"]: "<home>",
            facts["tmp"]: "<tmp>",
            facts["environment"]: "<environment>",
            # A sandbox may see the packages of another environment than its own.
            facts["libraries"]: "<environment>",
            facts["python"]: "<python>",
        }
        # Longest first: the home may be below the temporary directory.
        self.paths = [
            (re.compile(rf"(?:(?<=\x1b\[\d\dm)|(?<![\w.>-])){re.escape(path)}(?!\w)"), paths[path])
            for path in sorted(paths, key=len, reverse=True)
            if len(path) > 1
        ]
        self.names: dict[str, str] = {}
        self.engines: dict[str, str] = {}

    @classmethod
    async def for_kernel(cls, kernel: KernelUnderTest) -> Normaliser:
        """Asks the kernel for its paths."""
        return cls(json.loads(await kernel.evaluate(FACTS_EXPRESSION)))

    def new_cell(self) -> None:
        """Random ids are numbered by their first appearance in a cell; this starts at 1 again."""
        self.names.clear()
        self.names.update(self.engines)

    def _name(self, match: re.Match[str]) -> str:
        return self.names.setdefault(match[0].replace("-", ""), f"<id {len(self.names) + 1}>")

    def text(self, text: str) -> str:
        """One string, normalised. Megabytes stay as they are: the corpus has nothing variable in them."""
        if len(text) > HUGE_TEXT:
            return text
        for path, name in self.paths:
            text = path.sub(name, text)
        text = RANDOM_ID.sub(self._name, text)
        for pattern, replacement in RULES:
            text = pattern.sub(replacement, text)
        return text

    def lines(self, message: Message) -> list[str]:
        """A message as lines: type, content, metadata, buffers. Lossless but for the rules above."""
        content = copy.copy(message["content"])
        lines = [f"[{message['msg_type']}]"]
        if "engine" in message.get("metadata", {}):
            # The kernel's own random name is in each reply, and takes no number from the ids of a cell.
            self.engines[message["metadata"]["engine"].replace("-", "")] = "<engine>"
            self.names.update(self.engines)
        if isinstance(content.get("data"), dict):
            content["data"] = {mime: picture(mime, data) for mime, data in content["data"].items()}
        lines += self._tree("content", content)
        if message.get("metadata"):
            lines += self._tree("metadata", message["metadata"])
        for buffer in message.get("buffers", ()):
            lines.append(f"  buffer: {len(buffer)} bytes {digest(bytes(buffer))}")
        return lines

    def _tree(self, key: str, value: Any, indent: str = "  ") -> list[str]:
        if isinstance(value, dict) and value:
            lines = [] if key == "content" else [f"{indent}{key}:"]
            deeper = indent if key == "content" else indent + "  "
            for name in sorted(value):
                lines += self._tree(self.text(str(name)), value[name], deeper)
            return lines
        if isinstance(value, (list, tuple)) and value:
            lines = [f"{indent}{key}:"]
            for index, one in enumerate(value):
                lines += self._tree(f"[{index}]", one, indent + "  ")
            return lines
        if isinstance(value, str):
            return self._string(key, self.text(value), indent)
        # Text is written after a colon and everything else after a sign, since 1 is not "1".
        return [f"{indent}{key} = {self.text(repr(value))}"]

    @staticmethod
    def _string(key: str, text: str, indent: str) -> list[str]:
        if len(text) > LONG_TEXT:
            start, end = visible(text[:60]), visible(text[-60:])
            return [f"{indent}{key}: {len(text)} characters {digest(text)}", f"{start} ... {end}"]
        if "\n" not in text:
            return [f"{indent}{key}: {visible(text)!s}"]
        return [f"{indent}{key}:", *(f"{indent}  | {visible(line)}" for line in text.split("\n"))]


def digest(data: str | bytes) -> str:
    """A short hash to compare by. Its length is none that RANDOM_ID takes for an id."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return "sha256:" + hashlib.sha256(raw).hexdigest()[:20]


def visible(text: str) -> str:
    """The text with control characters and lone surrogates escaped, other characters as they are."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def picture(mime: str, data: Any) -> Any:
    """A picture by its size and pixels: encoders write times and versions into the files."""
    if mime in ("image/png", "image/jpeg", "image/gif") and isinstance(data, str):
        try:
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                pixels = image.convert("RGBA").tobytes()
                return f"<{image.format} {image.width}x{image.height} {digest(pixels)}>"
        except (OSError, ValueError):
            # Not a picture: compared as the text that it is.
            return data
    if mime == "application/pdf" and isinstance(data, str):
        # Creation time (and so every offset's digits) differ; the size is the same.
        pdf = base64.b64decode(data)
        return f"<{pdf[:8]!r} {len(pdf)} bytes>"
    return data


def merge_streams(messages: list[Message]) -> list[Message]:
    """Adjacent pieces of one stream as one message: where a stream is cut depends on timers."""
    merged: list[Message] = []
    for message in messages:
        if (
            merged
            and message["msg_type"] == merged[-1]["msg_type"] == "stream"
            and message["content"]["name"] == merged[-1]["content"]["name"]
        ):
            merged[-1]["content"]["text"] += message["content"]["text"]
        else:
            merged.append({**message, "content": dict(message["content"])})
    return merged


def streams_apart(messages: list[Message]) -> list[Message]:
    """All stdout, then all stderr, then the rest.

    For cells that write through pipes: under ipykernel itself the order of two pipes, and of a pipe
    against `print`, is a race between threads.
    """

    def rank(message: Message) -> int:
        if message["msg_type"] != "stream":
            return 2
        return 0 if message["content"]["name"] == "stdout" else 1

    return sorted(messages, key=rank)
