"""Modules of ipykernel that libraries ask for, to see whether they are in a notebook.

tqdm looks for ``ipykernel.zmqshell`` among the loaded modules, others for ``IPKernelApp.initialized()``,
``ipykernel.comm.Comm`` or, like loguru, for ``ipykernel.iostream.OutStream``. The real ones, if the sandbox
has them at all, would know of no kernel here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from contextlib import suppress
from importlib.machinery import ModuleSpec
from typing import Any

from traitlets import Unicode
from traitlets.config import SingletonConfigurable

from .streams import OutStream

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
    IPKernelApp.__module__ = "ipykernel.kernelapp"
    app = IPKernelApp.instance()
    app.kernel, app.shell = kernel, shell
    publisher = type(shell.display_pub)
    old_comm = _old_comm(comm_class)
    package = _package()
    _module("ipykernel.zmqshell", ZMQInteractiveShell=type(shell), ZMQDisplayPublisher=publisher)
    _module("ipykernel.kernelapp", IPKernelApp=IPKernelApp)
    _module("ipykernel.ipkernel", IPythonKernel=type(kernel), Kernel=type(kernel))
    _module("ipykernel.iostream", OutStream=OutStream)
    _module("ipykernel.comm", Comm=old_comm, CommManager=manager_class, __path__=[])
    _module("ipykernel.comm.comm", Comm=old_comm, BaseComm=comm_class)
    _module("ipykernel.comm.manager", CommManager=manager_class)
    package.__getattr__ = _from_the_real_one  # type: ignore[method-assign]
    return app


def _package() -> types.ModuleType:
    """``ipykernel`` itself. Importing the real one takes long; what is here of it is imported on demand."""
    real = importlib.util.find_spec("ipykernel")
    if real is None:
        return _module("ipykernel", __version__="7.0.0", version_info=(7, 0, 0), __path__=[])
    return _module("ipykernel", __path__=real.submodule_search_locations, __spec__=real, __file__=real.origin)


def _from_the_real_one(name: str) -> Any:
    """What ``ipykernel/__init__.py`` imports from its modules."""
    for module in ("_version", "connect"):
        with suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(f"ipykernel.{module}"), name)
    raise AttributeError(f"module 'ipykernel' has no attribute {name!r}")


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
    # Without one, importlib.util.find_spec() fails for a module that is there.
    module.__spec__ = ModuleSpec(name, None, is_package="__path__" in content)
    module.__dict__.update(content)
    sys.modules[name] = module
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
    return module
