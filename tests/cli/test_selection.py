"""Which notebooks the words of ``run`` name, and where their results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from daytona_kernel.selection import Job, SelectionError, select


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [
        "books/a.ipynb",
        "books/sub/b.ipynb",
        "books/a.out.ipynb",
        "books/.ipynb_checkpoints/a-checkpoint.ipynb",
        "books/.hidden/c.ipynb",
        "books/data.csv",
        "other/a.ipynb",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(job.name, job.target.as_posix()) for job in jobs]


@pytest.mark.parametrize("word", ["books/**/*.ipynb", "books", "./books/"])
def test_patterns_and_folders_leave_out_results_checkpoints_and_what_is_hidden(tree: Path, word: str) -> None:
    found = shown(select([word], output_dir=Path("out")))
    assert found == [("books/a.ipynb", "out/a.ipynb"), ("books/sub/b.ipynb", "out/sub/b.ipynb")]
    assert (tree / "out" / "sub").is_dir()


def test_without_a_folder_for_results_they_are_beside_the_notebooks(tree: Path) -> None:
    found = shown(select(["books/sub/b.ipynb", "books/a.ipynb"]))
    assert found == [
        ("books/sub/b.ipynb", "books/sub/b.out.ipynb"),
        ("books/a.ipynb", "books/a.out.ipynb"),
    ]


def test_files_that_are_named_keep_the_folders_in_which_they_differ(tree: Path) -> None:
    found = shown(select(["books/a.ipynb", "other/a.ipynb"], output_dir=Path("out")))
    assert [target for _, target in found] == ["out/books/a.ipynb", "out/other/a.ipynb"]
    assert shown(select(["books/a.ipynb"], output_dir=Path("out"))) == [("books/a.ipynb", "out/a.ipynb")]


def test_a_notebook_that_is_named_twice_runs_once(tree: Path) -> None:
    assert len(select(["books/a.ipynb", "books/*.ipynb", str(tree / "books" / "a.ipynb")])) == 1


def test_a_result_can_be_run_where_it_is_named(tree: Path) -> None:
    assert shown(select(["books/a.out.ipynb"])) == [("books/a.out.ipynb", "books/a.out.out.ipynb")]


def test_results_of_an_earlier_run_in_the_same_folder_are_not_run(tree: Path) -> None:
    select(["books"], output_dir=Path("books/out"))
    (tree / "books" / "out" / "a.ipynb").write_text("{}")
    assert len(select(["books"], output_dir=Path("books/out"))) == 2


def test_a_folder_may_be_named_like_a_pattern(tree: Path) -> None:
    (tree / "books").rename(tree / "[ab] *")
    assert [name for name, _ in shown(select(["[ab] *"]))] == ["[ab] */a.ipynb", "[ab] */sub/b.ipynb"]


def test_the_folder_for_results_can_not_be_that_of_the_notebooks(tree: Path) -> None:
    """A run of nothing must not look as if all had gone well, nor a result replace its notebook unasked."""
    with pytest.raises(SelectionError, match="all notebooks that were found are in books"):
        select(["books/**/*.ipynb"], output_dir=Path("books"))
    with pytest.raises(SelectionError, match=r"would replace the notebook books/a\.ipynb.*--inplace"):
        select(["books/a.ipynb"], output_dir=Path("books"))


@pytest.mark.parametrize(
    ("target", "folder"), [("out/a.ipynb", "out/a.files"), ("books/a.out.ipynb", "books/a.files")]
)
def test_what_is_collected_goes_beside_the_result(target: str, folder: str) -> None:
    assert Job(Path("books/a.ipynb"), Path(target), "books/a.ipynb").files == Path(folder)


@pytest.mark.parametrize(
    ("words", "output", "reason"),
    [
        (["nowhere.ipynb"], None, r"there is no notebook nowhere\.ipynb"),
        (["none*.ipynb"], None, "no notebook matches"),
        (["empty"], None, "there are no notebooks in empty"),
        (["books"], Path("one.ipynb"), "-o names one file, but there are 2 notebooks"),
        (["books/a.ipynb"], Path("no/one.ipynb"), "there is no folder no to save in"),
        (["books", "other"], None, "would both be"),
        ([""], None, "there is no notebook ''"),
        (["n" * 300], None, "n{300}"),
        (["books/a.ipynb"], Path("other"), "other is a folder; use --output-dir"),
        (["books/a.ipynb", "books/a.out.ipynb"], None, "would replace the notebook books/a.out.ipynb"),
    ],
)
def test_what_can_not_be_is_one_sentence(
    tree: Path, words: list[str], output: Path | None, reason: str
) -> None:
    (tree / "empty").mkdir()
    both = Path("out") if words == ["books", "other"] else None
    with pytest.raises(SelectionError, match=reason):
        select(words, output=output, output_dir=both)
