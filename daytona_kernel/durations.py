"""Durations as people write them (``90``, ``45s``, ``1h30m``, ``7d``), and back. Pure, stdlib only."""

from __future__ import annotations

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the length of *text* in seconds.

    A bare number is a number of seconds; otherwise one or more parts with a unit each: ``s``, ``m``, ``h``
    or ``d``, in any order (``1h30m``). Zero is allowed; what it means is the
    caller's business.

    Raises :exc:`ValueError` with a sentence for the user when *text* is none of these.
    """
    cleaned = text.strip().lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", cleaned, re.ASCII):
        return float(cleaned)
    parts = _PART.findall(cleaned)
    if not parts or _PART.sub("", cleaned).strip():
        raise ValueError(f"{text!r} is not a duration: write seconds (90) or units (45s, 30m, 1h30m, 7d)")
    units = [unit for _, unit in parts]
    if len(set(units)) != len(units):
        raise ValueError(f"{text!r} names a unit twice")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return *seconds* for a human eye: ``0.4s``, ``12s``, ``3m05s``, ``2h07m``, ``3d04h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    if total < 86400:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 86400}d{total % 86400 // 3600:02d}h"
