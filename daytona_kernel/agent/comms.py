"""Comms (the channel of widgets): the ``comm`` package's own classes, with frames as their wire."""

from __future__ import annotations

import logging
from typing import Any

import comm
from comm.base_comm import BaseComm, CommManager

from .outbox import Outbox

log = logging.getLogger("ipykernel.comm")

_outbox: Outbox | None = None
_manager: CommManager | None = None


class FrameComm(BaseComm):
    """A comm whose messages go out as frames."""

    def publish_msg(
        self,
        msg_type: str,
        data: Any = None,
        metadata: Any = None,
        buffers: Any = None,
        **keys: Any,
    ) -> None:
        """Send ``comm_open``, ``comm_msg`` or ``comm_close``."""
        if _outbox is not None:
            content = {"data": data if data is not None else {}, "comm_id": self.comm_id, **keys}
            packed = tuple(bytes(memoryview(buffer).cast("B")) for buffer in buffers or ())
            _outbox.post(msg_type, content, metadata or {}, packed)


def install(outbox: Outbox) -> CommManager:
    """Make the ``comm`` package create our comms; return its manager. Called once per context."""
    global _outbox, _manager
    _outbox, _manager = outbox, CommManager()
    comm.create_comm = FrameComm
    comm.get_comm_manager = lambda: _manager
    return _manager


def handle(manager: CommManager, msg_type: str, message: dict[str, Any]) -> None:
    """Pass a front end's comm message on; its handlers' errors are logged, as ipykernel does."""
    try:
        getattr(manager, msg_type)(None, None, message)
    except Exception:
        log.exception("Exception in %s handler", msg_type)


def info(manager: CommManager, target_name: str | None) -> dict[str, Any]:
    """The content of a ``comm_info_reply``."""
    return {
        "comms": {
            comm_id: {"target_name": item.target_name}
            for comm_id, item in manager.comms.items()
            if target_name is None or item.target_name == target_name
        },
        "status": "ok",
    }
