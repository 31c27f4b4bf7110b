"""A transfer whose connection is lost on the way: what had come is kept, and every byte is right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from daytona_kernel import fetching, sending, transfer
from daytona_kernel.toolbox import Toolbox
from daytona_kernel.transfer import Item

from .bench import Notebook
from .conftest import Faulty
from .proxy import Cut, How, Plan

SIZE = 24 << 20


@pytest.mark.parametrize("how", ["reset", "finish"])
async def test_a_download_goes_on_where_it_was_cut(
    faulty: Faulty, notebook: Notebook, tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0,) * 5)
    cell = await notebook.run(
        f"import os, hashlib; data = os.urandom({SIZE}); open('big.bin', 'wb').write(data); "
        "print(os.getcwd(), hashlib.sha256(data).hexdigest())"
    )
    folder, digest = cell.text().split()
    assert notebook.session.toolbox is not None
    box = Toolbox(notebook.session.toolbox.endpoint)  # with connections of its own
    faulty.proxy.plan(Plan(down=Cut(after=SIZE * 6 // 10, how=how)), path="files/download", nth=1)
    counted: list[int] = []
    item = Item(tmp_path / "big.bin", f"{folder}/big.bin", SIZE, 0o644, 0.0)
    try:
        outcome = await transfer.download(box, [item], force=False, count=counted.append)
    finally:
        await box.close()
    assert outcome.errors == []
    assert [found for _, found in outcome.moved] == [digest]
    assert hashlib.sha256((tmp_path / "big.bin").read_bytes()).hexdigest() == digest
    assert sum(counted) == SIZE  # no byte was counted twice
    assert os.listdir(tmp_path) == ["big.bin"]
    cut, rest = [one for one in faulty.proxy.connections if "files/download" in (one.path or "")]
    assert cut.down.bytes_passed < SIZE
    assert rest.down.bytes_passed < SIZE  # not the whole file again


async def test_an_upload_that_is_cut_arrives_all_the_same(
    faulty: Faulty, notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces then, of which one is cut, too; and of which a proxy takes only small ones."""
    monkeypatch.setattr(sending, "PAUSES_S", (0.0,) * 5)
    data = os.urandom(1 << 20) * 24
    (tmp_path / "big.bin").write_bytes(data)
    assert notebook.session.toolbox is not None
    box = Toolbox(notebook.session.toolbox.endpoint)
    faulty.proxy.plan(Plan(up=Cut(after=SIZE * 9 // 10)), path="files/bulk-upload", nth=1)
    faulty.proxy.plan(Plan(up=Cut(after=sending.PIECE_BYTES // 2)), path="files/bulk-upload", nth=2)
    counted: list[int] = []
    item = Item(tmp_path / "big.bin", f"{notebook.home}/up/big.bin", SIZE, 0o640, 0.0)
    try:
        outcome = await transfer.upload(box, [item], counted.append)
    finally:
        await box.close()
    assert outcome.errors == []
    assert sum(counted) == SIZE
    cell = await notebook.run(
        "import hashlib, os; os.chdir('up')\n"
        "print(hashlib.sha256(open('big.bin', 'rb').read()).hexdigest(), os.listdir())"
    )
    assert cell.lines == [f"{hashlib.sha256(data).hexdigest()} ['big.bin']"]
