"""`%daytona` and files of the sandbox, through both doors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from .doors import Door, IPythonDoor

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000a49444154789c6300010000050001"
    "0d0a2db40000000049454e44ae426082"
)


def test_an_uploaded_file_arrives_with_its_bytes_permissions_and_time(
    door: Door, place: str, tmp_path: Path
) -> None:
    source = tmp_path / "with space é.bin"
    source.write_bytes(bytes(range(256)) * 5)
    source.chmod(0o750)
    os.utime(source, (1_600_000_000.25, 1_600_000_000.25))
    outcome = door(f"%daytona upload '{source}' {place}/").ok()
    assert hashlib.sha256(source.read_bytes()).hexdigest() in outcome.text
    assert f"/{place}/with space é.bin" in outcome.text
    assert "1.2 KiB" in outcome.text
    back = tmp_path / "back"
    door(f"%daytona download '{place}/with space é.bin' {back}/").ok()
    copy = back / source.name
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o750
    assert copy.stat().st_mtime == 1_600_000_000.25


def test_a_big_file_goes_up_and_down_unchanged(door: Door, place: str, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(5 << 20))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in door(f"%daytona upload {source} {place}/").ok().text
    outcome = door(f"%daytona download {place}/big.bin {tmp_path}/copy.bin").ok()
    assert digest in outcome.text
    assert (tmp_path / "copy.bin").read_bytes() == source.read_bytes()
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


def test_a_directory_keeps_its_tree(door: Door, place: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "a" / "b" / "deep.txt").write_text("deep")
    (tree / "top.txt").write_text("top")
    (tree / "zero").write_bytes(b"")
    door(f"%daytona upload {tree} {place}/").ok()
    door(f"%daytona download {place}/tree --to {tmp_path}/out/").ok()
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert found == {
        *("tree", "tree/a", "tree/a/b", "tree/a/b/deep.txt", "tree/empty", "tree/top.txt", "tree/zero"),
    }
    assert (tmp_path / "out/tree/a/b/deep.txt").read_text() == "deep"


def test_patterns_choose_files_on_either_side(door: Door, place: str, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    door(f"%daytona upload {tmp_path}/*.csv --to {place}/").ok()
    assert "a.csv" in door(f"%daytona ls {place}").text
    assert "c.txt" not in door(f"%daytona ls {place}").text
    outcome = door(f"%daytona download '{place}/*.csv' {tmp_path}/out/").ok()
    assert "2 files" in outcome.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "b.csv"]


def test_download_never_overwrites_without_force(door: Door, place: str, tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("new")
    door(f"%daytona upload {tmp_path}/f.txt {place}/").ok()
    (tmp_path / "f.txt").write_text("mine")
    message = door(f"%daytona download {place}/f.txt {tmp_path}/").failed("CommandFailed")
    assert "there already" in message
    assert (tmp_path / "f.txt").read_text() == "mine"
    door(f"%daytona download {place}/f.txt {tmp_path}/ --force").ok()
    assert (tmp_path / "f.txt").read_text() == "new"


def test_a_file_that_fails_is_named_and_the_others_come(door: Door, place: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    door(f"%daytona upload {tmp_path}/good.txt {place}/").ok()
    outcome = door(f"%daytona download {place}/good.txt {place}/missing.txt {tmp_path}/out/")
    message = outcome.failed("CommandFailed")
    assert "missing.txt: no such file" in message
    assert "good.txt" not in message
    assert (tmp_path / "out/good.txt").read_text() == "good"


def test_a_link_in_the_target_folder_does_not_lead_out_of_it(door: Door, place: str, tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/f.txt").write_text("x")
    door(f"%daytona upload {tmp_path}/tree {place}/").ok()
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out/tree").mkdir(parents=True)
    (tmp_path / "out/tree/inner").symlink_to(outside)
    message = door(f"%daytona download {place}/tree {tmp_path}/out/ --force").failed("CommandFailed")
    assert "out of the target folder" in message
    assert not list(outside.iterdir())


def test_links_of_the_sandbox_give_the_content_and_never_a_link(
    door: Door, place: str, tmp_path: Path
) -> None:
    door(f"%daytona exec -- sh -c 'cd {place}; echo hi >real; ln -s real link; ln -s / everything'").ok()
    outcome = door(f"%daytona download {place} {tmp_path}/out/")
    assert "a link to a directory is skipped" in outcome.failed("CommandFailed")
    copy = tmp_path / "out" / place / "link"
    assert copy.read_text() == "hi\n"
    assert not copy.is_symlink()
    assert not (tmp_path / "out" / place / "everything").exists()


def test_sync_moves_only_what_differs(door: Door, place: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "same").write_text("same")
    (tree / "other").write_text("one")
    door(f"%daytona upload {tree} --to {place} --sync").ok()
    (tree / "other").write_text("three")
    assert "Would upload 1 files" in door(f"%daytona upload {tree} --to {place} --sync --dry-run").ok().text
    outcome = door(f"%daytona upload {tree} --to {place} --sync").ok()
    assert "1 file," in outcome.text
    assert "1 equal already" in outcome.text
    (tree / "same").unlink()
    door(f"%daytona upload {tree} --to {place} --sync --delete").ok()
    assert door(f"%daytona ls {place}/tree").text.split() == ["other"]
    outcome = door(f"%daytona download {place}/tree --to {tmp_path} --sync").ok()
    assert "1 equal already" in outcome.text


def test_upload_of_nothing_does_nothing(door: Door, place: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x")
    message = door(f"%daytona upload {tmp_path}/dat.csv --to {place}").failed("UsageError")
    assert "Did you mean data.csv?" in message
    assert door(f"%daytona ls {place}").text.strip() == "(empty)"


def test_two_local_files_are_not_guessed_to_be_source_and_destination(
    door: Door, place: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert "--to" in door(f"%daytona upload {tmp_path}/a {tmp_path}/b").failed("UsageError")
    door(f"%daytona upload {tmp_path}/a {tmp_path}/b --to {place}").ok()
    assert door(f"%daytona ls {place}").text.split() == ["a", "b"]


def test_files_can_be_looked_at_and_changed(door: Door, place: str) -> None:
    door(f"%daytona exec -- sh -c 'echo needle > {place}/hay.txt'").ok()
    assert door(f"%daytona cat {place}/hay.txt").ok().text.strip() == "needle"
    assert "644" in door(f"%daytona stat {place}/hay.txt").ok().text
    door(f"%daytona chmod 600 {place}/hay.txt").ok()
    assert "-rw-------" in door(f"%daytona ls -l {place}").ok().text
    assert "hay.txt:1: needle" in door(f"%daytona grep needle {place}").ok().text
    assert "hay.txt" in door(f"%daytona find '*.txt' {place}").ok().text
    door(f"%daytona mkdir {place}/sub").ok()
    door(f"%daytona mv {place}/hay.txt {place}/sub").ok()
    assert "hay.txt" in door(f"%daytona ls {place}/sub").ok().text
    assert "-r deletes it" in door(f"%daytona rm {place}/sub").failed("CommandFailed")
    door(f"%daytona rm -r {place}/sub").ok()
    assert door(f"%daytona ls {place}").text.strip() == "(empty)"


def test_home_is_understood(door: Door, place: str) -> None:
    door(f"%daytona mkdir ~/{place}-home").ok()
    assert f"{place}-home/" in door("%daytona ls ~").ok().text


def test_missing_files_are_errors_with_their_name(door: Door) -> None:
    for line in ("ls nope", "cat nope", "stat nope", "rm nope", "mv nope other", "chmod 644 nope"):
        assert "nope" in door(f"%daytona {line}").failed("CommandFailed")
    door("%daytona rm -f nope").ok()


def test_wrong_arguments_are_refused_before_anything_is_done(door: Door) -> None:
    assert "octal" in door("%daytona chmod 9x9 f").failed("UsageError")
    assert "Usage:" in door("%daytona mv one").failed("UsageError")
    assert "quotes" in door("%daytona ls 'open").failed("UsageError")
    assert "--bytes" in door("%daytona cat f --bytes 0").failed("UsageError")
    assert "--sync only" in door("%daytona upload /etc/hostname --delete").failed("UsageError")


def test_pictures_and_tables_show_themselves(door: Door, place: str, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    (tmp_path / "t.csv").write_text("a,b\n1,<script>x</script>\n")
    door(f"%daytona upload {tmp_path}/p.png {tmp_path}/t.csv --to {place}").ok()
    outcome = door(f"%daytona cat {place}/p.png").ok()
    assert outcome.shown[0]["image/png"].strip()
    outcome = door(f"%daytona cat {place}/t.csv").ok()
    assert "<table>" in outcome.html
    assert "<script>" not in outcome.html
    outcome = door(f"%daytona download {place}/p.png {tmp_path}/copy.png").ok()
    assert any("image/png" in one for one in outcome.shown)


def test_control_characters_in_names_reach_no_terminal(door: Door, place: str) -> None:
    door(f"%daytona exec -- python3 -c \"open('{place}/a\\x1b[31m','w')\"").ok()
    text = door(f"%daytona ls {place}").ok().text
    assert "\x1b" not in text
    assert "\\x1b[31m" in text


def names(door: Door, place: str) -> list[str]:
    """The files of a directory of the sandbox, hidden ones included."""
    return door(f"%daytona exec -- ls -A {place}").ok().stdout.split()


def test_an_interrupted_transfer_leaves_nothing_half_written(
    ipython: IPythonDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is shown from the first block on, so that the interrupt comes while files are moved."""
    monkeypatch.setattr("daytona_kernel.magics.progress.SHOW_AFTER_S", 0.0)
    with open(tmp_path / "big", "wb") as file:
        file.truncate(512 << 20)
    ipython("%daytona mkdir interrupted").ok()
    outcome = ipython.interrupted(f"%daytona upload {tmp_path}/big --to interrupted/", "upload:")
    assert outcome.ename == "KeyboardInterrupt"
    assert names(ipython, "interrupted") == []
    ipython("%daytona exec -- truncate -s 512M interrupted/big").ok()
    outcome = ipython.interrupted(f"%daytona download interrupted/big --to {tmp_path}/here/", "download:")
    assert outcome.ename == "KeyboardInterrupt"
    assert list((tmp_path / "here").iterdir()) == []
    ipython("%daytona rm -r interrupted").ok()


def test_what_is_no_file_is_not_waited_for(door: Door, place: str, tmp_path: Path) -> None:
    """Reading from a pipe that nobody writes to would never end, and could not be interrupted."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "pipe")
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    message = door(f"%daytona upload {tmp_path}/folder --to {place}/").failed("CommandFailed")
    assert "pipe: not a regular file" in message
    assert "link: a link to a directory" in message
    assert names(door, f"{place}/folder") == ["file"]
    door(f"%daytona exec -- mkfifo {place}/pipe").ok()
    assert "not a regular file" in door(f"%daytona download {place}/pipe --to {tmp_path}/p").evalue


def test_a_cell_is_written_to_a_file(door: Door, place: str) -> None:
    text = "x = 'é'\nprint(x)\n"
    assert "Wrote 18 B" in door(f"%%daytona write {place}/new/app.py\n{text}").ok().text
    assert door(f"%daytona exec -- cat {place}/new/app.py").ok().stdout == text
    door(f"%%daytona write -a {place}/new/app.py\n# more\n").ok()
    assert door(f"%daytona exec -- cat {place}/new/app.py").ok().stdout == text + "# more\n"
    assert place in door(f"%%daytona write {place}\nx").failed("CommandFailed")


def test_relative_paths_begin_where_the_notebooks_python_is(door: Door, place: str, tmp_path: Path) -> None:
    def python(code: str) -> str:
        return door(code if door.name == "kernel" else f"%%daytona\n{code}").ok().stdout

    begin = python("import os\nprint(os.getcwd())").strip()
    python(f"os.makedirs('{place}/in/deep')\nos.chdir('{place}/in')\nopen('note.txt', 'w').write('1'); None")
    try:
        here = f"{begin}/{place}/in"
        assert names(door, ".") == ["deep", "note.txt"]
        assert door("%daytona cat note.txt").ok().stdout == "1\n"
        door(f"%daytona download note.txt --to {tmp_path}/").ok()
        door(f"%daytona upload {tmp_path}/note.txt --to deep/").ok()
        assert python("print(os.listdir('deep'))") == "['note.txt']\n"
        assert door("%daytona exec -- pwd").ok().stdout.strip() == here
        assert door("%daytona exec --cwd deep -- pwd").ok().stdout.strip() == f"{here}/deep"
        assert door("%%daytona bash\npwd").ok().stdout.strip() == here
        assert "%daytona cat note.txt" in door.complete("%daytona cat no")
        assert door("%daytona status --json").ok().stdout.count(f'"cwd": "{here}"') == 1
    finally:
        python(f"os.chdir({begin!r})")


@pytest.mark.parametrize(
    "command", ["ls", "cat", "stat", "rm", "chmod 600", "mv {wrong} x #", "download", "find x"]
)
def test_a_name_that_is_not_there_is_told_with_the_nearest(door: Door, place: str, command: str) -> None:
    door(f"%%daytona write {place}/report.csv\na").ok()
    wrong = f"{place}/reprot.csv"
    line = command.format(wrong=wrong).removesuffix(" #") if "{" in command else f"{command} {wrong}"
    said = door(f"%daytona {line}").failed("CommandFailed")
    assert f"/{wrong}" in said
    assert "id you mean report.csv?" in said


def test_a_line_that_was_meant_for_a_shell_is_told_so(door: Door) -> None:
    assert "%%daytona bash" in door("%daytona ls /etc | head").failed("UsageError")
    assert "a program that is not there" in door("%daytona exec -- no-such-program").failed("CommandFailed")
