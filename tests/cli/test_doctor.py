"""``jupyter daytona doctor``: it finds what is missing, says what to do, and shows no key."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from daytona_kernel import cli, doctor

KEY = "dtn_not-to-be-shown"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN", "DAYTONA_API_URL", "DAYTONA_KERNEL_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    """The machine that runs the tests has the package and its kernelspec installed."""
    assert cli.main(["doctor", "--offline"]) == 0
    shown = capsys.readouterr().out
    assert "kernel 'daytona' in" in shown
    assert "embedded local server (no credentials are set)" in shown
    assert "BAD" not in shown


def test_missing_programs_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: None if name in {"bwrap", "x11vnc"} else f"/bin/{name}"
    )
    isolation, desktop = doctor.check_local()
    assert (isolation.level, isolation.advice) == (doctor.NOTE, "apt install bubblewrap")
    assert "not isolated" in isolation.text
    assert desktop.level == doctor.NOTE
    assert desktop.text.endswith("without x11vnc")


def test_a_kernel_whose_python_is_gone_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "kernels" / "old"
    folder.mkdir(parents=True)
    argv = [str(tmp_path / "gone" / "python"), "-m", "daytona_kernel", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Old", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    (bad,) = [finding for finding in doctor.check_kernelspec() if finding.level == doctor.BAD]
    assert "which is not there" in bad.text
    assert bad.advice == "jupyter daytona install --name old"


def test_no_kernelspec_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.find_kernel_specs", lambda self: {})
    (bad,) = doctor.check_kernelspec()
    assert (bad.level, bad.advice) == (doctor.BAD, "jupyter daytona install")


def test_a_service_that_cannot_be_reached_is_bad_and_the_key_stays_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
        monkeypatch.setenv("DAYTONA_API_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/api")
        monkeypatch.setenv("DAYTONA_API_KEY", KEY)
        assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "Daytona's service; found credentials (API key, not shown)" in shown
    assert "BAD  ConnectionFailed" in shown
    assert KEY not in shown


def test_a_backend_without_credentials_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_KERNEL_BACKEND", "daytona")
    (finding,) = doctor.check_service()
    assert finding.level == doctor.BAD
    assert "there are no credentials" in finding.text
