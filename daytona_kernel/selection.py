"""Which notebooks a run is about, and where the results of each go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_RESULT = ".out.ipynb"
_SKIPPED_FOLDERS = frozenset({".ipynb_checkpoints", "__pycache__", "node_modules"})


class SelectionError(Exception):
    """Nothing can be run as it was asked for; the text is a sentence for the user."""


@dataclass(frozen=True)
class Job:
    """One notebook to run. ``name`` is how it is shown and reported; relative, with ``/``."""

    notebook: Path
    target: Path
    name: str

    @property
    def files(self) -> Path:
        """The folder for what is collected from the sandbox: ``NAME.files`` beside the result."""
        return self.target.with_name(_stem(self.target.name) + ".files")


def select(
    words: Sequence[str], *, output: Path | None = None, output_dir: Path | None = None, inplace: bool = False
) -> list[Job]:
    """Return a job for each notebook that *words* (files, folders, patterns) name, each once, in order.

    In a folder and for a pattern, results of earlier runs (``*.out.ipynb``) and what is below hidden folders
    are left out. *output* is for one notebook only. Raises :exc:`SelectionError` if a word names nothing, if
    two results would be the same file, if a result would be written over another notebook of the run, or if a
    folder for results is missing.
    """
    found = list(_unique(words, output_dir))
    if not found:
        raise SelectionError(
            f"all notebooks that were found are in {output_dir}, the folder for results; name another one"
        )
    if output is not None and len(found) != 1:
        raise SelectionError(f"-o names one file, but there are {len(found)} notebooks; use --output-dir")
    shared = _common([path for path, below in found if below is None])
    jobs = []
    for path, below in found:
        if inplace:
            target = path
        elif output is not None:
            target = output
        elif output_dir is not None:
            target = output_dir / os.path.relpath(path, shared if below is None else below)
        else:
            target = path.with_name(path.stem + _RESULT)
        jobs.append(Job(path, target, _shown(path)))
    _check(jobs, make_folders=output_dir is not None, inplace=inplace)
    return jobs


def _unique(words: Sequence[str], output_dir: Path | None) -> Iterator[tuple[Path, Path | None]]:
    """Yield each notebook, and the folder that its place among the results is counted from.

    ``None`` for one that was named itself: those are counted from the folder that they have in common.
    """
    seen: set[Path] = set()
    for word in words:
        for path, below in _expand(word):
            real = path.resolve()
            if below is not None and output_dir is not None and real.is_relative_to(output_dir.resolve()):
                continue
            if real not in seen:
                seen.add(real)
                yield path, below


def _expand(word: str) -> list[tuple[Path, Path | None]]:
    path = Path(word)
    if not word:  # a shell variable that is not set, which must not mean all that is here
        raise SelectionError("there is no notebook ''")
    try:
        is_file, is_dir = path.is_file(), path.is_dir()
    except OSError as exc:  # no right to look there, a name that is too long
        raise SelectionError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if is_file:
        return [(path, None)]
    if is_dir:
        base, found = path, _listed(str(Path(glob.escape(word), "**", "*.ipynb")))
        if not found:
            raise SelectionError(f"there are no notebooks in {path}")
        return [(one, base) for one in found]
    if not glob.has_magic(word):
        raise SelectionError(f"there is no notebook {word}")
    found = _listed(os.path.expanduser(word))
    if not found:
        raise SelectionError(f"no notebook matches {word}")
    fixed = Path(*_fixed_parts(Path(os.path.expanduser(word))))
    return [(one, fixed) for one in found]


def _listed(pattern: str) -> list[Path]:
    paths = (Path(name) for name in sorted(glob.glob(pattern, recursive=True)))
    return [
        path
        for path in paths
        if os.path.isfile(path)
        and path.suffix == ".ipynb"
        and not path.name.endswith(_RESULT)
        and not _SKIPPED_FOLDERS & set(path.parts)
    ]


def _fixed_parts(pattern: Path) -> Iterator[str]:
    """The folders of a pattern before the first that has a wildcard."""
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _common(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()


def _shown(path: Path) -> str:
    """*path* as seen from here, if it is below here."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _stem(name: str) -> str:
    return name[: -len(_RESULT)] if name.endswith(_RESULT) else Path(name).stem


def _check(jobs: list[Job], *, make_folders: bool, inplace: bool) -> None:
    taken: dict[Path, Path] = {}
    sources = {} if inplace else {job.notebook.resolve(): job for job in jobs}
    for job in jobs:
        other = taken.setdefault(job.target.absolute(), job.notebook)
        if other is not job.notebook:
            raise SelectionError(f"the results of {other} and {job.notebook} would both be {job.target}")
        source = sources.get(job.target.resolve())
        if source is not None and (source is not job or make_folders):
            raise SelectionError(
                f"the result of {job.notebook} would replace the notebook {source.notebook}; "
                "name another folder, or use --inplace"
            )
        if os.path.isdir(job.target):
            raise SelectionError(f"{job.target} is a folder; use --output-dir to save in it")
        if not make_folders and not os.path.isdir(job.target.parent):
            raise SelectionError(f"there is no folder {job.target.parent} to save in")
    if make_folders:
        for folder in {job.target.parent for job in jobs}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise SelectionError(f"cannot make the folder {folder}: {exc.strerror or exc}") from exc
