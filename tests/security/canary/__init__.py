"""Canaries over the whole suite: every secret is recognisable, and all that was written is searched for them.

``.ci/run`` does it with its ordinary run of the tests:

1. ``python -m tests.security.canary install FINDINGS ROOT`` has every Python of this environment begin with
   :mod:`.hook`: from then on what the product makes as a key or token has a mark in it (:mod:`.marks`), and
   files below ROOT are searched just before they go. ``python -m tests.security.canary environment`` prints a
   person's keys of other services, marked as well, for the run's environment.
2. ``pytest -p tests.security.canary.plugin`` looks at the words and environments of all processes as it runs.
3. ``python -m tests.security.canary search FINDINGS ROOT...`` searches what is left, and tells what was found
   meanwhile. Only what :mod:`.allowed` names may have a mark.
"""
