"""What the wheel and the source archive hold, and how the package presents itself once installed."""

from __future__ import annotations

import email.message
import email.parser
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = "share/jupyter/kernels/daytona"


def build(kind: str, folder: Path, source: Path = ROOT, environment: dict[str, str] | None = None) -> Path:
    """Build a ``wheel`` or ``sdist`` of *source* with the project's own build backend."""
    code = f"import hatchling.build as b, sys; print(b.build_{kind}(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=source,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return folder / result.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_installs_the_kernelspec_by_itself(wheel: zipfile.ZipFile) -> None:
    inside = {name.partition(".data/data/")[2] for name in wheel.namelist() if ".data/data/" in name}
    files = ("kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
    assert inside == {f"{SPEC}/{file}" for file in files}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "daytona_kernel/py.typed" in names
    assert "daytona_kernel/agent/__init__.py" in names
    tops = {name.split("/")[0].partition("-")[0] for name in names}
    assert tops == {"daytona_kernel"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith(".pyc")]


def test_every_module_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "daytona_kernel"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the package is not known")
    present = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    assert present <= set(wheel.namelist())


def test_the_metadata_says_what_is_needed(wheel: zipfile.ZipFile) -> None:
    info = metadata(wheel)
    assert info["Requires-Python"] == ">=3.10"
    assert info["License-Expression"] == "BSD-3-Clause"
    assert set(info.get_all("Provides-Extra", [])) >= {"lab", "test", "dev", "notebooks"}
    needed = [text for text in info.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert any(text.startswith("daytona") for text in needed)
    assert not any(text.startswith(("jupyterlab", "pytest", "matplotlib")) for text in needed)
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "jupyter-daytona = daytona_kernel.cli:main" in wheel.read(entry_points).decode()


def test_the_source_archive_holds_what_a_packager_needs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "kernelspec/kernel.json"} <= names
    assert "notebooks/quickstart.ipynb" in names
    assert "tests/packaging/test_wheel.py" in names


def test_both_archives_are_the_same_to_the_byte_wherever_and_whenever_they_are_built(tmp_path: Path) -> None:
    """Of two copies of the source: with other times, permissions and names, in other time zones."""
    pytest.importorskip("hatchling")
    found = []
    for number, zone in enumerate(("UTC", "Asia/Tokyo")):
        source = tmp_path / ("copy" * (number + 1))
        copy_source(source)
        for path in source.rglob("*"):
            path.chmod((0o755, 0o700)[number] if path.is_dir() else (0o644, 0o600)[number])
            os.utime(path, (number * 10**9, number * 10**9))
        variables = {"TZ": zone, "SOURCE_DATE_EPOCH": "1790000000", "PYTHONHASHSEED": str(number)}
        built = [build(kind, tmp_path / f"dist{number}", source, variables) for kind in ("wheel", "sdist")]
        found.append([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in built])
    assert found[0] == found[1]


def copy_source(target: Path) -> None:
    """Copy what the archives are made of."""
    target.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", "*.out.ipynb", ".ipynb_checkpoints")
    for name in ("daytona_kernel", "kernelspec", "notebooks", "docs"):
        shutil.copytree(ROOT / name, target / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)


def test_the_kernelspec_is_what_jupyter_expects() -> None:
    spec = json.loads((ROOT / "kernelspec" / "kernel.json").read_text())
    # Jupyter replaces a bare "python" by its own interpreter, so the file names no machine's path.
    assert spec["argv"] == ["python", "-m", "daytona_kernel", "-f", "{connection_file}"]
    assert spec["display_name"] == "Python 3 (Daytona)"
    assert spec["language"] == "python"
    assert spec["interrupt_mode"] == "message"


@pytest.mark.parametrize("size", [32, 64])
def test_the_logos_have_the_sizes_in_their_names(size: int) -> None:
    data = (ROOT / "kernelspec" / f"logo-{size}x{size}.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (size, size)


HEAVY = (
    "daytona",
    "aiohttp",
    "websockets",
    "IPython",
    "ipykernel",
    "nbclient",
    "jupyter_client",
    "asyncio",
    "zmq",
)


def test_importing_the_package_is_cheap() -> None:
    """It is imported by every IPython that has the extension in its configuration."""
    code = f"import sys, daytona_kernel; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "not json",
        "[]",
        "{}",
        "null",
        '{"shell_port": 1}',
        '{"transport": "tcp", "ip": "127.0.0.1"}',
        "\x00\xff",
    ],
    ids=[
        "missing",
        "empty",
        "text",
        "list",
        "no keys",
        "null",
        "ports missing",
        "all ports missing",
        "binary",
    ],
)
def test_a_bad_connection_file_gives_one_line_and_exit_code_1(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "connection.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    result = subprocess.run(
        [sys.executable, "-m", "daytona_kernel", "-f", str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "connection.json" in result.stderr
    assert result.stdout == ""
