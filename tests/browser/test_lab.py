"""What a person sees in JupyterLab and in Notebook 7, in a real browser."""

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
    page.complete(1, "word_list")
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


@pytest.mark.cells(
    "count = 10\nprint('first', count)", "count += 1\nprint('second', count)", "'end of the notebook'"
)
def test_restart_and_run_all_begins_with_nothing(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    for index in (0, 1, 1):
        page.run_cell(index)
        page.until_done(index)
    page.until_output(1, "second 12")
    page.restart_and_run_all()
    page.until_output(1, "second 11")
    page.until_output(2, "'end of the notebook'")
    assert [page.prompt(index) for index in range(3)] == ["[1]:", "[2]:", "[3]:"]


SLIDER = """from ipywidgets import interact
@interact(x=(0, 10))
def square(x=3):
    print(f"{x} squared is {x * x}")"""


@pytest.mark.cells(SLIDER, "square.widget.children[0].value")
def test_a_slider_that_is_moved_calls_the_function_in_the_sandbox(page: LabPage, notebook: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open_notebook(notebook)
    page.run_cell(0)
    page.until_output(0, "3 squared is 9")
    handle = page.find(f"{page.CELLS} .widget-slider .noUi-handle")
    for value in (4, 5, 6, 7):
        handle.send_keys(Keys.ARROW_RIGHT)
        page.until_output(0, f"{value} squared is {value * value}")
    page.run_cell(1)
    page.until_output(1, "7")


BUTTON = """import ipywidgets
out = ipywidgets.Output()
button = ipywidgets.Button(description="press")
presses = []
def pressed(_):
    presses.append(1)
    with out:
        print("pressed", len(presses))
button.on_click(pressed)
bar = ipywidgets.IntProgress(max=3)
ipywidgets.link((bar, "value"), (slider := ipywidgets.IntSlider(max=3), "value"))
ipywidgets.VBox([button, out, bar])"""

AWAITING = """import asyncio
print("press again")
while len(presses) < 3:
    await asyncio.sleep(0.01)
print("seen", len(presses))"""


@pytest.mark.cells(BUTTON, AWAITING)
def test_a_button_writes_into_an_output_widget_also_while_a_cell_awaits(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)
    button = page.find(f"{page.CELLS} .jupyter-button")
    button.click()
    page.until_output(0, "pressed 1")
    page.run_cell(1)
    page.until_output(1, "press again")
    button.click()
    page.until_output(0, "pressed 2")
    button.click()
    page.until_output(1, "seen 3")
    page.until_output(0, "pressed 3")


@pytest.mark.cells(
    "word_list = ['kept']\nprint('shown', 6 * 7)",
    "word_l",
    "len",
    "name = input('who? ')\nprint('hello', name)",
    "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)",
    "word_list",
)
def test_notebook_7_runs_completes_explains_asks_and_interrupts(page: LabPage, notebook: str) -> None:
    from selenium.webdriver.common.keys import Keys

    pytest.importorskip("notebook", reason="notebook is not installed (extra: test)")
    page.open_notebook(notebook, "notebooks")
    page.run_cell(0)
    page.until_output(0, "shown 42")
    page.complete(1, "word_list")
    page.select_cell(2)
    page.type(Keys.END, Keys.SHIFT + Keys.TAB)
    assert "number of items" in page.find(".jp-Tooltip").text
    page.type(Keys.ESCAPE)
    page.run_cell(3)
    page.find(".jp-Stdin-input").send_keys("Ada\n")
    page.until_output(3, "hello Ada")
    page.run_cell(4)
    page.until_output(4, "begun")
    page.interrupt()
    page.until_output(4, "KeyboardInterrupt")
    page.run_cell(5)
    page.until_output(5, "['kept']")
