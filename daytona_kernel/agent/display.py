"""Display hook and display publisher: IPython's own, with frames as their wire."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from traitlets import Bool

from .outbox import Outbox

Message = dict[str, Any]
Hook = Callable[[Message], Message | None]


class _Parents:
    """Where output belongs: one answer for all, whichever of ipykernel's places it is said at."""

    outbox: Outbox

    @property
    def parent_header(self) -> Message:
        """The header of the request that the caller's output belongs to."""
        message = self.outbox.parents.get()
        header: Message = message.get("header", message)
        return header

    @parent_header.setter
    def parent_header(self, value: Message) -> None:
        self.outbox.parents.set(value)

    def set_parent(self, parent: Message) -> None:
        """Say which request output belongs to."""
        self.outbox.parents.set(parent)

    def set_thread_parent(self, parent: Message) -> Any:
        """Say it for this thread only; the result undoes it with :meth:`reset_thread_parent`."""
        return self.outbox.parents.set_here(parent)

    def reset_thread_parent(self, token: Any) -> None:
        """Undo :meth:`set_thread_parent`."""
        self.outbox.parents.reset_here(token)


class _Hooks(threading.local):
    """Per-thread transformations of outgoing messages, as ipykernel offers them to libraries."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []

    def apply(self, message: Message) -> Message | None:
        """The message after all hooks, ``None`` if one of them has used it up."""
        for hook in self.hooks:
            changed = hook(message)
            if changed is None:
                return None
            message = changed
        return message

    def remove(self, hook: Hook) -> bool:
        """Forget ``hook``; ``False`` if it was not there."""
        if hook not in self.hooks:
            return False
        self.hooks.remove(hook)
        return True


class ZMQShellDisplayHook(_Parents, DisplayHook):
    """Publishes the value of a cell's expression as ``execute_result``."""

    outbox: Outbox
    topic = None
    session = None
    msg: Message | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frame_hooks = _Hooks()

    def register_hook(self, hook: Hook) -> None:
        """Have ``hook`` change, or swallow, this thread's results."""
        self._frame_hooks.hooks.append(hook)

    def unregister_hook(self, hook: Hook) -> bool:
        """Undo :meth:`register_hook`."""
        return self._frame_hooks.remove(hook)

    def start_displayhook(self) -> None:
        """Begin a result."""
        self.msg = {"msg_type": "execute_result", "content": {"data": {}, "metadata": {}}}

    def write_output_prompt(self) -> None:
        """Number the result."""
        if self.msg:
            self.msg["content"]["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: Message, md_dict: Message | None = None) -> None:
        """Fill the result."""
        if self.msg:
            self.msg["content"]["data"] = format_dict
            self.msg["content"]["metadata"] = md_dict

    def finish_displayhook(self) -> None:
        """Send the result."""
        message, self.msg = self.msg, None
        if message and message["content"]["data"]:
            message = self._frame_hooks.apply(message)
            if message is not None:
                self.outbox.post("execute_result", message["content"])


class ZMQDisplayPublisher(_Parents, DisplayPublisher):
    """Publishes ``display()`` as ``display_data`` and ``update_display_data``."""

    store_display_history = Bool(False, help="Keep displays in the history's outputs, too.").tag(config=True)

    outbox: Outbox
    topic = None
    session = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frame_hooks = _Hooks()

    def register_hook(self, hook: Hook) -> None:
        """Have ``hook`` change, or swallow, this thread's messages."""
        self._frame_hooks.hooks.append(hook)

    def unregister_hook(self, hook: Hook) -> bool:
        """Undo :meth:`register_hook`."""
        return self._frame_hooks.remove(hook)

    def publish(
        self,
        data: Message,
        metadata: Message | None = None,
        *,
        transient: Message | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        """Send a mime bundle."""
        metadata = metadata or {}
        if self.store_display_history:
            self._store(data)
        self._validate_data(data, metadata)
        content = {"data": data, "metadata": metadata, "transient": transient or {}}
        self._send("update_display_data" if update else "display_data", content)

    def _store(self, data: Message) -> None:
        from IPython.core.history import HistoryOutput

        number = self.shell.execution_count - (1 if getattr(self, "_in_post_execute", False) else 0)
        outputs = self.shell.history_manager.outputs
        outputs.setdefault(number, []).append(HistoryOutput(output_type="display_data", bundle=data))

    def clear_output(self, wait: bool = False) -> None:
        """Have the front end empty the cell's output, with ``wait`` when the next output comes."""
        self._send("clear_output", {"wait": wait})

    def _send(self, type: str, content: Message) -> None:
        message = self._frame_hooks.apply({"msg_type": type, "content": content})
        if message is not None:
            self.outbox.post(message["msg_type"], message["content"])


# Libraries look at the names of these classes; they are ipykernel's.
ZMQShellDisplayHook.__module__ = "ipykernel.displayhook"
ZMQDisplayPublisher.__module__ = "ipykernel.zmqshell"
