"""Bytes at random against what reads text from elsewhere: outside of the test suite, for a time of its own.

``python -m tests.fuzz --seconds 20`` runs each target for so long, in a process each, and prints its seed.
``--seed`` repeats a run. With ``atheris`` (the extra ``fuzz``) the bytes follow the branches that the code
takes; without it they are good inputs, cut, joined and changed. ``python -m tests.fuzz.server`` does the same
to the local sandbox server with ``schemathesis``.
"""
