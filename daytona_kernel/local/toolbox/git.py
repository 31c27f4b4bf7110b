"""Git repositories in the sandbox (``/git``), through the system's own git.

Arguments are lists, never shell text. Credentials reach git through its environment and a helper that prints
them, so they are neither in its arguments nor on disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from .children import CHILDREN
from .errors import ToolboxError
from .fields import Fields, body_fields, query_fields
from .git_text import LOG_FORMAT, failure, parse_log, parse_remotes, parse_status, revision
from .paths import resolve
from .settings import SETTINGS, SPAWN_ENV
from .shell import Outcome, run

_ENVIRONMENT = {
    "LC_ALL": "C",  # its messages are matched
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" '
    '"$DAYTONA_GIT_USERNAME" "$DAYTONA_GIT_PASSWORD"; }; f'
)
SCOPES = ("global", "local", "system")
RESET_MODES = ("soft", "mixed", "hard", "merge", "keep")


@dataclass(frozen=True)
class Git:
    """Runs git in one directory of the sandbox."""

    app: web.Application
    directory: str
    credentials: tuple[str, str] | None = None

    async def __call__(
        self, *args: str, extra_env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> Outcome:
        """Run git and give its outcome, whatever it is.

        :raises ToolboxError: 404 if the directory does not exist, 500 if git is not installed.
        """
        self._check_directory()
        # The sandbox has one user; who owns a directory says nothing about trust here.
        argv = ["git", "-c", "safe.directory=*"]
        env = self.app[SPAWN_ENV] | _ENVIRONMENT | dict(extra_env or {})
        if self.credentials:
            argv += ["-c", "credential.helper=", "-c", f"credential.helper={_HELPER}"]
            env["DAYTONA_GIT_USERNAME"], env["DAYTONA_GIT_PASSWORD"] = self.credentials
        outcome = await run(
            self.app[CHILDREN],
            [*argv, *args],
            env=env,
            cwd=self.directory,
            stdin=stdin.encode("utf-8", "replace"),
            separate_errors=True,
        )
        if not outcome.started:
            raise ToolboxError(500, f"git cannot be run in this sandbox: {outcome.text}")
        return outcome

    def _check_directory(self) -> None:
        if not os.path.isdir(self.directory):
            raise ToolboxError(404, f"repository not found: {self.directory}", "GIT_REPO_NOT_FOUND")

    async def must(
        self, operation: str, *args: str, extra_env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> str:
        """Run git and give what it printed.

        :raises ToolboxError: if it fails.
        """
        outcome = await self(*args, extra_env=extra_env, stdin=stdin)
        if outcome.exit_code != 0:
            raise failure(f"git {operation}", f"{outcome.error_text}{outcome.text}")
        return outcome.text

    async def current_branch(self) -> str:
        """Give the checked-out branch; empty when HEAD is detached."""
        return (await self("symbolic-ref", "--short", "-q", "HEAD")).text.strip()


def repository(request: web.Request, fields: Fields) -> Git:
    """Find the repository that a request names, with the credentials that it brings."""
    path = resolve(request.app, fields.text("path"))
    return Git(request.app, path, credentials_of(fields))


def credentials_of(fields: Fields) -> tuple[str, str] | None:
    """Read username and password; ``None`` without a password.

    :raises ToolboxError: 400 if one holds a line end, which git's credential protocol cannot carry.
    """
    username, password = fields.text("username", ""), fields.text("password", "")
    if any(character in username + password for character in "\r\n\0"):
        raise ToolboxError(400, "username and password must not hold line ends")
    return (username or "git", password) if password else None


async def clone(request: web.Request) -> web.Response:
    """Clone a repository, as a whole or one branch, commit or depth of it."""
    fields = await body_fields(request)
    target = resolve(request.app, fields.text("path"))
    options = []
    if branch := fields.optional_text("branch"):
        options += ["--branch", revision(branch, "branch")]
    if depth := fields.integer("depth", 0, low=0):
        options += ["--depth", str(depth)]
    commit = fields.optional_text("commit_id")
    here = Git(request.app, request.app[SETTINGS].work_dir, credentials_of(fields))
    extra_env = {"GIT_SSL_NO_VERIFY": "1"} if fields.flag("insecure_skip_tls") else None
    await here.must("clone", "clone", *options, "--", fields.text("url"), target, extra_env=extra_env)
    if commit:
        cloned = Git(request.app, target, here.credentials)
        name = revision(commit, "commit")
        if depth:
            await cloned.must("fetch", "fetch", "--depth", str(depth), "origin", name, extra_env=extra_env)
        await cloned.must("checkout", "checkout", name, "--")
    return web.Response()


async def init(request: web.Request) -> web.Response:
    """Make a new repository."""
    fields = await body_fields(request)
    options = ["--bare"] if fields.flag("bare") else []
    if branch := fields.optional_text("initial_branch"):
        options.append(f"--initial-branch={branch}")
    here = Git(request.app, request.app[SETTINGS].work_dir)
    await here.must("init", "init", *options, "--", resolve(request.app, fields.text("path")))
    return web.Response(status=201)


async def status(request: web.Request) -> web.Response:
    """Show branch and changed files."""
    git = repository(request, query_fields(request))
    options = ("--porcelain=v2", "--branch", "-z", "--untracked-files=all")
    return web.json_response(parse_status(await git.must("status", "status", *options)))


async def branches(request: web.Request) -> web.Response:
    """List the local branches."""
    git = repository(request, query_fields(request))
    names = await git.must("branches", "for-each-ref", "--format=%(refname:short)", "refs/heads")
    return web.json_response({"branches": names.splitlines(), "current": await git.current_branch()})


async def create_branch(request: web.Request) -> web.Response:
    """Make a branch where HEAD is."""
    fields = await body_fields(request)
    name = revision(fields.text("name"), "branch")
    await repository(request, fields).must("branch", "branch", "--", name)
    return web.Response(status=201)


async def delete_branch(request: web.Request) -> web.Response:
    """Delete a branch, merged or not."""
    fields = await body_fields(request)
    name = revision(fields.text("name"), "branch")
    await repository(request, fields).must("branch", "branch", "-D", "--", name)
    return web.Response(status=204)


async def checkout(request: web.Request) -> web.Response:
    """Check out a branch or a commit."""
    fields = await body_fields(request)
    name = revision(fields.text("branch"), "branch")
    await repository(request, fields).must("checkout", "checkout", name, "--")
    return web.Response()


async def add(request: web.Request) -> web.Response:
    """Stage files (``.`` for all)."""
    fields = await body_fields(request)
    files = fields.texts("files")
    if not files:
        raise ToolboxError(400, "files is required", "INVALID_REQUEST_BODY")
    await repository(request, fields).must("add", "add", "--", *files)
    return web.Response()


async def commit(request: web.Request) -> web.Response:
    """Commit what is staged; answers with the new commit's hash."""
    fields = await body_fields(request)
    git = repository(request, fields)
    author, email = fields.text("author"), fields.text("email")
    identity = {f"GIT_{role}_NAME": author for role in ("AUTHOR", "COMMITTER")}
    identity |= {f"GIT_{role}_EMAIL": email for role in ("AUTHOR", "COMMITTER")}
    options = ["--cleanup=verbatim", "--no-gpg-sign", "-F", "-"]
    if fields.flag("allow_empty"):
        options.append("--allow-empty")
    await git.must("commit", "commit", *options, extra_env=identity, stdin=fields.text("message"))
    return web.json_response({"hash": (await git.must("commit", "rev-parse", "HEAD")).strip()})


async def push(request: web.Request) -> web.Response:
    """Push a branch (the current one) to a remote (origin)."""
    fields = await body_fields(request)
    git = repository(request, fields)
    remote = revision(fields.text("remote", "") or "origin", "remote")
    branch = fields.optional_text("branch") or await git.current_branch() or "HEAD"
    options = ["--set-upstream"] if fields.flag("set_upstream") else []
    await git.must("push", "push", *options, "--", remote, revision(branch, "branch"))
    return web.Response()


async def pull(request: web.Request) -> web.Response:
    """Fast-forward to a branch of a remote. Branches that have diverged are 409: nothing is merged here."""
    fields = await body_fields(request)
    git = repository(request, fields)
    remote, branch = fields.optional_text("remote"), fields.optional_text("branch")
    args = ["pull", "--ff-only", "--no-rebase"]
    tracks = (await git("rev-parse", "--abbrev-ref", "@{upstream}")).exit_code == 0
    if remote or branch or not tracks:
        name = branch or await git.current_branch() or "HEAD"
        args += ["--", revision(remote or "origin", "remote"), revision(name, "branch")]
    await git.must("pull", *args)
    return web.Response()


async def history(request: web.Request) -> web.Response:
    """List the commits from HEAD back; a repository without commits has none."""
    git = repository(request, query_fields(request))
    if (await git("rev-parse", "-q", "--verify", "HEAD")).exit_code != 0:
        await git.must("log", "rev-parse", "--git-dir")
        return web.json_response([])
    return web.json_response(parse_log(await git.must("log", "log", "-z", f"--format={LOG_FORMAT}")))


async def reset(request: web.Request) -> web.Response:
    """Move HEAD, or unstage files."""
    fields = await body_fields(request)
    git = repository(request, fields)
    mode, files = fields.optional_text("mode"), fields.texts("files")
    if mode is not None and mode not in RESET_MODES:
        raise ToolboxError(400, f"invalid mode: {mode!r} ({', '.join(RESET_MODES)})")
    if files and mode not in (None, "mixed"):
        raise ToolboxError(400, f"mode {mode} cannot be limited to files")
    target = revision(fields.text("target", "") or "HEAD", "target")
    options = [] if files else [f"--{mode or 'mixed'}"]
    await git.must("reset", "reset", "-q", *options, target, "--", *files)
    return web.Response()


async def restore(request: web.Request) -> web.Response:
    """Restore files in the working tree (by default) or the index."""
    fields = await body_fields(request)
    files = fields.texts("files")
    if not files:
        raise ToolboxError(400, "files is required", "INVALID_REQUEST_BODY")
    options = [f"--{name}" for name in ("staged", "worktree") if fields.flag(name)]
    if source := fields.optional_text("source"):
        options.append(f"--source={revision(source, 'source')}")
    await repository(request, fields).must("restore", "restore", *options, "--", *files)
    return web.Response()


async def remotes(request: web.Request) -> web.Response:
    """List the remotes."""
    git = repository(request, query_fields(request))
    await git.must("remotes", "rev-parse", "--git-dir")
    outcome = await git("config", "-z", "--get-regexp", r"^remote\..*\.url$")
    return web.json_response({"remotes": parse_remotes(outcome.text)})


async def add_remote(request: web.Request) -> web.Response:
    """Add a remote, or with ``overwrite`` give it another URL."""
    fields = await body_fields(request)
    git = repository(request, fields)
    name, url = revision(fields.text("name"), "remote"), revision(fields.text("url"), "url")
    known = (await git("remote", "get-url", "--", name)).exit_code == 0
    verb = "set-url" if known and fields.flag("overwrite") else "add"
    await git.must("remote", "remote", verb, "--", name, url)
    if fields.flag("fetch"):
        await git.must("fetch", "fetch", "--", name)
    return web.Response(status=201)


def config_place(request: web.Request, fields: Fields) -> tuple[Git, str]:
    """Find where a configuration is: (where to run git, option for the scope).

    :raises ToolboxError: 400 for an unknown scope, or ``local`` without a path.
    """
    scope = fields.text("scope", "") or "global"
    if scope not in SCOPES:
        raise ToolboxError(400, f"invalid scope: {scope!r} ({', '.join(SCOPES)})")
    path = fields.optional_text("path")
    if scope == "local" and not path:
        raise ToolboxError(400, "path is required for the scope local")
    directory = resolve(request.app, path or ".") if scope == "local" else request.app[SETTINGS].work_dir
    return Git(request.app, directory), f"--{scope}"


async def get_config(request: web.Request) -> web.Response:
    """Give a setting, ``null`` if it is not set."""
    fields = query_fields(request)
    git, scope = config_place(request, fields)
    outcome = await git("config", scope, "--get", "--", fields.text("key"))
    if outcome.exit_code not in (0, 1):
        raise failure("git config", f"{outcome.error_text}{outcome.text}")
    if outcome.exit_code == 1 and outcome.error_text:  # an impossible key, not a missing one
        raise failure("git config", outcome.error_text)
    return web.json_response({"value": outcome.text.rstrip("\n") if outcome.exit_code == 0 else None})


async def set_config(request: web.Request) -> web.Response:
    """Change a setting."""
    fields = await body_fields(request)
    git, scope = config_place(request, fields)
    value = fields.get("value")
    if not isinstance(value, str):
        raise ToolboxError(400, "value is required", "INVALID_REQUEST_BODY")
    await git.must("config", "config", scope, "--", fields.text("key"), value)
    return web.Response()


async def configure_user(request: web.Request) -> web.Response:
    """Set name and email."""
    fields = await body_fields(request)
    git, scope = config_place(request, fields)
    name, email = fields.text("name"), fields.text("email")
    await git.must("config", "config", scope, "--", "user.name", name)
    await git.must("config", "config", scope, "--", "user.email", email)
    return web.Response()


async def store_credentials(request: web.Request) -> web.Response:
    """Store credentials for a host in git's own store: in plain text, in the sandbox's home."""
    fields = await body_fields(request)
    username, password = fields.text("username"), fields.text("password")
    lines = {
        "protocol": fields.text("protocol", "") or "https",
        "host": fields.text("host", "") or "github.com",
        "username": username,
        "password": password,
    }
    if any(character in value for value in lines.values() for character in "\r\n\0"):
        raise ToolboxError(400, "credentials must not hold line ends")
    here = Git(request.app, request.app[SETTINGS].work_dir)
    await here.must("config", "config", "--global", "credential.helper", "store")
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    await here.must("credential", "credential", "approve", stdin=f"{text}\n")
    return web.Response()


def setup(app: web.Application) -> None:
    """Add the routes."""
    gets = {
        "status": status,
        "branches": branches,
        "history": history,
        "remotes": remotes,
        "config": get_config,
    }
    posts = {
        "clone": clone,
        "init": init,
        "branches": create_branch,
        "checkout": checkout,
        "add": add,
        "commit": commit,
        "push": push,
        "pull": pull,
        "reset": reset,
        "restore": restore,
        "remotes": add_remote,
        "config": set_config,
        "config/user": configure_user,
        "credentials": store_credentials,
    }
    for name, handler in gets.items():
        app.router.add_get(f"/git/{name}", handler)
    for name, handler in posts.items():
        app.router.add_post(f"/git/{name}", handler)
    app.router.add_delete("/git/branches", delete_branch)
