"""The other commands: install, uninstall, version, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from daytona_kernel import __version__, cli, kernelspecs
from daytona_kernel.config import DaytonaSettings

HEAVY = (
    "daytona",
    "aiohttp",
    "websockets",
    "IPython",
    "ipykernel",
    "nbclient",
    "nbformat",
    "jupyter_client",
    "tqdm",
)


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom daytona_kernel import cli\n"
        "code = cli.main(['version'])\ncli.build_parser().format_help()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [__version__, "[] 0"]


def test_jupyter_finds_the_program() -> None:
    """``jupyter NAME`` runs ``jupyter-NAME``; the scripts are beside this interpreter."""
    jupyter = Path(sys.executable).parent / "jupyter"
    result = subprocess.run([jupyter, "daytona", "version"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_does_not_fit_on_the_disk_is_told_in_a_line(buffered: str) -> None:
    command = [sys.executable, "-m", "daytona_kernel.cli", "version"]
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "No space left" in result.stderr


def test_without_a_command_the_help_is_shown_and_the_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "run notebooks headlessly" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["fly"])
    assert caught.value.code == 2
    assert "fly" in capsys.readouterr().err


def test_install_writes_a_kernelspec_that_starts_this_interpreter(tmp_path: Path) -> None:
    options = [
        "--name",
        "daytona-lab",
        "--display-name",
        "Lab",
        "--sandbox",
        "lab 1",
        "--env",
        "DAYTONA_TARGET=eu",
    ]
    assert cli.main(["install", "--prefix", str(tmp_path), *options]) == 0
    folder = tmp_path / "share" / "jupyter" / "kernels" / "daytona-lab"
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"] == [sys.executable, "-m", "daytona_kernel", "-f", "{connection_file}"]
    assert spec["display_name"] == "Lab"
    assert spec["interrupt_mode"] == "message"
    assert spec["env"] == {"DAYTONA_TARGET": "eu", "DAYTONA_SANDBOX": "lab 1"}
    assert {path.name for path in folder.iterdir()} >= {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}


def test_an_installed_kernelspec_is_found_by_jupyter_and_removed_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For the user, in the private folder that the fixture made."""
    assert cli.main(["install", "--name", "Mine"]) == 0
    found = KernelSpecManager().get_kernel_spec("mine")
    assert found.display_name == "Python 3 (Daytona): Mine"
    assert cli.main(["uninstall", "--name", "Mine"]) == 0
    assert not Path(found.resource_dir).exists()
    assert cli.main(["uninstall", "--name", "Mine"]) == 1
    assert "there is no kernelspec 'Mine'" in capsys.readouterr().err


def test_a_kernelspec_can_belong_to_the_environment_of_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    folder = tmp_path / "share" / "jupyter" / "kernels" / "daytona-env"
    assert cli.main(["install", "--sys-prefix", "--name", "daytona-env"]) == 0
    assert json.loads((folder / "kernel.json").read_text())["language"] == "python"
    assert cli.main(["uninstall", "--sys-prefix", "--name", "daytona-env"]) == 0
    assert not folder.exists()


def test_several_kernelspecs_side_by_side_each_with_a_kind_of_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--image", "python:3.12", "--gpu", "1", "--cpu", "4", "--memory", "16", "--disk", "50"]
    assert cli.main(["install", "--prefix", str(tmp_path), "--name", "daytona-gpu", *words]) == 0
    words = [
        "--snapshot",
        "ml",
        "--auto-stop",
        "2h",
        "--target",
        "eu",
        "--no-network",
        "--display-name",
        "ML",
    ]
    assert cli.main(["install", "--prefix", str(tmp_path), "--name", "daytona-ml", *words]) == 0
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    specs = KernelSpecManager()
    assert {"daytona-gpu", "daytona-ml"} <= set(specs.find_kernel_specs())
    assert specs.get_kernel_spec("daytona-gpu").env == {
        "DAYTONA_KERNEL_IMAGE": "python:3.12",
        "DAYTONA_KERNEL_CPU": "4",
        "DAYTONA_KERNEL_MEMORY_GIB": "16",
        "DAYTONA_KERNEL_DISK_GIB": "50",
        "DAYTONA_KERNEL_GPU": "1",
    }
    other = specs.get_kernel_spec("daytona-ml")
    for name, value in other.env.items():
        monkeypatch.setenv(name, value)
    settings = DaytonaSettings()
    settings.check()
    assert (settings.snapshot, settings.auto_stop, settings.network_block_all) == ("ml", 7200.0, True)
    assert (other.display_name, other.env["DAYTONA_TARGET"]) == ("ML", "eu")
    assert cli.main(["uninstall", "--prefix", str(tmp_path), "--name", "daytona-gpu"]) == 0
    assert "daytona-gpu" not in specs.find_kernel_specs()
    assert "daytona-ml" in specs.find_kernel_specs()


def test_install_replaces_an_older_one_of_the_same_name(tmp_path: Path) -> None:
    for sandbox in ("one", "two"):
        assert cli.main(["install", "--prefix", str(tmp_path), "--sandbox", sandbox]) == 0
    spec = json.loads((tmp_path / "share/jupyter/kernels/daytona/kernel.json").read_text())
    assert spec["env"] == {"DAYTONA_SANDBOX": "two"}
    assert spec["display_name"] == "Python 3 (Daytona)"


def test_uninstall_leaves_other_peoples_kernels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["python", "-m", "ipykernel_launcher"]}))
    assert cli.main(["uninstall", "--name", "python3", "--prefix", str(tmp_path)]) == 1
    assert (folder / "kernel.json").exists()
    assert "left alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["..", ".", "", "../kernels"])
def test_uninstall_never_leaves_the_folder_of_kernels(tmp_path: Path, name: str) -> None:
    """Each of these names a folder with a kernel.json of ours, but not one directly under kernels/."""
    kernels = tmp_path / "share" / "jupyter" / "kernels"
    kernels.mkdir(parents=True)
    spec = json.dumps(kernelspecs.kernel_json("x", {}))
    for folder in (kernels, kernels.parent):
        (folder / "kernel.json").write_text(spec)
    assert cli.main(["uninstall", "--name", name, "--prefix", str(tmp_path)]) == 1
    assert (kernels / "kernel.json").exists()
    assert (kernels.parent / "kernel.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--env", "DAYTONA_API_KEY=dtn_secret"], "no place for a secret"),
        (["--env", "NOVALUE"], "write KEY=VALUE"),
        (["--env", "1A=b"], "write KEY=VALUE"),
        (["--name", "a b"], "letters, digits"),
        (["--name", "../x"], "letters, digits"),
        (["--snapshot", "a", "--image", "b"], "made from one of them"),
        (["--gpu", "1"], "need --image"),
        (["--sandbox", "lab", "--snapshot", "a"], "a sandbox that is there"),
    ],
)
def test_install_refuses_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert cli.main(["install", "--prefix", str(tmp_path), *options]) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert "dtn_secret" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line_and_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "share").write_text("a file where a folder should be")
    assert cli.main(["install", "--prefix", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("cannot write the kernelspec")
