"""The search for canaries finds what it is for: planted secrets in each form, and in each kind of file."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import secrets
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from .canary import allowed as places
from .canary import marks, plugin
from .canary.__main__ import main, report
from .canary.allowed import allowed
from .canary.search import CHUNK, Finding, search_tree

SECRET = f"dtn_local_{marks.MARK}{marks.KEY}" + secrets.token_hex(24)
RAW = bytes.fromhex(f"{marks.MARK}d0") + secrets.token_bytes(10)
FORMS = {
    "as it is": SECRET.encode(),
    "in capitals": SECRET.upper().encode(),
    "in JSON": json.dumps({"key": f'"{SECRET}"'}).encode(),
    "JSON escapes": "".join(f"\\u{ord(one):04x}" for one in SECRET).encode(),
    "URL-encoded": quote(f"a b/{SECRET}", safe="").encode(),
    "every letter URL-encoded": "".join(f"%{ord(one):02X}" for one in SECRET).encode(),
    "hexadecimal": SECRET.encode().hex().encode(),
    "UTF-16": SECRET.encode("utf-16"),
    "UTF-16, the other way": SECRET.encode("utf-16-be"),
    **{f"base64, {n} before": base64.b64encode(b"x" * n + SECRET.encode()) for n in range(3)},
    **{
        f"base64 for URLs, {n} before": base64.urlsafe_b64encode(b"?" * n + SECRET.encode()) for n in range(3)
    },
    "bytes": RAW,
    "bytes in hexadecimal": RAW.hex().encode(),
}


@pytest.fixture
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that a search of all that the suite has written knows by its name."""
    return tmp_path_factory.mktemp("planted")


def found(path: Path) -> list[Finding]:
    return list(search_tree(str(path)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [0, 1, 100])
def test_each_form_is_found_and_never_shown(planted: Path, form: str, before: int) -> None:
    (planted / "file").write_bytes(b"." * before + FORMS[form] + b"!")
    hits = found(planted)
    assert len(hits) == 1
    shown = "\n".join(report([(hits[0], "")]))
    assert f"{planted}/file" in shown
    rest = SECRET[-20:]
    assert not [one for one in (rest, rest.upper(), rest.encode().hex(), RAW[-8:].hex()) if one in shown]


def test_a_neighbour_is_not_shown_either() -> None:
    other = SECRET[:-4] + "beef"
    for form in FORMS.values():
        data = other.encode() + b" and " + form + b" and " + other.encode() + b"."
        for hit in marks.hits(data):
            shown = marks.masked(data, hit).lower()
            assert not [one for one in (SECRET[-20:], other[-20:], RAW[-8:].hex()) if one in shown]


@pytest.mark.parametrize("kind", marks.KINDS)
def test_the_kind_is_known(kind: str) -> None:
    word = f"x{marks.MARK}{kind}99".encode()
    for data in (word, word.upper(), word.hex().encode(), word.decode().encode("utf-16-le")):
        assert [hit.kind for hit in marks.hits(data)] == [kind]


def test_a_secret_over_the_edge_of_two_pieces_is_found(planted: Path) -> None:
    for place in (CHUNK - 60, CHUNK - 5, CHUNK, 2 * CHUNK - 3):
        (planted / "file").write_bytes(b"." * place + SECRET.encode())
        offset = place + len("dtn_local_")
        assert offset in [one.offset for one in found(planted)], place


def test_a_secret_behind_a_hole_is_found_and_the_hole_not_read(planted: Path) -> None:
    with open(planted / "file", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(SECRET.encode())
    assert [one.offset for one in found(planted)] == [(1 << 39) + len("dtn_local_")]


def packed() -> dict[str, bytes]:
    text = b"." * 1000 + SECRET.encode()  # so much that packing pays
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/file", text)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as bundle:
        bundle.addfile(tarfile.TarInfo("empty"))
        info = tarfile.TarInfo("inner.zip")
        info.size = len(inner.getvalue())
        bundle.addfile(info, io.BytesIO(inner.getvalue()))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.zip", inner.getvalue())
    return {
        "a zip": inner.getvalue(),
        "a zip in a zip": outer.getvalue(),
        "gzip": gzip.compress(text),
        "bzip2": bz2.compress(text),
        "xz": lzma.compress(text),
    }


@pytest.mark.parametrize("kind", packed())
def test_archives_are_unpacked(planted: Path, kind: str) -> None:
    (planted / "file").write_bytes(packed()[kind])
    assert [one.kind for one in found(planted)] == [marks.KEY]
    assert found(planted)[0].member.startswith("!")


def test_broken_archives_are_passed_over(planted: Path) -> None:
    for kind, data in packed().items():
        (planted / kind).write_bytes(data[: len(data) // 2] + b"\0" * 50)
    assert found(planted) == []


def test_databases_names_and_links_are_searched(planted: Path) -> None:
    with sqlite3.connect(planted / "history.sqlite") as base:
        base.execute("create table history (source text)")
        base.execute("insert into history values (?)", (f"key = '{SECRET}'",))
    base.close()
    (planted / f"socket-{SECRET}").mkdir()
    (planted / "link").symlink_to(f"/no/such/{SECRET}")
    places = {(Path(one.path).name, one.member) for one in found(planted)}
    assert places == {("history.sqlite", ""), (f"socket-{SECRET}", "its name"), ("link", "where it leads to")}


def test_what_the_sources_say_is_no_secret() -> None:
    assert found(Path(__file__).parent) == []


@pytest.mark.parametrize(
    ("name", "mode", "kind", "fine"),
    [
        ("run/server.json", 0o600, marks.KEY, True),
        ("run/server.json", 0o644, marks.KEY, False),
        ("run/server.tmp", 0o600, marks.KEY, True),
        ("state/sandboxes/a1/sandbox.tmp", 0o600, marks.TOKEN, True),
        ("state/sandboxes/a1/sandbox.tmp", 0o644, marks.TOKEN, False),
        ("run/server.json", 0o600, marks.TOKEN, False),
        ("run/server.log", 0o600, marks.KEY, False),
        ("state/sandboxes/a1/sandbox.json", 0o600, marks.TOKEN, True),
        ("state/sandboxes/a1/sandbox.json", 0o600, marks.KEY, False),
        ("state/sandboxes/a1/sandbox.json", 0o600, marks.PERSON, False),
        ("state/sandboxes/a1/files/home/x", 0o600, marks.PLANTED, True),
        ("state/sandboxes/a1/files/home/x", 0o600, marks.PERSON, False),
        ("state/sandboxes/a1/files/home/x", 0o600, marks.KEY, False),
        ("kernels.log", 0o600, marks.PLANTED, False),
    ],
)
def test_only_places_for_secrets_may_have_them(
    planted: Path, name: str, mode: int, kind: str, fine: bool
) -> None:
    path = planted / "a" / "b" / "c" / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{marks.MARK}{kind}1")
    path.chmod(mode)
    for folder in (planted, *list(path.relative_to(planted).parents)[:-1]):
        (planted / folder).chmod(0o755)
    (finding,) = found(path)
    assert allowed(replace(finding, path=finding.path.replace("planted", "x"))) is fine


def test_a_run_without_marks_is_no_good_run(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the marks do not get into the secrets, nothing is found, and that proves nothing."""
    monkeypatch.setattr(places, "PLACES", places.PLACES[:1])
    monkeypatch.setattr(sys, "argv", ["canary", "search", str(planted / "findings"), str(planted)])
    assert main() == 2
    (planted / "server.json").write_text(SECRET)
    (planted / "server.json").chmod(0o600)
    assert main() == 0
    (planted / "server.log").write_text(SECRET)
    assert main() == 1


CODE = """
import os, shutil, sys, tempfile
from daytona_kernel.local import preview_tokens, records, secrets_store
import secrets
folder = tempfile.mkdtemp(dir=ROOT)
for name in ("one", "two"):
    open(os.path.join(folder, name), "w").write(records.new_token())
os.unlink(os.path.join(folder, "one"))
shutil.rmtree(folder)
sys.modules["daytona_kernel.x"] = module = type(sys)("daytona_kernel.x")
module.__dict__.update(secrets=secrets)
exec("made = [secrets.token_hex(24), secrets.token_urlsafe(), secrets.token_bytes(32).hex(), "
     "secrets.token_hex(8)]", module.__dict__)
sys.modules["_canary_search.search"].search_file = None
odd = os.path.join(ROOT, "odd")
open(odd, "w").close()
os.remove(odd)
print(*module.made, records.new_token(32), secrets.token_hex(24),
      secrets_store.SecretRecord("i", "n", "v", 0, 0).placeholder)
"""


def test_the_hook_marks_what_the_package_makes_and_sees_what_is_deleted(tmp_path: Path) -> None:
    findings, root = tmp_path / "findings", tmp_path / "root"
    root.mkdir()
    here = Path(__file__).parent / "canary"
    hook = (
        here / "hook.py"
    ).read_text() + f"\nFINDINGS, ROOT, HERE = {(str(findings), str(root), str(here))!r}"
    code = f"ROOT = {str(root)!r}\n" + CODE
    (tmp_path / "begin.py").write_text(f"{hook}\nstart()\n")
    # Without `site`, in which another one may be at work, if this is a run with canaries itself.
    paths = [str(tmp_path), str(here.parents[2]), *(path for path in sys.path if path.endswith("-packages"))]
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", f"import begin\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_CURRENT_TEST": "it"},
    )
    assert done.returncode == 0, done.stderr
    key, url, raw, name, token, foreign, placeholder = done.stdout.split()
    for one in (key, url, raw, token):
        assert one.startswith(marks.MARK), one
    assert (len(key), len(raw), len(token)) == (48 + len(marks.MARK) + 1, 64, 32)
    for one in (name, foreign, placeholder):
        assert marks.MARK not in one
    noted = [json.loads(line) for line in findings.read_text().splitlines()]
    assert [(Path(one["path"]).name, one["kind"]) for one in noted] == [
        ("one", "b"),
        ("two", "b"),
        ("odd", ""),
    ]
    assert "could not be searched" in noted[-1]["around"]
    assert {one["when"] for one in noted} == {"deleted it"}


def test_processes_are_looked_at(tmp_path: Path) -> None:
    watch = plugin.Watch(tmp_path / "findings")
    watch.look()
    waits = "import sys; print('up', flush=True); sys.stdin.read()  # planted"
    person = {**os.environ, "GITHUB_TOKEN": marks.PERSONAL["GITHUB_TOKEN"]}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", waits, *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for words, environment in (
            ([SECRET], os.environ),
            ([], person),
            ([], {**person, "DAYTONA_SANDBOX_ID": "a1"}),
        )
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == b"up\n"
        watch.look()
        watch.look()
    finally:
        for one in started:
            one.communicate()
    noted = [json.loads(line) for line in (tmp_path / "findings").read_text().splitlines()]
    noted = [one for one in noted if "# planted" in one["path"]]  # or who else is at work on this machine
    assert sorted(one["member"] for one in noted) == ["arguments", "environment"]
    assert SECRET[-20:] not in (tmp_path / "findings").read_text()
