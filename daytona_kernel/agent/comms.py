"""Comms (the channel of widgets): the ``comm`` package's own classes, with frames as their wire."""

from __future__ import annotations

import logging
from typing import Any

import comm
from comm.base_comm import BaseComm as PackageComm
from comm.base_comm import CommManager as PackageCommManager
from traitlets.config import LoggingConfigurable

from .outbox import Outbox

log = logging.getLogger("ipykernel.comm")

_outbox: Outbox | None = None
_manager: CommManager | None = None


class CommManager(PackageCommManager, LoggingConfigurable):
    """The comms of this context. Configurable, since ``%config`` lists it among the shell's parts."""

    def __init__(self, **kwargs: Any) -> None:
        PackageCommManager.__init__(self)
        LoggingConfigurable.__init__(self, **kwargs)


class BaseComm(PackageComm):
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
            _outbox.post(msg_type, content, metadata or {}, packed, flush=False)


BaseComm.__module__ = "ipykernel.comm.comm"


def install(outbox: Outbox) -> CommManager:
    """Make the ``comm`` package create our comms; return its manager. Called once per context."""
    global _outbox, _manager
    _outbox, _manager = outbox, CommManager()
    take_over()
    return _manager


def get_comm_manager() -> CommManager | None:
    """The manager of this context."""
    return _manager


def take_over() -> None:
    """Point the ``comm`` package here (again): importing a real ipykernel points it elsewhere."""
    comm.create_comm = BaseComm
    comm.get_comm_manager = get_comm_manager


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
