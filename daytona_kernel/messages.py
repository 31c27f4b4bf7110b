"""What may be published of what the sandbox sends. Pure: a message in, a well-formed message or nothing out.

The code in the sandbox can reach the agent and forge any frame. So a frame only ever becomes one of
Jupyter's output messages, with the fields that the messaging specification (5.4) gives it and values of
their types; front ends and notebook files never see anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Content = dict[str, Any]

STREAMS = ("stdout", "stderr")


def clean_text(text: str) -> str:
    """``text`` without lone surrogates, which no message can hold."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def cleaned(value: Any) -> Any:
    """A JSON value with clean texts."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value


def well_formed(type: str, content: Content) -> Content | None:
    """The content to publish for a frame, or ``None`` if it is no message that a cell may publish.

    Texts are as they came; whoever publishes them cleans them with :func:`cleaned`.
    """
    shape = _SHAPES.get(type)
    if shape is None:
        return None
    return shape(content)


def _stream(content: Content) -> Content | None:
    name, text = content.get("name"), content.get("text")
    return {"name": name, "text": text} if name in STREAMS and isinstance(text, str) else None


def _display(content: Content) -> Content | None:
    data = content.get("data")
    if not isinstance(data, dict):
        return None
    return {"data": data, "metadata": _dict(content, "metadata"), "transient": _dict(content, "transient")}


def _result(content: Content) -> Content | None:
    data, count = content.get("data"), content.get("execution_count")
    if not isinstance(data, dict) or type(count) is not int:
        return None
    result = {"data": data, "metadata": _dict(content, "metadata"), "execution_count": count}
    if content.get("transient"):  # libraries that update a result later give it a display_id
        result["transient"] = _dict(content, "transient")
    return result


def _error(content: Content) -> Content | None:
    traceback = content.get("traceback")
    lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
    return {"ename": str(content.get("ename")), "evalue": str(content.get("evalue")), "traceback": lines}


def _clear_output(content: Content) -> Content | None:
    return {"wait": bool(content.get("wait"))}


def _comm(content: Content) -> Content | None:
    if not isinstance(content.get("comm_id"), str):
        return None
    return {"data": {}, **content}


def _comm_open(content: Content) -> Content | None:
    return _comm(content) if isinstance(content.get("target_name"), str) else None


def _dict(content: Content, key: str) -> Content:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


_SHAPES: dict[str, Callable[[Content], Content | None]] = {
    "stream": _stream,
    "display_data": _display,
    "update_display_data": _display,
    "execute_result": _result,
    "error": _error,
    "clear_output": _clear_output,
    "comm_open": _comm_open,
    "comm_msg": _comm,
    "comm_close": _comm,
}
