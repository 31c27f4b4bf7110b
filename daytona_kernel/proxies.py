"""Which HTTP proxy leads to an address, by the environment of this machine.

Asked here and not left to the HTTP client: aiohttp reads ``~/.netrc`` along with the proxies, and refuses
every call with a key of its own as soon as that file has a ``default`` entry, or one for the host (3.14.5).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from .errors import ConfigurationError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
USABLE = ("http", "https")


def proxy_for(url: str) -> str | None:
    """The proxy for this URL, with the name and password that its address may hold; ``None`` without one.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` count, as everywhere; loopback is always direct. Raises
    :class:`ConfigurationError` for a proxy that HTTP clients can not use, such as SOCKS.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if parts.hostname is None or parts.hostname in LOOPBACK:
        return None
    found = getproxies().get({"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme))
    if not found or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    address = found if "://" in found else f"http://{found}"
    scheme = urlsplit(address).scheme.lower()
    if scheme not in USABLE or not urlsplit(address).hostname:
        raise ConfigurationError(
            f"The proxy that the environment names for {parts.hostname} is no HTTP proxy ({scheme}).",
            hint=f"Set {parts.scheme.replace('ws', 'http').upper()}_PROXY to one like http://host:3128, "
            f"or NO_PROXY to {parts.hostname}.",
        )
    return address
