"""A copy of the project with an environment of its own, in which tests run against a changed package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from .model import Edit, Mutant

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("daytona_kernel", "tests", "docs", "kernelspec", "notebooks", "pyproject.toml", "README.md")
SECONDS = 600
"""For the tests of one mutant, at the most."""
TEST_SECONDS = 120
HIDDEN = ("DAYTONA_", "JUPYTER_", "JPY_", "IPYTHON", "PYTEST", "PYTHON", "XDG_", "CANARY_")


@dataclass
class Results:
    """What became of tests: the messages of those that failed, by name, and of those that were skipped."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Errors outside of tests: of fixtures, of the collection, of pytest itself."""


class Workshop:
    """One copy. Use it from one thread at a time."""

    def __init__(self, place: Path) -> None:
        self.place = place
        """Its name should be short: sockets have to fit below it."""
        self.tree = place / "p"
        self._times = count(1_600_000_000, 10)
        self._unharmed: dict[Path, str] = {}
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
                shutil.copytree(source, self.tree / name, ignore=unwanted)
            elif source.exists():
                shutil.copy2(source, self.tree / name)
        self._make_environment()

    def _make_environment(self) -> None:
        """A Python that has all packages of ours, and takes the copy for the installed one.

        Kernels find it by ``sys.executable`` and ``sys.prefix``, whatever variables a test takes away.
        """
        home = self.place / "v"
        venv.EnvBuilder(symlinks=True).create(home)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
        installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (packages / "copy.pth").write_text("\n".join([str(self.tree), *installed]) + "\n")
        self.python = home / "bin" / "python"
        for script in Path(sys.prefix, "bin").glob("jupyter*"):
            _, newline, rest = script.read_text(encoding="utf-8").partition("\n")
            (self.python.parent / script.name).write_text(f"#!{self.python}{newline}{rest}", encoding="utf-8")
            (self.python.parent / script.name).chmod(0o755)
        for name in ("share/jupyter", "etc/jupyter"):
            source = Path(sys.prefix, name)
            if source.is_dir():
                shutil.copytree(source, home / name, symlinks=True)
        specs = home / "share" / "jupyter" / "kernels"
        shutil.rmtree(specs / "daytona", ignore_errors=True)
        shutil.copytree(ROOT / "kernelspec", specs / "daytona")

    def change(self, edits: Sequence[Edit]) -> None:
        """Apply edits."""
        for edit in edits:
            path = self.tree / "daytona_kernel" / edit.file
            text = path.read_text(encoding="utf-8")
            assert text.count(edit.old) == 1, edit
            self._unharmed.setdefault(path, text)
            self._write(path, text.replace(edit.old, edit.new))

    def restore(self) -> None:
        """Undo them."""
        for path, text in self._unharmed.items():
            self._write(path, text)
        self._unharmed.clear()

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        when = next(self._times)  # byte code is taken for current by its source's time in seconds and size
        os.utime(path, (when, when))

    def run(self, tests: Sequence[str], name: str) -> Results:
        """Run tests in directories of their own."""
        work = self.place / name
        for folder in ("h", "t", "r"):
            (work / folder).mkdir(parents=True, mode=0o700)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(HIDDEN)}
        environment = {
            **kept,
            "HOME": str(work / "h"),
            "TMPDIR": str(work / "t"),
            "XDG_RUNTIME_DIR": str(work / "r"),
            "DAYTONA_LOCAL_DIR": str(work / "l"),
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        command = [str(self.python), "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        command += [f"--timeout={TEST_SECONDS}", f"--junitxml={work}/results.xml", "-o", "addopts="]
        command += [f"tests/{test}" for test in tests]
        with open(work / "output.txt", "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
        try:
            return read_results(work / "results.xml")
        except (OSError, ElementTree.ParseError):
            return Results(broken=[(work / "output.txt").read_text(errors="replace")[-1500:]])
        finally:
            stop = [str(self.python), "-m", "daytona_kernel.cli", "local", "stop"]
            if (work / "l").exists():
                subprocess.run(stop, env=environment, cwd="/", capture_output=True, timeout=60)
            shutil.rmtree(work, ignore_errors=True)


def read_results(path: Path) -> Results:
    """What a JUnit file says. Tests are called ``folder/test_file.py::test_name[parameter]``."""
    results = Results()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        module = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        name = f"{module}.py::{case.get('name', '')}"
        problems = [child for child in case if child.tag in ("failure", "error", "skipped")]
        results.passed |= {name} if not problems else set()
        for one in problems:
            message = one.get("message") or one.text or ""
            if one.tag == "skipped":
                results.skipped[name] = message
            elif one.tag == "failure":
                results.failed.setdefault(name, []).append(message)
            else:
                results.broken.append(f"{name}: {message}")
    return results


def verdict(mutant: Mutant, results: Results) -> str:
    """Why a mutant is a finding; empty if its tests failed as they should."""
    if results.broken:
        return f"something else broke: {results.broken[0][:300]}"
    for test in mutant.fails:
        messages = [said for name, texts in results.failed.items() if is_of(name, test) for said in texts]
        if not messages:
            return f"SURVIVED: {test} passes without the defence"
        wrong = [said for said in messages if not re.match(mutant.why, said)]
        if wrong:
            return f"{test} fails for another reason: {' '.join(wrong[0].split())[:300]}"
    return ""


def is_of(name: str, test: str) -> bool:
    """Whether a test's full name is `test`, or that with a parameter."""
    return name == test or name.startswith(f"{test}[")
