"""What a person sees in JupyterLab, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .lab import LabPage

# Longer than the page waits for anything, so that a failure says what was not seen.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_kernel_is_in_the_launcher_and_runs_a_first_cell(page: LabPage, kernel_title: str) -> None:
    page.open_launcher()
    page.start_notebook(kernel_title)
    page.until(lambda _: page.kernel_name() == kernel_title, f"{kernel_title!r} in the toolbar")
    page.select_cell(0)
    page.type("print('shown', 6 * 7)")
    page.run_cell(0)
    page.until_output(0, "shown 42")
    page.until_done(0)
    assert page.prompt(0) == "[1]:"


TICKING = """import sys, time
for number in range(6):
    print("tick", number, round(time.time(), 3), flush=True)
    time.sleep(0.5)"""


@pytest.mark.cells("ready = True", TICKING)
def test_lines_appear_one_by_one_while_the_cell_runs(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)  # The sandbox is there from here on.
    page.until_done(0)
    page.watch_output(1)
    page.run_cell(1)
    page.until_output(1, "tick 5")
    page.until_done(1)
    counts = [text.count("tick") for _, text in page.watched()]
    assert counts == sorted(counts)
    assert set(counts) >= {1, 2, 3, 4, 5, 6}, "some lines arrived together"
    late = [when - float(text.split()[-1]) for when, text in page.watched()]
    print(f"from print to page: {min(late):.3f} to {max(late):.3f} s")


PLOT = """%matplotlib inline
import matplotlib.pyplot as plt
plt.figure(figsize=(3, 2))
plt.plot([1, 3, 2])
plt.show()"""


@pytest.mark.cells(PLOT, "from IPython.display import HTML\nHTML('<b id=\"bold\">strong</b>')")
def test_images_and_html_are_shown(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)
    image = page.find(f"{page.CELLS} .jp-RenderedImage img")
    page.until(
        lambda driver: driver.execute_script("return arguments[0].naturalWidth", image) > 100, "the image"
    )
    page.run_cell(1)
    assert page.find("#bold").text == "strong"


@pytest.mark.cells(
    "kept = 'state'\nimport time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)", "kept"
)
def test_the_stop_button_ends_a_cell_and_keeps_its_output_and_state(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)
    page.until_output(0, "begun")
    page.interrupt()
    page.until_output(0, "KeyboardInterrupt")
    assert "begun" in page.output(0)
    page.run_cell(1)
    page.until_output(1, "'state'")


@pytest.mark.cells("name = input('who? ')\nprint('hello', name)")
def test_a_question_of_the_cell_can_be_answered(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)
    box = page.find(".jp-Stdin-input")
    assert "who?" in page.output(0)
    box.send_keys("Ada\n")
    page.until_output(0, "hello Ada")


@pytest.mark.cells("word = 'remem'\nword_list = ['bered']", "word_l", "len")
def test_tab_completes_and_shift_tab_explains(page: LabPage, notebook: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open_notebook(notebook)
    page.run_cell(0)
    page.until_done(0)
    page.select_cell(1)
    page.type(Keys.END, Keys.TAB)
    page.until(lambda _: "word_list" in page.cell(1).text or "word_list" in page.text(), "the completion")
    page.select_cell(2)
    page.type(Keys.END, Keys.SHIFT + Keys.TAB)
    assert "number of items" in page.find(".jp-Tooltip").text


@pytest.mark.cells("def broken():\n    raise ValueError('what is wrong')\n\nbroken()", "print('never')")
def test_run_all_stops_at_the_error_and_shows_its_source(
    page: LabPage, notebook: str, lab_folder: Path
) -> None:
    page.open_notebook(notebook)
    page.run_all()
    page.until_output(0, "ValueError: what is wrong")
    assert "raise ValueError('what is wrong')" in page.output(0)
    page.until_idle()
    assert "never" not in page.output(1)
    page.save()

    def saved(_: object) -> bool:
        cells = json.loads((lab_folder / notebook).read_text())["cells"]
        return bool(cells[0]["outputs"]) and cells[0]["outputs"][-1]["ename"] == "ValueError"

    page.until(saved, "the error in the saved notebook")
