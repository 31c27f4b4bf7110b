"""Defences taken away one at a time, to see the tests of the threat table fail without them.

``python -m tests.security.mutants`` makes a private copy of the package with an environment of its own, sees
the tests pass there, and then, for each :class:`~.model.Mutant`, fail with the defence gone: by an assertion,
not because nothing works any more. Options choose some (``--only``), list them (``--list``), and say how many
run at once (``--jobs``). ``tests/security/test_mutants.py`` keeps them in step with the table and the code.
"""
