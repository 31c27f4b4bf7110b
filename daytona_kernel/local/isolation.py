"""How a sandbox's daemon is started: inside bubblewrap, or as a plain process.

With bubblewrap a sandbox has its own user, mount, PID, IPC and UTS namespaces. It sees the system's programs
and the host's Python read-only, and a home, a ``/tmp`` and a Python environment of its own; nothing of the
user's files, environment or processes. Without bubblewrap it is a process group with a private home directory
and a clean environment, which keeps honest programs apart but stops nobody: everything that shows such a
sandbox says so.

Both kinds end with the server, however the server ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .network import (
    NAMESERVER,
    NetworkError,
    connect_namespace,
    find_slirp,
    read_child_pid,
    uses_loopback_proxy,
)
from .python_env import PythonInfo, server_package_dirs
from .safe_files import has_link, remove_tree

log = logging.getLogger(__name__)

HOME = "/home/daytona"
VENV = "/opt/venv"
PACKAGE_PARENT = "/opt/daytona"
"""Where the sandbox sees the directory of this package, alone."""

PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

QUIRKS_VARIABLE = "DAYTONA_LOCAL_QUIRKS"
"""Which weaknesses of the real daemon the sandboxes' daemons reproduce; read by the toolbox."""

PASSED_VARIABLES = (
    "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY",
    "LC_MESSAGES", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO", "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT", "PIP_DISABLE_PIP_VERSION_CHECK", "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
"""Host variables that a sandbox gets: how to speak and how to reach the network, nothing personal."""

ETC_ENTRIES = (
    "alternatives", "bash.bashrc", "bash_completion.d", "ca-certificates", "ca-certificates.conf",
    "chromium", "crypto-policies", "debian_version", "dconf", "default/locale", "fonts",
    "gai.conf", "gitconfig", "gtk-3.0", "host.conf", "ImageMagick-6", "ImageMagick-7", "inputrc", "java",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "lsb-release", "libva.conf", "locale.alias", "locale.conf",
    "localtime", "magic", "mailcap", "mime.types", "mke2fs.conf", "nanorc", "OpenCL", "openbox",
    "os-release", "papersize", "perl", "pip.conf", "pki", "profile", "profile.d", "protocols", "R",
    "redhat-release", "resolv.conf", "rpc", "selinux", "services", "shells", "skel", "ssl", "terminfo",
    "timezone", "tmux.conf", "vim", "vulkan", "wgetrc", "X11", "xdg", "zsh", "zshrc", "zprofile", "zshenv",
)  # fmt: skip
"""What a sandbox sees of the host's /etc. The rest (shadow, host keys, other programs' secrets) stays out."""

PASSWORD = re.compile(
    rb"://[^/\s:@]*:[^/\s@]+@|^\s*\w*passw(?:or)?d\s*[=:]\s*\S", re.IGNORECASE | re.MULTILINE
)
PERHAPS_SECRET = ("gitconfig", "pip.conf", "wgetrc")
"""Some put the password of a package index or a proxy there, which is for the host's programs."""

SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""On merged-usr systems links into /usr, else directories."""

# How many cores there are: joblib, OpenMP and numpy's libraries want to know, and warn if they can not.
CORES = ("/sys/devices/system/cpu", "/sys/devices/system/node")
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "mtrr", "tty/driver")
PROC_MASKED = (
    "acpi", "asound", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats",
    "sched_debug", "scsi", "timer_list", "timer_stats",
)  # fmt: skip

TRIAL_SECONDS = 10.0

BOOT = """
import sys
sys.path.insert(0, {parent!r})
sys.path.extend(p for p in {packages!r} if p not in sys.path)
print("here", flush=True)
import runpy
runpy.run_module("daytona_kernel.local.toolbox", run_name="__main__", alter_sys=True)
"""

BOOT_PLAIN = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (AttributeError, OSError):
    pass
if os.getppid() != {ppid}:
    sys.exit("the server is gone")
"""
"""A plain sandbox's daemon is told when the server dies (PR_SET_PDEATHSIG), and ends its children."""


Command = tuple[list[str], tuple[int, ...]]
"""A command line and the descriptors that it inherits."""


@dataclass(frozen=True)
class Mount:
    """A directory of the host that a sandbox sees at another place."""

    source: str
    inside: str
    read_only: bool = False
    identity: tuple[int, int] | None = None
    """Device and inode of the directory that is meant: another sandbox may put a link in its place."""


@dataclass(frozen=True)
class LaunchSpec:
    """Everything that is fixed when a daemon is started."""

    sandbox_id: str
    files: Path
    """The sandbox's private files on the host: ``home``, ``tmp`` and ``venv`` in it."""
    python: PythonInfo
    block_network: bool = False
    mounts: Sequence[Mount] = field(default_factory=tuple)


class PlainProcesses:
    """No isolation: a process group of the user."""

    name = "none"
    own_network = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        """Why sandboxes are not isolated, for status and banner."""

    def home(self, files: Path) -> str:
        """The sandbox's home directory as its programs see it."""
        return str(files / "home")

    def venv(self, files: Path) -> str:
        """The sandbox's Python environment as its programs see it."""
        return str(files / "venv")

    def temporary(self, files: Path) -> str:
        """The sandbox's directory for temporary files as its programs see it."""
        return str(files / "tmp")

    @contextlib.contextmanager
    def command(self, spec: LaunchSpec, listen_fd: int, info_fd: int) -> Iterator[Command]:
        """The command line of a daemon that listens on an inherited descriptor, and more such descriptors."""
        parent = str(Path(__file__).resolve().parents[2])
        boot = BOOT_PLAIN.format(ppid=os.getpid()) + BOOT.format(
            parent=parent, packages=server_package_dirs()
        )
        yield [sys.executable, "-I", "-c", boot, "--fd", str(listen_fd)], ()


class Bubblewrap:
    """Namespaces made by ``bwrap``."""

    name = "bubblewrap"
    reason = ""

    def __init__(self, program: str, *, own_network: bool) -> None:
        self._program = program
        self.own_network = own_network
        """Whether every sandbox has a network namespace of its own, with slirp4netns as the way out."""

    def home(self, files: Path) -> str:
        """The sandbox's home directory as its programs see it."""
        return HOME

    def venv(self, files: Path) -> str:
        """The sandbox's Python environment as its programs see it."""
        return VENV

    def temporary(self, files: Path) -> str:
        """The sandbox's directory for temporary files as its programs see it."""
        return "/tmp"  # noqa: S108 - the sandbox's own, a private mount

    @contextlib.contextmanager
    def command(self, spec: LaunchSpec, listen_fd: int, info_fd: int) -> Iterator[Command]:
        """The command line of a daemon that listens on an inherited descriptor, and more such descriptors.

        bwrap's options go through a descriptor: its command line can be read inside and would name host
        paths.
        """
        boot = BOOT.format(parent=PACKAGE_PARENT, packages=server_package_dirs())
        options = os.memfd_create("bwrap-options")
        try:
            os.write(options, "\0".join(self._options(spec)).encode())
            os.lseek(options, 0, os.SEEK_SET)
            head = [self._program, "--args", str(options), "--info-fd", str(info_fd)]
            yield [*head, "--", sys.executable, "-I", "-c", boot, "--fd", str(listen_fd)], (options, info_fd)
        finally:
            os.close(options)

    def _options(self, spec: LaunchSpec) -> list[str]:
        arguments = [
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *(["--unshare-net"] if spec.block_network or self.own_network else []),
            *("--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--disable-userns"),
            *("--hostname", spec.sandbox_id[:12], "--die-with-parent", "--new-session", "--clearenv"),
            *(part for name, value in daemon_environment().items() for part in ("--setenv", name, value)),
            *("--setenv", "HOME", HOME),
            *("--bind", str(spec.files / "root"), "/"),
            *_system_mounts(),
            *_etc_mounts(spec.files, own_network=self.own_network),
            *_private_mounts(spec.files),
            *_python_mounts(spec.python),
        ]
        for mount in spec.mounts:
            check_mount_point(spec.files, mount.inside)
            arguments += ["--ro-bind" if mount.read_only else "--bind", mount.source, mount.inside]
        return [*arguments, "--chdir", HOME]


Isolation = PlainProcesses | Bubblewrap


def check_mount_point(files: Path, inside: str) -> None:
    """Refuse a mount point that the sandbox has put a link or file in the way of. ``OSError``."""
    for top, own in (("/tmp", "tmp"), (HOME, "home"), ("", "root")):  # noqa: S108 - a path of the sandbox
        if inside.startswith(top + "/"):
            if has_link(files / own, inside[len(top) :]):
                raise OSError(f"{inside} can not be a mount point: there is a link or file in its place")
            return


def _system_mounts() -> list[str]:
    arguments = ["--dir", "/run", "--dir", "/var/tmp", "--ro-bind", "/usr", "/usr"]  # noqa: S108
    for name in SYSTEM_LINKS:
        if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
            arguments += ["--ro-bind", f"/{name}", f"/{name}"]
    for path in ("/var/cache/fontconfig", "/var/lib/xkb", *CORES):
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    # As root, files of /proc that only root may write are writable inside a user namespace too (the owner is
    # the same user of the kernel); bubblewrap 0.8 leaves them open, seen with /proc/sys/kernel/core_pattern.
    for name in PROC_READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            arguments += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in PROC_MASKED:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            arguments += ["--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            arguments += ["--ro-bind", "/dev/null", path]
    return arguments


def _etc_mounts(files: Path, *, own_network: bool) -> list[str]:
    arguments: list[str] = []
    for name in ETC_ENTRIES:
        path = f"/etc/{name}"
        if name in PERHAPS_SECRET and has_password(path):
            continue
        if os.path.exists(path) and not (own_network and name == "resolv.conf"):
            arguments += ["--ro-bind", os.path.realpath(path), path]
    if os.path.isdir("/etc/ssl/private"):
        arguments += ["--tmpfs", "/etc/ssl/private", "--remount-ro", "/etc/ssl/private"]
    if os.path.isdir("/etc/chromium.d"):
        for name in sorted(os.listdir("/etc/chromium.d")):
            arguments += ["--ro-bind", f"/etc/chromium.d/{name}", f"/etc/chromium.d/{name}"]
        # A sandbox can not make namespaces, on which Chromium's own sandbox insists; it has one around it.
        arguments += ["--ro-bind", str(files / "etc" / "chromium"), "/etc/chromium.d/zz-inside-a-sandbox"]
    own = ["passwd", "group", "hosts", "nsswitch.conf", *(["resolv.conf"] if own_network else [])]
    for name in own:
        arguments += ["--ro-bind", str(files / "etc" / name), f"/etc/{name}"]
    return arguments


def has_password(path: str) -> bool:
    """Whether a file of settings seems to have a password in it."""
    try:
        with open(path, "rb") as stream:
            return PASSWORD.search(stream.read(1 << 20)) is not None
    except OSError:
        return False


def _private_mounts(files: Path) -> list[str]:
    return [
        *("--bind", str(files / "tmp"), "/tmp"),  # noqa: S108 - the sandbox's own
        *("--bind", str(files / "home"), HOME),
        *("--bind", str(files / "venv"), VENV),
    ]


def _python_mounts(python: PythonInfo) -> list[str]:
    own = [sys.base_prefix, sys.prefix, *server_package_dirs()]
    arguments: list[str] = []
    bound: list[str] = ["/usr"]
    for directory in dict.fromkeys([*own, *python.directories, *_program_directories()]):
        for path in _safe_parts(directory):
            if not any(path == top or path.startswith(top + "/") for top in bound):
                arguments += ["--ro-bind", path, path]
                bound.append(path)
    package = str(Path(__file__).resolve().parents[1])
    inside = f"{PACKAGE_PARENT}/daytona_kernel"
    return [*arguments, "--ro-bind", package, inside]


def _safe_parts(directory: str) -> list[str]:
    """The directory, or just its parts that are Python's where it holds the user's home or the system."""
    path = os.path.realpath(directory)
    home = os.path.realpath(os.path.expanduser("~"))
    if path != "/" and not (home + "/").startswith(path + "/"):
        return [directory]
    parts = ("bin", "lib", "lib64", "include", "pyvenv.cfg")
    return [part for name in parts if os.path.exists(part := os.path.join(directory, name)) and path != "/"]


def _program_directories() -> list[str]:
    """Installations outside /usr of programs that a sandbox should have if the host has them."""
    found = []
    for program in ("node", "npx", "git", "R", "julia"):
        path = shutil.which(program)
        if path is None:
            continue
        directory = os.path.dirname(os.path.realpath(path))
        if os.path.basename(directory) == "bin" and not directory.startswith(("/usr/", "/bin")):
            found.append(os.path.dirname(directory))
    return found


def program_path(venv: str, python: PythonInfo) -> str:
    """The sandbox's ``PATH``: its own environment, the host environment's programs, the system's."""
    parts = [f"{venv}/bin", f"{python.prefix}/bin", f"{sys.prefix}/bin"]
    parts += [f"{directory}/bin" for directory in _program_directories()]
    return ":".join(dict.fromkeys([*parts, *PLAIN_PATH.split(":")]))


def passed_environment() -> dict[str, str]:
    """The host variables that a sandbox gets; a proxy with a password in its URL is left out."""
    found = {name: os.environ[name] for name in PASSED_VARIABLES if os.environ.get(name)}
    return {name: value for name, value in found.items() if "@" not in value}


def daemon_environment() -> dict[str, str]:
    """The environment of the daemon itself; programs of the sandbox get another one from it."""
    quirks = os.environ.get(QUIRKS_VARIABLE)
    return {"PATH": PLAIN_PATH, **passed_environment(), **({QUIRKS_VARIABLE: quirks} if quirks else {})}


def prepare_files(files: Path, home: str) -> None:
    """Make a sandbox's private directories and the few files of its /etc."""
    for name in ("root", "home", "tmp", "venv", "etc"):
        (files / name).mkdir(parents=True, exist_ok=True, mode=0o755)
    (files / "tmp").chmod(0o1777)
    _prepare_root(files / "root")
    entries = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\ndaytona:x:1000:1000:Daytona:{home}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": "root:x:0:\ndaytona:x:1000:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
        "resolv.conf": f"nameserver {NAMESERVER}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "chromium": 'CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox"\n',
    }
    for name, text in entries.items():
        path = files / "etc" / name
        if not path.exists():
            path.write_text(text)


def _prepare_root(root: Path) -> None:
    """Make the sandbox's top directory fit for mounting over it.

    The sandbox may make directories of its own there (``/app``), which stay. Whatever it did where the system
    is mounted is removed: a link in the place of a mount point would lead bubblewrap to the host.
    """
    root.chmod(0o755)
    own = {sys.base_prefix, sys.prefix, *server_package_dirs()}
    tops = {"usr", "proc", "dev", "etc", "tmp", "home", "opt", "run", "var", "sys", "root", *SYSTEM_LINKS}
    tops |= {path.split("/")[1] for path in own}
    for name in tops:
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            remove_tree(path)
    for name in SYSTEM_LINKS:
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))


async def choose_isolation(wish: str, network: str) -> Isolation:
    """The kind of isolation to use.

    `wish` is ``auto``, ``bubblewrap`` or ``none``; `network` is ``auto``, ``own`` or ``shared``.
    ``ValueError``: for another wish. ``RuntimeError``: if something is demanded that does not work here.
    """
    if wish not in ("auto", "bubblewrap", "none"):
        raise ValueError(f"DAYTONA_LOCAL_ISOLATION is {wish!r}; use auto, bubblewrap, or none")
    if network not in ("auto", "own", "shared"):
        raise ValueError(f"DAYTONA_LOCAL_NETWORK is {network!r}; use auto, own, or shared")
    if wish == "none":
        return PlainProcesses("isolation was switched off (DAYTONA_LOCAL_ISOLATION=none)")
    slirp = None if network == "shared" or (network == "auto" and uses_loopback_proxy()) else find_slirp()
    program = shutil.which("bwrap")
    if program is None:
        problem, connected = "bubblewrap (bwrap) is not installed", False
    else:
        problem, connected = await _try_bubblewrap(program, slirp)
    if problem and wish == "bubblewrap":
        raise RuntimeError(problem)
    if program is None or problem:
        return PlainProcesses(problem)
    if network == "own" and not connected:
        raise RuntimeError(
            "DAYTONA_LOCAL_NETWORK=own needs slirp4netns, which is missing or does not work here"
        )
    return Bubblewrap(program, own_network=connected)


async def _try_bubblewrap(program: str, slirp: str | None) -> tuple[str, bool]:
    """Make the namespaces that sandboxes use, once.

    The text says why that does not work, if so; the flag, whether slirp4netns could connect them.
    """
    info_read, info_write = os.pipe()
    arguments = [
        program,
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--disable-userns", "--die-with-parent"),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--info-fd", str(info_write), "cat"),
    ]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(info_write,),
        )
        os.close(info_write)
        info_write = -1
        connected = False
        pid = await read_child_pid(info_read, TRIAL_SECONDS)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"works\n")
        out = await asyncio.wait_for(process.stdout.readline(), TRIAL_SECONDS)
        if slirp is not None and pid is not None and out:
            try:
                link = await connect_namespace(slirp, pid)
                connected = True
                await link.close()
            except NetworkError as exc:
                log.info("sandboxes share the host's network: %s", exc)
        _, err = await asyncio.wait_for(process.communicate(b""), TRIAL_SECONDS)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return "bubblewrap does not answer", False
    finally:
        os.close(info_read)
        if info_write >= 0:
            os.close(info_write)
    if process.returncode == 0 and out == b"works\n":
        return "", connected
    return f"bubblewrap does not work here: {err.decode(errors='replace').strip()[-200:]}", False
