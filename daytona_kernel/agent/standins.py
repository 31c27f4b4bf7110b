"""Modules of ipykernel that libraries ask for, to see whether they are in a notebook.

tqdm looks for ``ipykernel.zmqshell`` among the loaded modules, others for ``IPKernelApp.initialized()`` or
``ipykernel.comm.Comm``. The real ones, if the sandbox has them at all, would know of no kernel here.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from typing import Any

from traitlets import Unicode
from traitlets.config import SingletonConfigurable

DEPRECATED_COMM = (
    "The `ipykernel.comm.Comm` class has been deprecated. Please use the `comm` module instead."
    "For creating comms, use the function `from comm import create_comm`."
)
"""ipykernel's own words: notebooks show them."""


class IPKernelApp(SingletonConfigurable):
    """Stands for the application whose existence libraries test."""

    connection_file = Unicode(help="The connection file is on the machine of the kernel.").tag(config=True)
    kernel: Any = None
    shell: Any = None


def install(shell: Any, kernel: Any, comm_class: Any, manager_class: Any) -> IPKernelApp:
    """Put the modules in place."""
    if importlib.util.find_spec("ipykernel") is None:
        package = _module("ipykernel", __version__="7.0.0", version_info=(7, 0, 0))
        package.__path__ = []
    IPKernelApp.__module__ = "ipykernel.kernelapp"
    app = IPKernelApp.instance()
    app.kernel, app.shell = kernel, shell
    publisher = type(shell.display_pub)
    _module("ipykernel.zmqshell", ZMQInteractiveShell=type(shell), ZMQDisplayPublisher=publisher)
    _module("ipykernel.kernelapp", IPKernelApp=IPKernelApp)
    _module("ipykernel.comm", Comm=_old_comm(comm_class), CommManager=manager_class)
    return app


def _old_comm(comm_class: Any) -> type:
    """``ipykernel.comm.Comm``, which still works and says what to use instead."""

    class Comm(comm_class):
        """A comm, made the way that was usual before the ``comm`` package."""

        def __init__(
            self,
            target_name: str = "",
            data: Any = None,
            metadata: Any = None,
            buffers: Any = None,
            show_warning: bool = True,
            **keys: Any,
        ) -> None:
            if show_warning:
                warnings.warn(DEPRECATED_COMM, DeprecationWarning, stacklevel=2)
            if target_name:
                keys["target_name"] = target_name
            keys.pop("kernel", None)
            super().__init__(data=data, metadata=metadata, buffers=buffers, **keys)

    Comm.__module__, Comm.__qualname__ = "ipykernel.comm.comm", "Comm"
    return Comm


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module
