"""Rich output of the sandbox made harmless to the page that shows it: ``output_trust = isolated``. Pure.

A page of Jupyter may read and write files, and open terminals, of the machine that it is served from. So may
whatever script an output brings along. So with ``isolated`` there is no script: of what the sandbox sends,
only what front ends show without interpreting it is left as it is (plain text, pixels, JSON). HTML goes into
a frame that may run no script, load nothing and lead nowhere; SVG becomes a picture. The rest is named.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from typing import Any

Content = dict[str, Any]

PLAIN, HTML, SVG = "text/plain", "text/html", "image/svg+xml"
SOURCES = ("text/markdown", "text/latex")
"""Texts that can hold HTML or links; shown as they are written."""
PIXELS = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
JSON = "application/json"
COMMS = ("comm_open", "comm_msg", "comm_close")
DISPLAYS = ("display_data", "update_display_data", "execute_result")

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Of the frame's page: nothing is fetched, so nobody learns that it was looked at, and no service of the
person's network is called."""
MIN_HEIGHT, MAX_HEIGHT, ROW_HEIGHT = 40, 500, 24
_ROWS = re.compile(r"<(?:tr|br|p|div|li|h[1-6]|pre|hr)\b|\n", re.IGNORECASE)
_HEIGHT = re.compile(r"\bheight\s*[:=]\s*[\"']?(\d{1,5})", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*\Z")
_NAME = re.compile(r"[\w.+/-]{1,60}\Z", re.ASCII)


def isolated_message(type: str, content: Content) -> Content | None:
    """The content to publish for a well-formed message; ``None`` for one that is not to be published.

    Widgets live from messages to scripts in the page, so comms are not passed on.
    """
    if type in COMMS:
        return None
    if type not in DISPLAYS:
        return content
    data = isolated_bundle(content["data"])
    return {**content, "data": data, "metadata": _sizes(content["metadata"], data)}


def isolated_bundle(data: Content) -> Content:
    """The forms of a display that are harmless. There is always a plain one, which says what was left out."""
    kept: Content = {mime: data[mime] for mime in PIXELS if _is_base64(data.get(mime))}
    if JSON in data:
        kept[JSON] = data[JSON]
    page, drawing = _text(data.get(HTML)), _text(data.get(SVG))
    if page:
        kept[HTML] = framed(page)
    elif drawing:
        kept[HTML] = picture(drawing)
    sources = [text for mime in SOURCES if (text := _text(data.get(mime)))]
    plain = _text(data.get(PLAIN)) or "\n".join(sources)
    used = {*kept, PLAIN, SVG, *(SOURCES if sources else ())}
    left_out = [mime for mime in data if mime not in used]
    if left_out and not kept:
        plain = "\n".join(part for part in (plain, _note(left_out)) if part)
    return {**kept, PLAIN: plain}


def isolated_reply(reply: Content) -> Content:
    """An ``execute_reply`` whose pages and expressions are harmless."""
    expressions = reply.get("user_expressions")
    payload = reply.get("payload")
    safe = dict(reply)
    if isinstance(expressions, dict):
        safe["user_expressions"] = {name: isolated_answer(item) for name, item in expressions.items()}
    if isinstance(payload, list):
        safe["payload"] = [isolated_answer(item) for item in payload]
    return safe


def isolated_answer(item: Any) -> Any:
    """Something with a bundle in ``data``, such as an ``inspect_reply``: with its plain text only."""
    if not isinstance(item, dict) or "data" not in item:
        return item
    data = item["data"]
    return {**item, "data": {PLAIN: _text(data.get(PLAIN))} if isinstance(data, dict) else {}}


def framed(page: str) -> str:
    """HTML in a frame: without scripts, forms, downloads, links out of it, and without an origin.

    Its height is a guess; a person can drag its corner. To learn the height from the frame would take a
    script in it.
    """
    whole = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>body{{margin:0;font:13px/1.4 sans-serif}}</style>{page}"
    )
    style = f"width:100%;height:{_height(page)}px;border:0;background:#fff;resize:vertical;overflow:auto"
    about = f'sandbox="" referrerpolicy="no-referrer" style="{style}"'
    return f'<iframe {about} srcdoc="{html.escape(whole)}"></iframe>'


def picture(drawing: str) -> str:
    """SVG as an image, in which browsers run no script and load nothing."""
    data = b64encode(drawing.encode("utf-8", "replace")).decode("ascii")
    return f'<img alt="SVG" src="data:image/svg+xml;base64,{data}">'


def _height(page: str) -> int:
    rows = sum(1 for _ in _ROWS.finditer(page, 0, 100_000))
    said = max((int(match[1]) for match in _HEIGHT.finditer(page, 0, 100_000)), default=0)
    return max(MIN_HEIGHT, min(MAX_HEIGHT, max(said, rows * ROW_HEIGHT) + ROW_HEIGHT))


def _sizes(metadata: Content, data: Content) -> Content:
    """Of the metadata only the sizes of pictures: front ends take instructions from it, too."""
    found: Content = {}
    for mime in PIXELS:
        about = metadata.get(mime)
        if mime in data and isinstance(about, dict):
            sizes = {
                name: about[name] for name in ("width", "height") if isinstance(about.get(name), (int, float))
            }
            if sizes:
                found[mime] = sizes
    return found


def _note(left_out: list[str]) -> str:
    names = sorted({mime if _NAME.match(mime) else "unnamed" for mime in left_out})
    more = ", ..." if len(names) > 5 else ""
    return f"[daytona-kernel: left out, since output_trust is isolated: {', '.join(names[:5])}{more}]"


def _text(value: Any) -> str:
    """A text as notebooks have it: in one piece, or as a list of lines."""
    if isinstance(value, list):
        return "".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


def _is_base64(value: Any) -> bool:
    return isinstance(value, str) and _BASE64.match(value) is not None
