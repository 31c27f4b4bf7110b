"""Whether a cell is complete, without a sandbox."""

from __future__ import annotations

from typing import Any


def completeness(code: str) -> dict[str, Any]:
    """The content of an ``is_complete_reply``, by this side's IPython. Nothing of ``code`` is run."""
    from IPython.core.inputtransformer2 import TransformerManager

    status, indent = TransformerManager().check_complete(code)
    reply: dict[str, Any] = {"status": status}
    if status == "incomplete":
        reply["indent"] = " " * (indent or 0)
    return reply
