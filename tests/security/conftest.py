"""What the tests of the kernel have: places of their own."""

from __future__ import annotations

from tests.kernel.conftest import make_place

__all__ = ["make_place"]
