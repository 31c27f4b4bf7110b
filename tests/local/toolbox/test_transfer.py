"""Moving file contents both ways."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from urllib.parse import quote

import aiohttp
import pytest

ALL_BYTES = bytes(range(256))
SEPARATOR = b"--DAYTONA-FILE-BOUNDARY"


async def fetch(http, path, **headers):
    async with http.get("/files/download", params={"path": str(path)}, headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.read()


async def test_download_gives_the_exact_bytes_and_the_name(http, home):
    path = home / 'n "a" é.bin'
    path.write_bytes(ALL_BYTES)
    status, headers, body = await fetch(http, path)
    assert (status, body) == (200, ALL_BYTES)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Length"] == "256"
    assert headers["Content-Disposition"].endswith(f"filename*=utf-8''{quote(path.name, safe='')}")


@pytest.mark.parametrize(
    ("wanted", "status", "expected", "content_range"),
    [
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-3", 200, b"0123456789", None),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ],
)
async def test_ranges(http, home, wanted, status, expected, content_range):
    (home / "f").write_bytes(b"0123456789")
    got, headers, body = await fetch(http, home / "f", Range=wanted)
    assert got == status
    assert headers.get("Content-Range") == content_range
    if expected is not None:
        assert body == expected


async def test_a_stale_if_range_gets_the_whole_file(http, home):
    (home / "f").write_bytes(b"0123456789")
    old = "Thu, 01 Jan 2015 00:00:00 GMT"
    assert (await fetch(http, home / "f", **{"Range": "bytes=3-", "If-Range": old}))[0] == 200
    stamp = (await fetch(http, home / "f"))[1]["Last-Modified"]
    assert (await fetch(http, home / "f", **{"Range": "bytes=3-", "If-Range": stamp}))[0] == 206
    assert (await fetch(http, home / "f", **{"If-Modified-Since": stamp}))[0] == 304


async def test_a_compressed_neighbour_is_never_served_instead(http, home):
    (home / "data.csv").write_bytes(b"fresh")
    (home / "data.csv.gz").write_bytes(b"stale")
    assert (await fetch(http, home / "data.csv"))[2] == b"fresh"


async def test_download_of_an_empty_file(http, home):
    (home / "empty").write_bytes(b"")
    assert (await fetch(http, home / "empty"))[::2] == (200, b"")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [(".", 400, "INVALID_FILE_PATH"), ("gone", 404, "FILE_NOT_FOUND"), ("pipe", 400, "INVALID_FILE_PATH")],
)
async def test_what_cannot_be_downloaded(api, home, name, status, code):
    os.mkfifo(home / "pipe")
    error = await api.error("GET", "/files/download", status, params={"path": str(home / name)})
    assert error["code"] == code


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_048_576, 3_500_000])
@pytest.mark.parametrize("route", ["/files/upload", "/files/upload-v2"])
async def test_raw_and_multipart_uploads_arrive_whole(api, home, size, route):
    content = os.urandom(size)
    target = home / "new" / "dir" / "f.txt"
    answer = await api("POST", route, params={"path": str(target)}, data=io.BytesIO(content))
    assert answer == {"name": "f.txt", "path": str(target), "type": "text/plain"}
    assert target.read_bytes() == content
    form = aiohttp.FormData()
    form.add_field("comment", "ignored")
    form.add_field("file", io.BytesIO(content[::-1]), filename="whatever")
    await api("POST", route, params={"path": str(target)}, data=form)
    assert target.read_bytes() == content[::-1]


async def test_upload_overwrites_through_links(api, home):
    (home / "real").write_text("a much longer text than the new one")
    (home / "link").symlink_to("real")
    await api("POST", "/files/upload-v2", params={"path": str(home / "link")}, data=b"short")
    assert (home / "real").read_text() == "short"
    assert (home / "link").is_symlink()


@pytest.mark.parametrize("name", [".", "file/below", "pipe", "x" * 300])
async def test_uploads_to_impossible_places_are_400(api, home, name):
    (home / "file").write_text("")
    os.mkfifo(home / "pipe")
    await api.error("POST", "/files/upload-v2", 400, params={"path": str(home / name)}, data=b"x" * 100)
    form = aiohttp.FormData()
    form.add_field("file", b"x" * 100, filename="f")
    await api.error("POST", "/files/upload-v2", 400, params={"path": str(home / name)}, data=form)


async def test_a_multipart_upload_without_a_file_is_400(api, home):
    form = aiohttp.FormData()
    form.add_field("other", b"x", filename="f")
    await api.error("POST", "/files/upload-v2", 400, params={"path": str(home / "f")}, data=form)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (b"", b"garbage", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'):
        await api.error(
            "POST", "/files/upload-v2", 400, params={"path": str(home / "f")}, data=body, headers=headers
        )


async def test_what_has_come_of_a_slow_upload_is_on_disk_before_the_rest(api, home):
    """A slow body is not buffered: blocks are written as they come."""
    first_read = asyncio.Event()

    async def body():
        yield b"a" * (2 * 1024 * 1024)
        await first_read.wait()
        yield b"b"

    upload = asyncio.create_task(
        api("POST", "/files/upload-v2", params={"path": str(home / "f")}, data=body())
    )
    while not (home / "f").exists() or (home / "f").stat().st_size < 1024 * 1024:
        await asyncio.sleep(0.01)
    first_read.set()
    await upload
    assert (home / "f").stat().st_size == 2 * 1024 * 1024 + 1


# --- bulk upload ------------------------------------------------------------------------------------------


def bulk_form(files, *, interleaved):
    form = aiohttp.FormData()
    for index, (path, _) in enumerate(files):
        form.add_field(f"files[{index}].path", path)
        if interleaved:
            form.add_field(f"files[{index}].file", files[index][1], filename="x")
    if not interleaved:
        for index, (path, content) in enumerate(files):
            form.add_field(f"files[{index}].file", content, filename=path)
    return form


@pytest.mark.parametrize("interleaved", [True, False])
async def test_bulk_upload_takes_paths_first_or_in_between(api, home, interleaved):
    files = [(f"{home}/d{n}/f{n}", os.urandom(n * 70_000)) for n in range(4)]
    answer = await api("POST", "/files/bulk-upload", data=bulk_form(files, interleaved=interleaved))
    assert answer == {"files": [{"path": path, "bytes": len(content)} for path, content in files]}
    for path, content in files:
        with open(path, "rb") as file:
            assert file.read() == content
    assert os.stat(files[0][0]).st_mode & 0o777 == 0o644


async def test_bulk_upload_trims_paths(api, home):
    await api("POST", "/files/bulk-upload", data=bulk_form([(f" {home}/f \n", b"x")], interleaved=True))
    assert (home / "f").read_bytes() == b"x"


async def test_one_bad_file_of_a_bulk_upload_does_not_stop_the_others(api, home):
    (home / "file").write_text("")
    files = [(f"{home}/a", b"1"), (f"{home}/file/below", b"2" * 300_000), (f"{home}/c", b"3")]
    body = await api.error("POST", "/files/bulk-upload", 400, data=bulk_form(files, interleaved=True))
    assert len(body["errors"]) == 1
    assert "file/below" in body["errors"][0]
    assert [f["path"] for f in body["files"]] == [f"{home}/a", f"{home}/c"]
    assert (home / "c").read_bytes() == b"3"


async def test_bulk_uploads_that_make_no_sense_are_400(api, home):
    form = aiohttp.FormData()
    form.add_field("files[0].file", b"x", filename="f")  # the path is missing
    body = await api.error("POST", "/files/bulk-upload", 400, data=form)
    assert "missing" in body["errors"][0]
    form = aiohttp.FormData()
    form.add_field("surprise", "x")
    await api.error("POST", "/files/bulk-upload", 400, data=form)
    await api.error("POST", "/files/bulk-upload", 400, data=b"x")
    form = bulk_form([("", b"x")], interleaved=True)
    await api.error("POST", "/files/bulk-upload", 400, data=form)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    half = b'--b\r\nContent-Disposition: form-data; name="files[0].path"\r\n\r\n/tmp'
    body = await api.error("POST", "/files/bulk-upload", 400, data=half, headers=headers)
    assert "boundary" in body["errors"][0]


# --- bulk download ----------------------------------------------------------------------------------------


async def bulk_download(http, paths):
    async with http.post("/files/bulk-download", json={"paths": paths}) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "multipart/form-data; boundary=DAYTONA-FILE-BOUNDARY"
        return await answer.read()


def parts_of(body):
    assert body.startswith(SEPARATOR + b"\r\n")
    assert body.endswith(b"\r\n" + SEPARATOR + b"--\r\n")
    inner = body[len(SEPARATOR) + 2 : -len(SEPARATOR) - 6]
    for part in inner.split(b"\r\n" + SEPARATOR + b"\r\n"):
        head, _, content = part.partition(b"\r\n\r\n")
        yield dict(line.split(": ", 1) for line in head.decode().split("\r\n")), content


async def test_bulk_download_keeps_order_and_gives_lengths(http, home):
    sizes = {"small.txt": 3, "empty": 0, "large.bin": 2_500_000, "é ü.txt": 70_000}
    for name, size in sizes.items():
        (home / name).write_bytes(os.urandom(size))
    paths = [f"{home.name}/{name}" for name in sizes]
    parts = list(parts_of(await bulk_download(http, paths)))
    for (headers, content), path, (name, size) in zip(parts, paths, sizes.items(), strict=True):
        assert headers["Content-Length"] == str(size)
        assert content == (home / name).read_bytes()
        assert headers["Content-Disposition"].startswith('form-data; name="file"; filename="')
        assert headers["Content-Disposition"].endswith(f"filename*=utf-8''{quote(path, safe='')}")
    assert parts[0][0]["Content-Type"] == "text/plain"


async def test_files_that_cannot_be_read_are_error_parts(http, home):
    (home / "ok").write_text("fine")
    paths = [f"{home}/gone", str(home), "", f"{home}/ok", "a\r\nX-Injected: 1"]
    parts = list(parts_of(await bulk_download(http, paths)))
    codes = [json.loads(content)["code"] if b"{" in content else content for _, content in parts]
    assert codes == ["FILE_NOT_FOUND", "INVALID_FILE_PATH", "INVALID_FILE_PATH", b"fine", "FILE_NOT_FOUND"]
    assert json.loads(parts[0][1])["path"] == f"{home}/gone"
    assert 'name="error"' in parts[0][0]["Content-Disposition"]
    assert all("X-Injected" not in headers for headers, _ in parts)


@pytest.mark.parametrize("body", [{}, {"paths": []}, {"paths": "x"}, {"paths": [1]}])
async def test_bulk_download_of_nothing_is_400(api, body):
    await api.error("POST", "/files/bulk-download", 400, json=body)


async def test_thousands_of_small_files_go_both_ways_in_one_request_each(api, http, home):
    files = [(f"{home}/{n}", b"%d" % n) for n in range(2000)]
    boundary = "b"
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="files[{n}].path"\r\n\r\n{path}\r\n'
        f'--b\r\nContent-Disposition: form-data; name="files[{n}].file"; filename="x"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for n, (path, content) in enumerate(files)
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    await api("POST", "/files/bulk-upload", data=body + b"--b--\r\n", headers=headers)
    parts = parts_of(await bulk_download(http, [path for path, _ in files]))
    assert [content for _, content in parts] == [content for _, content in files]


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        match = re.search(r"VmHWM:\s+(\d+)", status.read())
    assert match
    return int(match.group(1))


@pytest.mark.slow
async def test_a_gibibyte_goes_both_ways_in_constant_memory(daemon, api, http, home):
    """Issue 6 and design section 10: memory growth under 64 MiB."""
    size, block = 1024**3, os.urandom(1024 * 1024)

    async def body():
        for _ in range(size // len(block)):
            yield block

    before = resident_kib(daemon.process.pid)
    await api("POST", "/files/upload-v2", params={"path": str(home / "big")}, data=body(), timeout=None)
    assert (home / "big").stat().st_size == size
    async with http.post("/files/bulk-download", json={"paths": [str(home / "big")]}, timeout=None) as answer:
        received = 0
        async for chunk in answer.content.iter_any():
            received += len(chunk)
    assert received > size
    (home / "big").unlink()
    assert resident_kib(daemon.process.pid) - before < 64 * 1024
