"""Git through the API, against repositories on this machine."""

from __future__ import annotations

import base64
import subprocess

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel.local.toolbox.errors import ToolboxError
from daytona_kernel.local.toolbox.git_text import failure, parse_log, parse_remotes, parse_status, revision

IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]


def git(where, *args):
    done = subprocess.run(["git", *IDENTITY, *args], cwd=where, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def upstream(home):
    """A bare repository with two commits on master and one more on test."""
    work = home / "work"
    git(home, "init", "-q", "-b", "master", "work")
    for number in (1, 2):
        (work / "README").write_text(f"version {number}\n")
        git(work, "add", ".")
        git(work, "commit", "-qm", f"commit {number}")
    git(work, "checkout", "-qb", "test")
    (work / "extra").write_text("x")
    git(work, "add", ".")
    git(work, "commit", "-qm", "on test")
    git(work, "checkout", "-q", "master")
    git(home, "clone", "-q", "--bare", "work", "upstream.git")
    git(home / "upstream.git", "update-server-info")
    return home / "upstream.git"


class Repo:
    def __init__(self, api, path):
        self.api, self.path = api, path

    async def post(self, verb, *, status=200, **fields):
        return await self.api("POST", f"/git/{verb}", status=status, json={"path": str(self.path), **fields})

    async def get(self, verb, **query):
        return await self.api("GET", f"/git/{verb}", params={"path": str(self.path), **query})

    async def fails(self, verb, status, code, method="POST", **fields):
        body = {"path": str(self.path), **fields}
        how = {"json": body} if method != "GET" else {"params": body}
        error = await self.api.error(method, f"/git/{verb}", status, **how)
        assert error["code"] == code, error["message"]
        return error["message"]

    async def commit(self, name, content, message="m"):
        (self.path / name).write_text(content)
        await self.post("add", files=["."])
        answer = await self.post("commit", message=message, author="Grace", email="grace@example.org")
        return answer["hash"]


@pytest.fixture
async def repo(api, home, upstream):
    repo = Repo(api, home / "clone")
    await repo.post("clone", url=str(upstream))
    return repo


async def test_clone_status_branches_and_history(repo):
    status = await repo.get("status")
    assert status == {
        "currentBranch": "master",
        "fileStatus": [],
        "ahead": 0,
        "behind": 0,
        "branchPublished": True,
        "detached": False,
        "upstream": "origin/master",
    }
    assert await repo.get("branches") == {"branches": ["master"], "current": "master"}
    history = await repo.get("history")
    assert [(c["message"], c["author"], c["email"]) for c in history] == [
        ("commit 2\n", "Ada", "ada@example.org"),
        ("commit 1\n", "Ada", "ada@example.org"),
    ]
    assert history[0]["hash"] == git(repo.path, "rev-parse", "HEAD")
    assert "T" in history[0]["timestamp"]


async def test_clone_takes_relative_paths_branches_depths_and_commits(api, home, upstream, daemon):
    branch = Repo(api, home / "branch")
    await branch.post("clone", path=f"{home.name}/branch", url=str(upstream), branch="test")
    assert (await branch.get("status"))["currentBranch"] == "test"
    shallow = Repo(api, home / "shallow")
    await shallow.post("clone", url=f"file://{upstream}", depth=1)
    assert len(await shallow.get("history")) == 1
    first = git(upstream, "rev-parse", "master~1")
    one = Repo(api, home / "one")
    await one.post("clone", url=str(upstream), commit_id=first)
    status = await one.get("status")
    assert (status["currentBranch"], status["detached"]) == ("HEAD", True)
    assert (one.path / "README").read_text() == "version 1\n"


async def test_what_cannot_be_cloned(api, home, upstream, repo):
    other = Repo(api, home / "other")
    await other.fails("clone", 404, "GIT_REPO_NOT_FOUND", url=str(home / "nowhere"))
    await other.fails("clone", 404, "GIT_BRANCH_NOT_FOUND", url=str(upstream), branch="gone")
    await other.fails("clone", 404, "GIT_BRANCH_NOT_FOUND", url=str(upstream), commit_id="0" * 40)
    await other.fails("clone", 502, "GIT_TRANSPORT_FAILED", path=str(home / "o2"), url="http://127.0.0.1:1/x")
    await repo.fails("clone", 409, "CONFLICT", url=str(upstream))
    await other.fails("clone", 400, "INVALID_REQUEST_BODY")
    await other.fails("clone", 400, "BAD_REQUEST", url=str(upstream), branch="--upload-pack=x")


async def test_credentials_reach_the_server_and_nothing_else(api, home, upstream):
    seen = []

    async def serve(request):
        seen.append(request.headers.get("Authorization"))
        if seen[-1] != "Basic " + base64.b64encode(b"me:s3cret'$x").decode():
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="r"'})
        path = upstream / request.match_info["path"]
        if not path.is_file():
            raise web.HTTPNotFound
        return web.Response(body=path.read_bytes())

    app = web.Application()
    app.router.add_get("/repo.git/{path:.*}", serve)
    repo = Repo(api, home / "private")
    async with TestServer(app) as server:
        url = str(server.make_url("/repo.git"))
        await repo.post("clone", url=url, username="me", password="s3cret'$x")
        assert (repo.path / "README").exists()
        message = await repo.fails(
            "clone", 401, "GIT_AUTH_FAILED", path=str(home / "p2"), url=url, username="me", password="wrong"
        )
        assert "wrong" not in message
        await repo.fails("clone", 401, "GIT_AUTH_FAILED", path=str(home / "p3"), url=url)
    assert "s3cret" not in (repo.path / ".git" / "config").read_text()
    await repo.fails("clone", 400, "BAD_REQUEST", url=url, username="a\nhost=evil", password="x")


async def test_work_on_a_branch_from_add_to_push(api, home, repo, upstream):
    await repo.post("branches", name="feature", status=201)
    await repo.fails("branches", 409, "GIT_BRANCH_EXISTS", name="feature")
    await repo.post("checkout", branch="feature")
    (repo.path / "new.txt").write_text("n")
    (repo.path / "README").write_text("changed")
    files = {f["name"]: (f["staging"], f["worktree"]) for f in (await repo.get("status"))["fileStatus"]}
    assert files == {"README": ("Unmodified", "Modified"), "new.txt": ("Untracked", "Untracked")}
    await repo.post("add", files=["new.txt"])
    files = {f["name"]: (f["staging"], f["worktree"]) for f in (await repo.get("status"))["fileStatus"]}
    assert files["new.txt"] == ("Added", "Unmodified")
    digest = (
        await repo.post("commit", message="subject\n\n# body 'quoted'\n", author="G 'x' H", email="g@x.org")
    )["hash"]
    head = (await repo.get("history"))[0]
    assert (head["hash"], head["message"]) == (digest, "subject\n\n# body 'quoted'\n")
    assert (head["author"], head["email"]) == ("G 'x' H", "g@x.org")
    status = await repo.get("status")
    assert (status["branchPublished"], status["upstream"]) == (False, "")
    await repo.post("push", set_upstream=True)
    assert git(upstream, "rev-parse", "feature") == digest
    assert (await repo.get("status"))["branchPublished"] is True


async def test_commits_without_changes(repo):
    identity = {"author": "a", "email": "b@c"}
    await repo.fails("commit", 409, "CONFLICT", message="m", **identity)
    await repo.post("commit", message="m", allow_empty=True, **identity)
    for missing in ({"message": ""}, {"author": ""}, {"email": None}):
        await repo.fails("commit", 400, "INVALID_REQUEST_BODY", **({"message": "m", **identity} | missing))


async def test_pull_and_push_when_both_sides_moved(api, home, repo, upstream):
    other = Repo(api, home / "other")
    await other.post("clone", url=str(upstream))
    pushed = await other.commit("README", "theirs")
    await other.post("push")
    assert (await repo.get("status"))["behind"] == 0
    await repo.post("pull")
    assert git(repo.path, "rev-parse", "HEAD") == pushed
    await repo.post("pull")  # nothing new is no error
    await other.commit("README", "theirs 2")
    await other.post("push", remote="origin", branch="master")
    await repo.commit("README", "ours")
    await repo.fails("push", 409, "GIT_PUSH_REJECTED")
    await repo.fails("pull", 409, "GIT_MERGE_CONFLICT")
    assert (await repo.get("status"))["ahead"] == 1
    await repo.fails("pull", 404, "GIT_BRANCH_NOT_FOUND", branch="gone")
    await repo.fails("push", 404, "GIT_BRANCH_NOT_FOUND", branch="gone")
    await repo.fails("push", 404, "GIT_REPO_NOT_FOUND", remote="nobody")


async def test_a_hook_on_the_other_side_can_reject(repo, upstream):
    hook = upstream / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    await repo.commit("f", "x")
    await repo.fails("push", 422, "GIT_REMOTE_REJECTED")


async def test_checkout_refuses_to_lose_changes_and_knows_what_is_missing(repo):
    await repo.post("checkout", branch="test")  # made from origin/test
    assert (await repo.get("status"))["upstream"] == "origin/test"
    await repo.commit("README", "on test")
    (repo.path / "README").write_text("dirty")
    await repo.fails("checkout", 409, "GIT_DIRTY_WORKTREE", branch="master")
    await repo.fails("checkout", 404, "GIT_BRANCH_NOT_FOUND", branch="gone")
    await repo.fails("checkout", 400, "BAD_REQUEST", branch="-f")
    await repo.fails("add", 400, "BAD_REQUEST", files=["no such file"])


async def test_branches_are_deleted_merged_or_not(repo):
    await repo.post("checkout", branch="test")
    await repo.fails("branches", 409, "CONFLICT", method="DELETE", name="test")
    await repo.post("checkout", branch="master")
    await repo.api("DELETE", "/git/branches", status=204, json={"path": str(repo.path), "name": "test"})
    await repo.fails("branches", 404, "GIT_BRANCH_NOT_FOUND", method="DELETE", name="test")


async def test_init_remotes_and_an_empty_history(api, home, upstream):
    repo = Repo(api, home / "fresh")
    await repo.post("init", initial_branch="trunk", status=201)
    status = await repo.get("status")
    assert (status["currentBranch"], status["fileStatus"]) == ("trunk", [])
    assert await repo.get("history") == []
    assert await repo.get("branches") == {"branches": [], "current": "trunk"}
    assert await repo.get("remotes") == {"remotes": []}
    await repo.post("remotes", name="origin", url=str(upstream), fetch=True, status=201)
    assert git(repo.path, "rev-parse", "origin/master")
    await repo.fails("remotes", 409, "CONFLICT", name="origin", url="x")
    await repo.post("remotes", name="origin", url="https://example.org/r.git", overwrite=True, status=201)
    assert await repo.get("remotes") == {"remotes": [{"name": "origin", "url": "https://example.org/r.git"}]}
    bare = Repo(api, home / "bare.git")
    await bare.post("init", bare=True, status=201)
    assert git(bare.path, "rev-parse", "--is-bare-repository") == "true"
    await bare.fails("init", 400, "BAD_REQUEST", initial_branch="a..b", path=str(home / "x"))


async def test_reset_and_restore(repo):
    (repo.path / "README").write_text("dirty")
    await repo.post("add", files=["README"])
    await repo.post("reset", files=["README"])
    [file] = (await repo.get("status"))["fileStatus"]
    assert (file["staging"], file["worktree"]) == ("Unmodified", "Modified")
    await repo.post("restore", files=["README"])
    assert (repo.path / "README").read_text() == "version 2\n"
    await repo.post("restore", files=["README"], source="HEAD~1", staged=True, worktree=True)
    assert (repo.path / "README").read_text() == "version 1\n"
    await repo.post("reset", mode="hard", target="HEAD~1")
    assert len(await repo.get("history")) == 1
    await repo.fails("reset", 400, "BAD_REQUEST", mode="extreme")
    await repo.fails("reset", 400, "BAD_REQUEST", mode="hard", files=["README"])
    await repo.fails("reset", 404, "GIT_BRANCH_NOT_FOUND", target="gone")
    await repo.fails("restore", 400, "INVALID_REQUEST_BODY", files=[])


async def test_configuration_in_its_scopes(api, home, repo, daemon):
    local = {"scope": "local", "path": str(repo.path)}
    assert await api("GET", "/git/config", params={"key": "user.name", **local}) == {"value": None}
    await api("POST", "/git/config", json={"key": "user.name", "value": "Zoë 'x'", **local})
    assert await api("GET", "/git/config", params={"key": "user.name", **local}) == {"value": "Zoë 'x'"}
    await api("POST", "/git/config/user", json={"name": "N", "email": "e@x"})
    assert await api("GET", "/git/config", params={"key": "user.email"}) == {"value": "e@x"}
    assert "e@x" in (daemon.home / ".gitconfig").read_text()
    await api.error("GET", "/git/config", 400, params={"key": "user.name", "scope": "local"})
    await api.error("GET", "/git/config", 400, params={"key": "user.name", "scope": "galaxy"})
    await api.error("GET", "/git/config", 400, params={"key": "nodot"})
    await api.error("POST", "/git/config", 400, json={"key": "user.name"})


async def test_stored_credentials_are_used_for_their_host(api, daemon):
    await api("POST", "/git/credentials", json={"username": "u", "password": "p", "host": "git.example.org"})
    stored = (daemon.home / ".git-credentials").read_text()
    assert stored == "https://u:p@git.example.org\n"
    bad = {"username": "u\nhost=evil", "password": "p"}
    await api.error("POST", "/git/credentials", 400, json=bad)
    (daemon.home / ".git-credentials").unlink()
    (daemon.home / ".gitconfig").unlink(missing_ok=True)


@pytest.mark.parametrize("verb", ["status", "branches", "history", "remotes"])
async def test_what_is_no_repository_is_404(api, home, verb):
    for path in (str(home), str(home / "gone")):
        error = await api.error("GET", f"/git/{verb}", 404, params={"path": path})
        assert error["code"] == "GIT_REPO_NOT_FOUND"


def test_status_of_renames_conflicts_and_odd_names():
    output = "\0".join(
        [
            "# branch.oid abc",
            "# branch.head (detached)",
            "# branch.upstream origin/x",
            "# branch.ab +2 -3",
            "2 R. N... 100644 100644 100644 a b R100 new name",
            "old name",
            "u UU N... 100644 100644 100644 100644 a b c both",
            "1 .D N... 100644 100644 000000 a b gone",
            "? tab\there",
            "",
        ]
    )
    status = parse_status(output)
    assert (status["ahead"], status["behind"], status["detached"]) == (2, 3, True)
    assert [(f["name"], f["extra"], f["staging"], f["worktree"]) for f in status["fileStatus"]] == [
        ("new name", "old name", "Renamed", "Unmodified"),
        ("both", "", "Updated but unmerged", "Updated but unmerged"),
        ("gone", "", "Unmodified", "Deleted"),
        ("tab\there", "", "Untracked", "Untracked"),
    ]


def test_logs_and_remotes_of_nothing():
    assert parse_log("") == []
    assert parse_remotes("") == []
    assert parse_remotes("remote.a.b.url\nx\0remote.a.b.url\ny\0") == [{"name": "a.b", "url": "x"}]


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("fatal: Authentication failed for 'x'", 401),
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", 401),
        ("The requested URL returned error: 403", 403),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", 502),
        ("CONFLICT (content): Merge conflict in f", 409),
        ("error: something new", 500),
        ("", 500),
    ],
)
def test_failures_get_a_status(output, status):
    assert failure("git", output).status == status


@pytest.mark.parametrize("text", ["", "-x", "--upload-pack=evil", "a\nb", "a\0"])
def test_names_that_could_be_options_are_refused(text):
    with pytest.raises(ToolboxError):
        revision(text, "branch")
