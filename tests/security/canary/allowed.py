"""Where a mark may be. Everything else is a finding."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .marks import KEY, KINDS, PLANTED, TOKEN, UNKNOWN
from .search import Finding

ANY = "".join(KINDS) + UNKNOWN


@dataclass(frozen=True)
class Allowed:
    """A place that is there to hold a secret, or a test that puts one somewhere."""

    path: str
    """Regular expression for the end of the path."""
    kinds: str
    why: str
    private: bool = True
    """Whether the place must be its owner's alone."""

    def covers(self, finding: Finding) -> bool:
        """Whether this finding is as it should be."""
        fits = re.search(f"(?:{self.path})$", finding.path) is not None
        return fits and finding.kind in self.kinds and (finding.private or not self.private)


# A server that is killed while it writes leaves the file under its other name.
PLACES = (
    Allowed(
        r"/server\.(json|tmp)", KEY, "the local server's runtime file, by which its owner's clients find it"
    ),
    Allowed(r"/sandboxes/[\w-]+/sandbox\.(json|tmp)", TOKEN, "a sandbox's record, with its tokens"),
    Allowed(r"/sandboxes/[\w-]+/.*", PLANTED, "what a test gave to a sandbox is in it"),
    Allowed(r"/\.env\.sandbox", PLANTED, "a test's own file of variables", private=False),
    Allowed(r"/\.Xauthority", UNKNOWN, "the cookie of a sandbox's display"),
    Allowed(
        r"/browser\d+/profile/.*", TOKEN, "a person's browser remembers the preview links that it has opened"
    ),
    Allowed(r"/planted\d+/.*", ANY, "test_canary_search.py plants them", private=False),
    Allowed(r"process .*planted.*", ANY, "test_canary_search.py starts them", private=False),
)


def allowed(finding: Finding) -> bool:
    """Whether a place of the table covers it."""
    return any(place.covers(finding) for place in PLACES)
