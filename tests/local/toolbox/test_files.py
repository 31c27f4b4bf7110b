"""File operations: what they do, and what they say when they cannot."""

from __future__ import annotations

import os
import re
import stat

import pytest

from daytona_kernel.local.toolbox.files import file_info


async def test_listing_is_sorted_and_leaves_out_broken_links(api, home):
    (home / "b").write_text("xy")
    (home / "a").mkdir()
    (home / "broken").symlink_to("nowhere")
    (home / "c").symlink_to("b")
    entries = await api("GET", "/files", params={"path": str(home)})
    assert [(e["name"], e["isDir"], e["size"]) for e in entries if not e["isDir"]] == [
        ("b", False, 2),
        ("c", False, 2),
    ]
    assert [e["name"] for e in entries] == ["a", "b", "c"]


async def test_listing_goes_as_deep_as_asked(api, home):
    (home / "a" / "b" / "c").mkdir(parents=True)
    (home / "a" / "up").symlink_to("..")

    async def paths(depth):
        entries = await api("GET", "/files", params={"path": str(home), "depth": depth})
        return [os.path.relpath(e["path"], home) for e in entries]

    assert await paths(1) == ["a"]
    assert await paths(2) == ["a", "a/b", "a/up"]
    assert await paths(9) == ["a", "a/b", "a/b/c", "a/up"]
    await api.error("GET", "/files", 400, params={"path": str(home), "depth": 0})


async def test_relative_paths_start_at_the_working_directory(api, home, daemon):
    (home / "f").write_text("")
    for params in ({"path": home.name}, {"path": f"./{home.name}"}):
        assert [e["name"] for e in await api("GET", "/files", params=params)] == ["f"]
    assert home.name in [e["name"] for e in await api("GET", "/files")]


async def test_info_has_the_fields_and_formats_of_the_real_daemon(api, home):
    path = home / "report.txt"
    path.write_text("12345")
    path.chmod(0o640)
    os.utime(path, ns=(0, 1_767_323_045_120_000_000))
    assert await api("GET", "/files/info", params={"path": str(path)}) == {
        "name": "report.txt",
        "path": str(path),
        "size": 5,
        "mode": "-rw-r-----",
        "modTime": "2026-01-02 03:04:05.12 +0000 UTC",
        "modifiedAt": "2026-01-02T03:04:05.12Z",
        "isDir": False,
        "owner": str(os.getuid()),
        "group": str(os.getgid()),
        "permissions": "0640",
    }


def test_a_whole_second_has_no_fraction(tmp_path):
    os.utime(tmp_path, ns=(0, 1_767_323_045_000_000_000))
    assert file_info(str(tmp_path))["modifiedAt"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("gone", 404, "FILE_NOT_FOUND"),
        ("a\0b", 400, "INVALID_FILE_PATH"),
        ("x" * 5000, 400, "INVALID_FILE_PATH"),
    ],
)
async def test_info_of_what_is_not_there(api, home, path, status, code):
    assert (await api.error("GET", "/files/info", status, params={"path": path}))["code"] == code


async def test_a_name_that_is_not_utf8_is_listed_readably(api, home):
    os.close(os.open(os.fsencode(home) + b"/caf\xe9", os.O_CREAT))
    assert [e["name"] for e in await api("GET", "/files", params={"path": str(home)})] == ["caf\ufffd"]


async def test_folders_are_made_with_parents_and_mode(api, home):
    path = home / "x" / "y"
    await api("POST", "/files/folder", status=201, params={"path": str(path), "mode": "2770"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o2770
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    await api("POST", "/files/folder", status=201, params={"path": str(path), "mode": "700"})  # no change
    assert stat.S_IMODE(path.stat().st_mode) == 0o2770


@pytest.mark.parametrize("mode", ["9", "rwx", "-1", "77777"])
async def test_a_bad_mode_is_400(api, home, mode):
    await api.error("POST", "/files/folder", 400, params={"path": str(home / "d"), "mode": mode})
    assert not (home / "d").exists()


async def test_a_folder_in_the_place_of_a_file_is_400(api, home):
    (home / "f").write_text("")
    await api.error("POST", "/files/folder", 400, params={"path": str(home / "f")})
    await api.error("POST", "/files/folder", 400, params={"path": str(home / "f" / "g")})


async def test_delete_needs_recursive_for_directories_and_never_follows_links(api, home):
    (home / "d").mkdir()
    (home / "d" / "f").write_text("")
    (home / "kept").mkdir()
    (home / "link").symlink_to("kept")
    await api.error("DELETE", "/files", 400, params={"path": str(home / "d")})
    assert (home / "d" / "f").exists()
    await api("DELETE", "/files", status=204, params={"path": str(home / "d"), "recursive": "true"})
    await api("DELETE", "/files", status=204, params={"path": str(home / "link"), "recursive": "true"})
    assert [p.name for p in home.iterdir()] == ["kept"]
    await api.error("DELETE", "/files", 404, params={"path": str(home / "d")})


async def test_move_renames_and_refuses_to_overwrite(api, home):
    def where(source, destination):
        return {"source": str(home / source), "destination": str(home / destination)}

    (home / "a").write_text("1")
    await api("POST", "/files/move", params=where("a", "b"))
    assert (home / "b").read_text() == "1"
    (home / "a").write_text("2")
    await api.error("POST", "/files/move", 409, params=where("a", "b"))
    await api.error("POST", "/files/move", 404, params=where("gone", "c"))
    await api.error("POST", "/files/move", 404, params=where("a", "no/parent"))
    (home / "d").mkdir()
    await api.error("POST", "/files/move", 400, params=where("d", "d/inside"))
    assert (home / "b").read_text() == "1"
    assert (home / "d").is_dir()


async def test_permissions_change_mode_and_owner(api, home):
    path = home / "f"
    path.write_text("")
    await api("POST", "/files/permissions", params={"path": str(path), "mode": "600"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ids = {"owner": str(os.getuid()), "group": str(os.getgid())}
    await api("POST", "/files/permissions", params={"path": str(path), **ids})
    await api.error("POST", "/files/permissions", 400, params={"path": str(path), "owner": "no such user"})
    await api.error("POST", "/files/permissions", 400, params={"path": str(path), "group": "no such group"})
    await api.error("POST", "/files/permissions", 404, params={"path": str(home / "gone"), "mode": "600"})


async def test_find_looks_for_literal_text_in_text_files(api, home):
    (home / "sub").mkdir()
    (home / "sub" / "a.py").write_text("one\nx = f(.*)\r\nthree f(.*)")
    (home / "binary").write_bytes(b"\0f(.*)")
    (home / "long").write_bytes(b"f(.*)\n" + b"x" * 70_000 + b"\nf(.*)\n")
    os.mkfifo(home / "pipe")
    (home / "loop").symlink_to(".")
    found = await api("GET", "/files/find", params={"path": home.name, "pattern": "f(.*)"})
    assert found == [
        {"file": f"{home.name}/long", "line": 1, "content": "f(.*)"},
        {"file": f"{home.name}/sub/a.py", "line": 2, "content": "x = f(.*)"},
        {"file": f"{home.name}/sub/a.py", "line": 3, "content": "three f(.*)"},
    ]
    one = {"path": str(home / "sub" / "a.py"), "pattern": "one"}
    assert len(await api("GET", "/files/find", params=one)) == 1
    assert (await api.error("GET", "/files/find", 400, params={"path": "gone", "pattern": "x"}))[
        "code"
    ] == "FILE_NOT_FOUND"
    await api.error("GET", "/files/find", 400, params={"path": str(home), "pattern": ""})


async def test_search_matches_names_of_files_and_directories(api, home):
    (home / "d.py").mkdir()
    (home / "d.py" / "a.py").write_text("")
    (home / "d.py" / "b.txt").write_text("")

    async def search(pattern):
        answer = await api("GET", "/files/search", params={"path": str(home), "pattern": pattern})
        return [os.path.relpath(path, home) for path in answer["files"]]

    assert await search("*.py") == ["d.py", "d.py/a.py"]
    assert await search("[^b].*") == ["d.py", "d.py/a.py"]
    assert await search("zzz") == []
    await api.error("GET", "/files/search", 400, params={"path": "gone", "pattern": "*"})


async def test_replace_keeps_modes_and_reports_each_file(api, home):
    (home / "a").write_text("old old")
    (home / "a").chmod(0o755)
    (home / "b").write_text("nothing")
    files = [str(home / name) for name in ("a", "b", "gone", "bad\0name")]
    results = await api(
        "POST", "/files/replace", json={"files": files, "pattern": "old", "newValue": "newer"}
    )
    assert [r["success"] for r in results] == [True, True, False, False]
    assert [r["file"] for r in results] == files
    assert "not found" in results[2]["error"]
    assert (home / "a").read_text() == "newer newer"
    assert stat.S_IMODE((home / "a").stat().st_mode) == 0o755
    for body in (
        {"files": files, "pattern": ""},
        {"files": [], "pattern": "x"},
        {"files": "a", "pattern": "x"},
    ):
        await api.error("POST", "/files/replace", 400, json=body)


async def test_times_are_rfc3339(api, home):
    (home / "f").write_text("")
    info = await api("GET", "/files/info", params={"path": str(home / "f")})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", info["modifiedAt"])
