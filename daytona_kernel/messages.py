"""What may be published of what the sandbox sends. Pure: a message in, a well-formed message or nothing out.

The code in the sandbox can reach the agent and forge any frame. So a frame only ever becomes one of
Jupyter's output messages, with the fields that the messaging specification (5.4) gives it and values of
their types; front ends and notebook files never see anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeGuard

Content = dict[str, Any]

STREAMS = ("stdout", "stderr")
MAX_COUNT = 2**31
"""Execution counts beyond this, or below 0, would make the notebook's file invalid."""
COMM_FIELDS = ("comm_id", "data", "target_name", "target_module")
"""No others: programs that run notebooks take an ``execution_count`` from whatever has one."""
PAYLOADS = ("page", "set_next_input", "ask_exit")
"""What a cell may ask of the front end. ``edit_magic`` is left out: it opens a file of the user's machine."""


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
    """A JSON value with clean texts and numbers."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # as ipykernel has it; no JSON has it as a number
    return value


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it can be the number of a cell."""
    return type(value) is int and 0 <= value < MAX_COUNT


def well_formed_reply(reply: Content, count: int) -> Content:
    """The content of an ``execute_reply`` for what the sandbox answered, as clean as it is to be sent.

    ``count``: the number of the cell, if the answer has none. Of several payloads of one kind the last is
    kept, as IPython does.
    """
    ok = reply.get("status") == "ok"
    clean: Content = {"status": "ok" if ok else "error"}
    if not ok:
        error = _error(reply)
        clean.update(cleaned({"traceback": error["traceback"]}))
        clean.update(ename=clean_text(error["ename"]), evalue=clean_text(error["evalue"]))
    number = reply.get("execution_count")
    clean["execution_count"] = number if is_count(number) else count
    clean["user_expressions"] = cleaned(_dict(reply, "user_expressions"))
    payloads = reply.get("payload")
    asked = [item for item in payloads if isinstance(item, dict)] if isinstance(payloads, list) else []
    asked = [item for item in asked if item.get("source") in PAYLOADS]
    last = {item["source"]: item for item in asked}
    clean["payload"] = [cleaned(item) for item in asked if item is last[item["source"]]]
    return clean


def well_formed_answer(kind: str, answer: Content) -> Content | None:
    """The content to reply to a question with, or ``None`` if the sandbox's answer is no such reply."""
    fields = _ANSWERS.get(kind, {})
    for name, types in fields.items():
        if not isinstance(answer.get(name), types):
            return None
    return dict(cleaned(answer))


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
    return {"data": data, "metadata": _dict(content, "metadata"), "transient": _transient(content)}


def _result(content: Content) -> Content | None:
    data, count = content.get("data"), content.get("execution_count")
    if not isinstance(data, dict) or not is_count(count):
        return None
    result = {"data": data, "metadata": _dict(content, "metadata"), "execution_count": count}
    if content.get("transient"):  # libraries that update a result later give it a display_id
        result["transient"] = _transient(content)
    return result


def _transient(content: Content) -> Content:
    """Without a ``display_id`` that can be nobody's key: programs that run notebooks look it up."""
    transient = _dict(content, "transient")
    if isinstance(transient.get("display_id"), (list, dict)):
        return {name: value for name, value in transient.items() if name != "display_id"}
    return transient


def _error(content: Content) -> Content:
    traceback = content.get("traceback")
    lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
    return {"ename": str(content.get("ename")), "evalue": str(content.get("evalue")), "traceback": lines}


def _clear_output(content: Content) -> Content | None:
    return {"wait": bool(content.get("wait"))}


def _comm(content: Content) -> Content | None:
    if not isinstance(content.get("comm_id"), str):
        return None
    known = {name: content[name] for name in COMM_FIELDS if name in content}
    return {"data": {}, **known}


def _comm_open(content: Content) -> Content | None:
    return _comm(content) if isinstance(content.get("target_name"), str) else None


def _dict(content: Content, key: str) -> Content:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


_ANSWERS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "complete": {"matches": list, "cursor_start": int, "cursor_end": int},
    "inspect": {"found": bool, "data": dict},
    "history": {"history": list},
    "is_complete": {"status": str},
    "comm_info": {"comms": dict},
}
"""What the reply to a question must have, after Jupyter's messaging specification (5.4)."""

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
