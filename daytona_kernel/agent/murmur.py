"""MurmurHash2, 32 bit: ipykernel names the code of a cell by it, and the name shows in error messages."""

from __future__ import annotations

_M, _MASK = 0x5BD1E995, 0xFFFFFFFF


def murmur2(data: bytes, seed: int) -> int:
    """MurmurHash2 of ``data`` by Austin Appleby's published definition, as an unsigned 32-bit number."""
    value = seed ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        value = (value * _M & _MASK) ^ k
    if tail := data[whole:]:
        value = (value ^ int.from_bytes(tail, "little")) * _M & _MASK
    value = (value ^ (value >> 13)) * _M & _MASK
    return value ^ (value >> 15)
