"""A transfer whose connection is lost on the way: what had come is kept, and every byte is right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from daytona_kernel import fetching, transfer
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
