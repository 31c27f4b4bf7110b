"""``jupyter daytona doctor``: it finds what is missing, says what to do, and shows no key."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from daytona_kernel import cli, doctor
from daytona_kernel.errors import SandboxCreationFailed
from tests.security.canary.marks import MARK, PLANTED

KEY = f"dtn_{MARK}{PLANTED}-not-to-be-shown"


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


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("ipykernel", "not-there-at-all"))
    (bad,) = [finding for finding in doctor.check_python() if finding.level == doctor.BAD]
    assert bad == doctor.Finding(
        doctor.BAD, "the package not-there-at-all is not installed", "pip install not-there-at-all"
    )


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_a_proxy_is_named_without_its_password(proxies: pytest.MonkeyPatch) -> None:
    (none,) = doctor.check_proxy()
    assert (none.level, none.text) == (doctor.OK, "no proxy is set")
    proxies.setenv("https_proxy", "http://me:hunter2@proxy:3128")
    (finding,) = doctor.check_proxy()
    assert finding.level == doctor.NOTE
    assert "HTTPS_PROXY=http://me:***@proxy:3128" in finding.text
    assert "hunter2" not in finding.text
    assert finding.advice == "export NO_PROXY=127.0.0.1,localhost"
    proxies.setenv("NO_PROXY", "example.org, 127.0.0.1")
    (finding,) = doctor.check_proxy()
    assert finding.level == doctor.OK


@contextmanager
def service(offset: float = 0.0) -> Iterator[str]:
    """The address of a web server whose clock is off by *offset* seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", formatdate(time.time() + offset, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing is to be read in the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


def endpoint_findings(monkeypatch: pytest.MonkeyPatch, url: str) -> list[doctor.Finding]:
    monkeypatch.setenv("DAYTONA_API_KEY", KEY)
    monkeypatch.setenv("DAYTONA_API_URL", url)
    return list(doctor.check_endpoint())


def test_the_local_server_needs_no_endpoint() -> None:
    assert list(doctor.check_endpoint()) == []


def test_an_endpoint_that_answers_and_agrees_on_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with service() as url:
        place, clock = endpoint_findings(monkeypatch, url)
    assert (place.level, clock.level) == (doctor.OK, doctor.OK)
    assert "is at 127.0.0.1 (DNS: " in place.text


@pytest.mark.parametrize(("offset", "word"), [(600, "behind"), (-600, "ahead of")])
def test_a_clock_that_is_off(monkeypatch: pytest.MonkeyPatch, offset: float, word: str) -> None:
    with service(offset) as url:
        _, clock = endpoint_findings(monkeypatch, url)
    assert clock.level == doctor.BAD
    assert word in clock.text
    assert "timedatectl" in clock.advice


def test_an_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    (bad,) = endpoint_findings(monkeypatch, "app.daytona.io/api")
    assert bad.level == doctor.BAD
    assert "is no URL" in bad.text


def test_an_endpoint_whose_name_is_not_known_and_that_is_not_https(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(doctor.socket, "getaddrinfo", unknown)
    insecure, bad = endpoint_findings(monkeypatch, "http://daytona.example/api")
    assert "is not https" in insecure.text
    assert (insecure.level, bad.level) == (doctor.BAD, doctor.BAD)
    assert bad.text == "the name daytona.example is not known to DNS (Name or service not known)"


@pytest.mark.parametrize("version", ["3.12.1", ""])
def test_a_round_trip_tells_its_times_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    async def measured() -> tuple[float, float, str]:
        return 1.5, 0.012, version

    monkeypatch.setattr(doctor, "_time_a_sandbox", measured)
    times, python = doctor.check_round_trip()
    assert times.text == "a sandbox was there after 1.50 s; a command in it takes 12 ms"
    assert python.level == (doctor.OK if version else doctor.BAD)


def test_a_sandbox_that_can_not_be_made_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused() -> tuple[float, float, str]:
        raise SandboxCreationFailed("The quota is used up.")

    monkeypatch.setattr(doctor, "_time_a_sandbox", refused)
    (bad,) = doctor.check_round_trip()
    assert (bad.level, bad.text) == (
        doctor.BAD,
        "no sandbox could be used: SandboxCreationFailed: The quota is used up.",
    )


def test_the_findings_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["doctor", "--offline", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert any("proxy" in one["text"] for one in found["findings"])
    monkeypatch.setenv("DAYTONA_KERNEL_BACKEND", "daytona")
    assert cli.main(["doctor", "--offline", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert "BAD" in {one["level"] for one in found["findings"]}


def test_a_service_that_takes_connections_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("DAYTONA_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DAYTONA_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        (finding,) = doctor.check_connection()
    assert finding.level == doctor.BAD
    assert finding.text == "Daytona's service did not answer within 0.3 s"
    assert finding.advice == "is DAYTONA_API_URL right?"
