"""Conformance: the same requests to the local `python3` kernel and to the kernel under test, compared."""
