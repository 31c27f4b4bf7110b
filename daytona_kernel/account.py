"""Which settings a kernel has, for commands that work beside kernels: the same account, the same service."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import CREDENTIALS, DaytonaSettings, find_credential
from .errors import ConfigurationError

CONFIG_FILE = "daytona_kernel_config.py"


def user_settings(**given: Any) -> DaytonaSettings:
    """The settings of a kernel that starts here: the file in the IPython profile, then the environment.

    *given* comes before both. Raises :exc:`ConfigurationError` for a file that can not be used.
    """
    from traitlets import TraitError

    config = _profile_config()
    try:
        return DaytonaSettings(config=config, **given)
    except TraitError as exc:
        raise ConfigurationError(f"{config_file()} can not be used: {exc}") from exc


def kernel_settings(variables: Mapping[str, str], folder: Path, **given: Any) -> DaytonaSettings:
    """The settings of a kernel that is started with *variables*, and whose credentials are in *folder*.

    Raises :exc:`ConfigurationError` for a configuration file that can not be used.
    """
    with _environment(variables):
        settings = user_settings(**given)
        settings.env_folder = str(folder)
        for name in settings.trait_names(config=True):
            getattr(settings, name)  # read now: the variables are not there later
        settings.api_key = settings.api_key or settings.credential("DAYTONA_API_KEY")
        settings.api_url = settings.api_url or os.environ.get("DAYTONA_API_URL", "")
    return settings


def account_folder(folders: Iterable[Path]) -> Path | None:
    """The first of *folders* whose ``.env`` holds a credential; none is needed if the environment does."""
    keys = CREDENTIALS[:2]
    if any(os.environ.get(name) for name in keys):
        return None
    return next((one for one in folders if any(find_credential(name, str(one)) for name in keys)), None)


def account_variables(folder: Path) -> dict[str, str]:
    """The credentials of *folder* for a kernel that starts in another one."""
    found = {name: find_credential(name, str(folder)) for name in CREDENTIALS}
    return {name: value for name, value in found.items() if value}


def config_file() -> Path:
    """The file of settings that kernels read; it may not be there."""
    home = os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")
    return Path(home, "profile_default", CONFIG_FILE)


def _profile_config() -> Any:
    from traitlets.config.loader import Config, PyFileConfigLoader

    path = config_file()
    if not path.is_file():
        return Config()
    try:
        return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    except Exception as exc:  # it is a program, and may fail with anything
        raise ConfigurationError(f"{path} can not be used ({type(exc).__name__}: {exc}).") from exc


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Read settings as a kernel with these variables would."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
