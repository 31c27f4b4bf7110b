"""Modules of ipykernel that libraries ask for, to see whether they are in a notebook.

tqdm looks for ``ipykernel.zmqshell`` among the loaded modules, others for ``IPKernelApp.initialized()`` or
``ipykernel.comm.Comm``. The real ones, if the sandbox has them at all, would know of no kernel here.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from traitlets import Unicode
from traitlets.config import SingletonConfigurable


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
    _module("ipykernel.comm", Comm=comm_class, CommManager=manager_class)
    return app


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module
