"""daytona-kernel: notebook cells that run in a Daytona sandbox.

Importing this package imports nothing heavy. What is where, and who may use whom (a test pins the arrows)::

    wire                 frames <-> text, pure; the one module that both sides share
    agent/               inside the sandbox: IPython shell, streams, interrupts, comms, spool
    payload              what is sent there: the agent's sources, IPython where it is missing
    toolbox              contexts, commands and small files of one sandbox over HTTP
    execution, channel,  one request and its WebSocket: sent, read, lost, got back; served exactly once
    link
    sandbox, config,     find, create, start, keep alive, end a sandbox; its few calls to the service, and its
    controlplane,        errors in our words (translation); which service that is (service). The SDK itself is
    service              imported for %daytona only
    context, lookback    a context with an agent in it: made, or found as an earlier kernel left it
    workplace            one notebook's sandbox and context, on a thread of its own (loopthread)
    session              its requests, one after the other there (running, messages, usage, beside)
    kernel, sink         Jupyter's messages <-> session; no network code
    cellsplit, magics/,  %daytona, in the kernel and in plain IPython (extension); transfer, remote: files
    extension
    cli, runner, ...     jupyter daytona run | local | sandboxes | install | doctor
    local/               the embedded sandbox server; imports nothing of the rest: it stands for Daytona's

Arrows: ``wire -> link -> session -> (kernel, extension, cli)``; ``magics`` use ``session`` and ``sandbox``.

What holds throughout: a cell whose bytes may have reached the sandbox is never sent again without its id,
which the agent serves once; every line of output is numbered and recorded until it has arrived; nothing that
comes from the sandbox makes this side act, only the text of a cell does; errors of the sandbox are never
shown as errors of the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext daytona_kernel``: add ``%daytona`` to an IPython shell."""
    from .extension import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """``%unload_ext daytona_kernel``: take it away and end the sandbox's session."""
    from .extension import unload

    unload(ipython)
