"""What git prints, understood. Pure: no processes here.

Output is parsed from git's stable forms (``--porcelain=v2 -z`` and formats of our own), messages in the C
locale.
"""

from __future__ import annotations

import re
from typing import Any

from .errors import ToolboxError

_STATES = {
    ".": "Unmodified",
    "M": "Modified",
    "T": "Modified",
    "A": "Added",
    "D": "Deleted",
    "R": "Renamed",
    "C": "Copied",
    "U": "Updated but unmerged",
    "?": "Untracked",
}

LOG_FORMAT = "%H%x1f%an%x1f%ae%x1f%aI%x1f%B"

# What git says -> (status, code). The first that is found in the output counts.
_FAILURES = [
    (r"authentication failed|could not read (username|password)|invalid (username|credentials)|error: 401|"
     r"permission denied \(", 401, "GIT_AUTH_FAILED"),
    (r"error: 403|forbidden", 403, "FORBIDDEN"),
    (r"remote branch .* not found|couldn't find remote ref|branch '.*' not found|invalid reference|"
     r"did not match any file\(s\) known to git|unknown revision|not a valid (ref|object name)|"
     r"failed to resolve|src refspec .* does not match|bad revision|ambiguous argument|"
     r"reference is not a tree",
     404, "GIT_BRANCH_NOT_FOUND"),
    (r"not a git repository|repository .* (not found|does not exist)|does not appear to be a git repository|"
     r"error: 404|cannot change to|no such remote", 404, "GIT_REPO_NOT_FOUND"),
    (r"a branch named .* already exists", 409, "GIT_BRANCH_EXISTS"),
    (r"local changes .* would be overwritten|untracked working tree files would be|not uptodate|"
     r"please commit your changes or stash", 409, "GIT_DIRTY_WORKTREE"),
    (r"non-fast-forward|fetch first|\[rejected\]|stale info", 409, "GIT_PUSH_REJECTED"),
    (r"\[remote rejected\]|pre-receive hook declined", 422, "GIT_REMOTE_REJECTED"),
    (r"conflict|not possible to fast-forward|diverging branches|need to specify how to reconcile|unmerged",
     409, "GIT_MERGE_CONFLICT"),
    (r"already exists|cannot delete branch|nothing to commit|nothing added to commit|no changes added",
     409, "CONFLICT"),
    (r"pathspec|not a valid branch name|invalid key|does not contain a section|not a valid remote name|"
     r"invalid initial branch|unable to parse|not a valid mode|key does not contain", 400, "BAD_REQUEST"),
    (r"could not resolve|unable to access|failed to connect|connection (refused|timed out|reset)|"
     r"could not read from remote|early eof|hung up|unable to look up", 502, "GIT_TRANSPORT_FAILED"),
]  # fmt: skip


def failure(operation: str, output: str) -> ToolboxError:
    """Turn the output of a git that failed into an answer."""
    text = output.strip() or "git failed without a word"
    for pattern, status, code in _FAILURES:
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return ToolboxError(status, f"{operation}: {text}", code)
    return ToolboxError(500, f"{operation}: {text}")


def parse_status(output: str) -> dict[str, Any]:
    """Parse ``git status --porcelain=v2 --branch -z``."""
    status: dict[str, Any] = {
        "currentBranch": "",
        "fileStatus": [],
        "ahead": 0,
        "behind": 0,
        "branchPublished": False,
        "detached": False,
        "upstream": "",
    }
    records = iter(output.split("\0"))
    for record in records:
        kind, _, rest = record.partition(" ")
        if kind == "#":
            _parse_branch_line(status, rest)
        elif kind == "?":
            status["fileStatus"].append(_file(rest, "??"))
        elif kind in {"1", "2", "u"}:
            path = rest.split(" ", {"1": 7, "2": 8, "u": 9}[kind])[-1]
            states = "UU" if kind == "u" else rest[:2]
            old = next(records, "") if kind == "2" else ""
            status["fileStatus"].append(_file(path, states, old))
    return status


def _parse_branch_line(status: dict[str, Any], line: str) -> None:
    name, _, value = line.partition(" ")
    if name == "branch.head":
        status["detached"] = value == "(detached)"
        status["currentBranch"] = "HEAD" if status["detached"] else value
    elif name == "branch.upstream":
        status["upstream"] = value
    elif name == "branch.ab":
        ahead, behind = value.split()
        status["ahead"], status["behind"] = int(ahead), -int(behind)
        status["branchPublished"] = True


def _file(path: str, states: str, extra: str = "") -> dict[str, str]:
    staging, worktree = (_STATES.get(letter, "Modified") for letter in states)
    return {"name": path, "extra": extra, "staging": staging, "worktree": worktree}


def parse_log(output: str) -> list[dict[str, str]]:
    """Parse ``git log -z --format=`` :data:`LOG_FORMAT`."""
    commits = []
    for record in output.split("\0"):
        if record:
            digest, author, email, moment, message = record.split("\x1f", 4)
            commits.append(
                {"hash": digest, "author": author, "email": email, "message": message, "timestamp": moment}
            )
    return commits


def parse_remotes(output: str) -> list[dict[str, str]]:
    """Parse ``git config -z --get-regexp`` for the URLs of remotes; one URL per remote."""
    found: dict[str, str] = {}
    for record in output.split("\0"):
        key, _, url = record.partition("\n")
        name = key.removeprefix("remote.").removesuffix(".url")
        if record and name not in found:
            found[name] = url
    return [{"name": name, "url": url} for name, url in found.items()]


def revision(text: str, what: str) -> str:
    """Check that a text can stand where git expects a name: not empty, no option, no control characters.

    :raises ToolboxError: 400 otherwise.
    """
    if not text or text.startswith("-") or re.search(r"[\x00-\x1f\x7f]", text):
        raise ToolboxError(400, f"invalid {what}: {text!r}")
    return text
