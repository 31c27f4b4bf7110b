"""A run goes on when nobody reads what it says any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daytona_kernel.steady import steady_stderr

from .conftest import MakeNotebook


def test_stderr_may_be_closed_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with open(writer, "w", buffering=1) as out:
        monkeypatch.setattr(sys, "stderr", out)
        with steady_stderr():
            print("seen", file=sys.stderr)
            assert os.read(reader, 10) == b"seen\n"
            os.close(reader)
            print("unseen", file=sys.stderr)
            print("unseen", file=sys.stderr, flush=True)
            assert not sys.stderr.isatty()
        assert sys.stderr is out


def test_there_may_be_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with steady_stderr():
        print("unseen", file=sys.stderr)


def test_a_run_whose_output_nobody_reads_ends_as_it_would(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    """As in ``jupyter daytona run ... 2>&1 | head -1``; a cell that fails after that is still told apart."""
    book = make_notebook("print(1)", "print(2)", "1 / 0")
    reader, writer = os.pipe()
    os.close(reader)
    words = ["run", str(book), "--kernel", "python3", "--json", "-"]
    command = [sys.executable, "-m", "daytona_kernel.cli", *words]
    with open(writer, "wb") as nobody:
        ended = subprocess.run(command, stdout=nobody, stderr=nobody, timeout=60)
    assert ended.returncode == 1
    cells = json.loads((tmp_path / "book.out.ipynb").read_text())["cells"]
    assert [cell["outputs"][0].get("text") for cell in cells] == [["1\n"], ["2\n"], None]
