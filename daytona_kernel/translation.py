"""What the service, the SDK and the transport raise, as errors of our own tree with the cause kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from .config import DaytonaSettings
from .controlplane import retry_after
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    CredentialsError,
    DaytonaKernelError,
    SandboxCreationFailed,
    SandboxError,
)

_PAGE = re.compile(r"<(!doctype\s+html|html)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})</title", re.IGNORECASE)


def status_of(exc: BaseException) -> int | None:
    """HTTP status of an error of the SDK or of the control plane; ``None`` if there was no answer."""
    status = getattr(exc, "status_code", None) or getattr(exc, "status", None)
    return status if isinstance(status, int) else None


class Translated:
    """Turns the SDK's and the transport's errors into ours, in one place, with the cause kept."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: Any, exc: BaseException | None, _traceback: Any) -> None:
        if exc is None or isinstance(exc, DaytonaKernelError) or not isinstance(exc, Exception):
            return
        raise translate(exc) from exc


def translate(exc: Exception) -> DaytonaKernelError:
    """Our error for one of the SDK's: by HTTP status, or by what caused it where there was no answer."""
    status = status_of(exc)
    text = one_line(exc)
    if status == 401 or is_a(exc, "DaytonaAuthenticationError"):
        return CredentialsError(f"Daytona refused the credentials ({text}).")
    if status == 403:
        return CredentialsError(
            f"These credentials do not allow that ({text}).",
            hint="Check the key's permissions and the organization's limits.",
        )
    if status == 429:
        wait_s = _patience_of(exc)
        pause = "a little" if wait_s is None else f"{math.ceil(wait_s)} s"
        return SandboxError(
            f"Daytona asks for patience ({text}).", hint=f"Wait {pause} and run the cell again."
        )
    if status is not None:
        return SandboxError(
            sentence(f"Daytona answered {status}: {text}"),
            hint="Run the cell again; if it stays, see the service's status.",
        )
    if "Cannot combine AUTHORIZATION" in text:  # aiohttp's, for a password that it found in ~/.netrc
        return ConfigurationError(
            "~/.netrc has an entry for Daytona's host, or a default one, which the SDK can not do with.",
            hint="Remove it, or set NETRC=/dev/null where Jupyter is started.",
        )
    if is_a(exc, "InvalidURL"):
        return ConfigurationError(
            f"The API URL is not a URL ({text}).", hint="DAYTONA_API_URL looks like https://host/api."
        )
    if is_a(exc, "DaytonaConnectionError", "ClientError", "OSError", "TimeoutError"):
        return ConnectionFailed(f"Daytona could not be reached ({text}).")
    if is_a(exc, "DaytonaBadRequestError", "DaytonaUnprocessableEntityError"):
        return ConfigurationError(sentence(f"Daytona's SDK refuses that: {text}"))
    return SandboxError(sentence(f"Daytona's SDK failed: {text}"), hint="Run the cell again.")


def creation_error(exc: Exception, settings: DaytonaSettings) -> DaytonaKernelError:
    """Our error for a sandbox that could not be made."""
    status, text = status_of(exc), one_line(exc)
    if status == 408 or (status is None and is_a(exc, "TimeoutError")):
        return SandboxCreationFailed(
            f"The sandbox was not ready within {settings.create_timeout or 0:g} s.",
            hint="Run the cell again, or raise create_timeout (DAYTONA_KERNEL_CREATE_TIMEOUT).",
        )
    if status in (400, 404) and settings.snapshot:
        return SandboxCreationFailed(
            sentence(f"No sandbox could be made from the snapshot {settings.snapshot!r}: {text}"),
            hint="Check the snapshot's name and state.",
        )
    if status == 400:
        return ConfigurationError(f"Daytona refused to make the sandbox: {text}")
    error = translate(exc)
    if type(error) is SandboxError and status != 429:
        return SandboxCreationFailed(
            sentence(f"The sandbox could not be made: {text}"), hint="Run the cell again."
        )
    return error


def _patience_of(exc: Exception) -> float | None:
    """Seconds that a refusal asks to wait; ``None`` if it does not say. The SDK's errors have the headers."""
    told = getattr(exc, "retry_after_s", None)
    headers = getattr(exc, "headers", None)
    if told is None and isinstance(headers, Mapping):
        told = retry_after(headers)
    return told if isinstance(told, float) else None


def is_a(exc: BaseException, *names: str) -> bool:
    """Whether ``exc``, or what caused it, is of a class so named: the SDK wraps what it meets."""
    seen: BaseException | None = exc
    while seen is not None:
        if any(cls.__name__ in names for cls in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


def one_line(exc: BaseException) -> str:
    """The message of an exception as one line, at most 400 characters.

    Of an error that the SDK passes on as its HTTP client raised it (``code_run``, secrets, warm pools), the
    message in the answer: its own text is a dump of headers.
    """
    text = str(getattr(exc, "message", "") or _answered(exc) or exc)
    text = " ".join(without_page(text).split()) or type(exc).__name__
    return text if len(text) <= 400 else text[:400] + "…"


def sentence(text: str) -> str:
    """With a full stop at its end: a hint follows."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def without_page(text: str) -> str:
    """A message without the web page in it, as proxies send them: of that, the title."""
    page = _PAGE.search(text)
    if page is None:
        return text
    title = _TITLE.search(text, page.start())
    return text[: page.start()] + (title[1] if title else "a web page")


def _answered(exc: BaseException) -> str:
    body = getattr(exc, "body", None)
    if not isinstance(body, (str, bytes)) or not hasattr(exc, "reason"):
        return ""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    message = content.get("message") or content.get("error") if isinstance(content, dict) else ""
    return str(message or exc.reason or "")
