"""The Jupyter messaging specification (protocol 5.4) for what a kernel sends: required keys and types.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from .driver import Exchange, Message

TEXT, NUMBER, FLAG, OBJECT, LIST = str, int, bool, dict, list

#: Content by message type: key -> type; a trailing `?` makes the key optional.
CONTENT: dict[str, dict[str, type]] = {
    "stream": {"name": TEXT, "text": TEXT},
    "display_data": {"data": OBJECT, "metadata": OBJECT, "transient?": OBJECT},
    "update_display_data": {"data": OBJECT, "metadata": OBJECT, "transient": OBJECT},
    "execute_result": {"execution_count": NUMBER, "data": OBJECT, "metadata": OBJECT, "transient?": OBJECT},
    "execute_input": {"code": TEXT, "execution_count": NUMBER},
    "error": {"ename": TEXT, "evalue": TEXT, "traceback": LIST},
    "status": {"execution_state": TEXT},
    "clear_output": {"wait": FLAG},
    "debug_event": {"type": TEXT},
    "comm_open": {"comm_id": TEXT, "target_name": TEXT, "data": OBJECT},
    "comm_msg": {"comm_id": TEXT, "data": OBJECT},
    "comm_close": {"comm_id": TEXT, "data": OBJECT},
    "shutdown_reply": {"restart": FLAG},
    "interrupt_reply": {},
    "input_request": {"prompt": TEXT, "password": FLAG},
    "execute_reply": {"execution_count": NUMBER, "user_expressions?": OBJECT, "payload?": LIST},
    "inspect_reply": {"found": FLAG, "data": OBJECT, "metadata": OBJECT},
    "complete_reply": {
        "matches": LIST,
        "cursor_start": NUMBER,
        "cursor_end": NUMBER,
        "metadata": OBJECT,
    },
    "history_reply": {"history": LIST},
    "is_complete_reply": {"status": TEXT, "indent?": TEXT},
    "comm_info_reply": {"comms": OBJECT},
    "connect_reply": {},
    "kernel_info_reply": {
        "protocol_version": TEXT,
        "implementation": TEXT,
        "implementation_version": TEXT,
        "language_info": OBJECT,
        "banner": TEXT,
        "debugger?": FLAG,
        "supported_features?": LIST,
        "help_links?": LIST,
    },
    "debug_reply": {},
    "usage_reply": {},
    "create_subshell_reply": {},
    "delete_subshell_reply": {},
    "list_subshell_reply": {},
}

STATES = {"busy", "idle", "starting"}
NO_STATUS = {"is_complete_reply", "connect_reply", "debug_reply", "usage_reply"}
MIME = re.compile(r"^[\w.+-]+/[\w.+-]+(;.*)?$")


def faults(message: Message) -> list[str]:
    """What is wrong with a message, as sentences; empty when it is right."""
    kind = message["msg_type"]
    found = [f"{kind}: {fault}" for fault in _envelope_faults(message)]
    content = message["content"]
    if kind not in CONTENT:
        return [*found, f"{kind}: a message type that the specification does not have"]
    if kind.endswith("_reply") and kind not in NO_STATUS:
        status = content.get("status")
        if status not in ("ok", "error", "aborted"):
            found.append(f"{kind}: status {status!r}")
        if status == "error":
            return found + _key_faults(kind, content, CONTENT["error"])
        if status == "aborted":
            return found
    found += _key_faults(kind, content, CONTENT[kind])
    found += _special_faults(kind, content)
    return found


def _envelope_faults(message: Message) -> list[str]:
    parts = ("header", "parent_header", "metadata", "content")
    found = [f"no {part}" for part in parts if not isinstance(message.get(part), dict)]
    header = message["header"]
    keys = ("msg_id", "session", "username", "msg_type", "version")
    found += [f"header.{key} is {header.get(key)!r}" for key in keys if not isinstance(header.get(key), str)]
    if not isinstance(header.get("date"), datetime):
        found.append(f"header.date is {header.get('date')!r}")
    elif header["date"].tzinfo is None:
        found.append("header.date has no time zone")
    if not str(header.get("version", "")).startswith("5."):
        found.append(f"version {header.get('version')!r}")
    try:
        json.dumps(message["content"], allow_nan=False)
    except ValueError as error:
        found.append(f"content is not JSON: {error}")
    return found


def _key_faults(kind: str, content: Message, keys: dict[str, type]) -> list[str]:
    found = []
    for key, wanted in keys.items():
        name = key.rstrip("?")
        if name not in content:
            if not key.endswith("?"):
                found.append(f"{kind}: no {name}")
            continue
        value = content[name]
        # bool is an int in Python, but not in JSON.
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            found.append(f"{kind}: {name} is {value!r}, not {wanted.__name__}")
    return found


def _special_faults(kind: str, content: Message) -> list[str]:
    found = []
    if kind == "stream" and content.get("name") not in ("stdout", "stderr"):
        found.append(f"stream: name {content.get('name')!r}")
    if kind == "stream" and not content.get("text"):
        found.append("stream: empty text")
    if kind == "status" and content.get("execution_state") not in STATES:
        found.append(f"status: {content.get('execution_state')!r}")
    if kind in ("display_data", "update_display_data", "execute_result"):
        found += [f"{kind}: mime type {mime!r}" for mime in content.get("data", {}) if not MIME.match(mime)]
    if kind == "update_display_data" and "display_id" not in content.get("transient", {}):
        found.append("update_display_data: no display_id")
    if kind == "error":
        found += _text_faults(kind, content.get("traceback", []))
    if kind == "complete_reply":
        found += _text_faults(kind, content.get("matches", []))
    if kind == "kernel_info_reply":
        info: dict[str, type] = {"name": TEXT, "version": TEXT, "mimetype": TEXT, "file_extension": TEXT}
        found += _key_faults("language_info", content.get("language_info", {}), info)
    return found


def _text_faults(kind: str, values: list[Any]) -> list[str]:
    return [f"{kind}: {value!r} is no text" for value in values if not isinstance(value, str)]


def faults_of_exchange(exchange: Exchange) -> list[str]:
    """What is wrong with all the messages of one request: each message, their order and their parents."""
    messages = [*exchange.iopub, *exchange.stdin, *exchange.replies]
    found = [fault for message in messages for fault in faults(message)]
    states = exchange.states()
    if states != ["busy", "idle"]:
        found.append(f"states of {exchange.msg_type}: {states}")
    if exchange.iopub and exchange.iopub[0]["msg_type"] != "status":
        found.append(f"{exchange.iopub[0]['msg_type']} before busy")
    if exchange.wants_reply and len(exchange.replies) != 1:
        found.append(f"{len(exchange.replies)} replies")
    for message in messages:
        parent = message["parent_header"]
        if parent.get("msg_id") != exchange.msg_id or parent.get("msg_type") != exchange.msg_type:
            found.append(f"{message['msg_type']}: parent {parent}")
    for reply in exchange.replies:
        expected = exchange.msg_type.replace("_request", "_reply")
        if reply["msg_type"] != expected or reply["channel"] != exchange.channel:
            found.append(f"{reply['msg_type']} on {reply['channel']} as the answer to {exchange.msg_type}")
    return found
