"""What ``%daytona`` shows in JupyterLab, in a real browser.

With ``DAYTONA_KERNEL_TEST_PICTURES`` naming a folder, pictures of it are put there, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

PICTURES = os.environ.get("DAYTONA_KERNEL_TEST_PICTURES", "")
UPLOAD_MIB = 2048 if PICTURES else 64
"""For a picture so much that it takes longer than the second after which progress is shown."""
SERVE = (
    "%daytona serve 8123 --iframe --height 150 --expires 10m -- sh -c "
    "'echo \"<h1 id=hello>Hello from the sandbox</h1>\" > index.html; exec python3 -m http.server 8123'"
)
COMMANDS = (
    "%daytona status",
    "%daytona ls -l /",
    "%daytona upload big.bin",
    SERVE,
    "%daytona serve 8123 --stop",
)


def take_picture(page: LabPage, name: str) -> None:
    """Save what is on the page, where somebody wants it."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.driver.save_screenshot(f"{PICTURES}/{name}.png")


@pytest.mark.cells(*COMMANDS)
def test_cards_tables_progress_and_pages_are_shown(page: LabPage, notebook: str, lab_folder: Path) -> None:
    with open(lab_folder / "big.bin", "wb") as file:
        file.truncate(UPLOAD_MIB << 20)
    page.open_notebook(notebook)
    page.run_cell(0)
    page.until_output(0, "local sandbox on this machine")
    page.run_cell(1)
    page.until_output(1, "modified")
    page.select_cell(0)
    take_picture(page, "status")
    if PICTURES:
        page.set_theme("JupyterLab Dark")
        take_picture(page, "status-dark")
        page.set_theme("JupyterLab Light")
    page.run_cell(2)
    page.until(
        lambda _: any(word in page.output(2) for word in ("upload:", "Uploaded")), "progress or the end"
    )
    take_picture(page, "upload")
    page.until_output(2, f"Uploaded 1 file, {'2.0 GiB' if PICTURES else '64.0 MiB'}")
    assert "sha256:" in page.output(2)
    take_picture(page, "uploaded")
    page.run_cell(3)
    frame = page.find(f"{page.CELLS} iframe")
    page.driver.switch_to.frame(frame)
    assert page.find("#hello").text == "Hello from the sandbox"
    page.driver.switch_to.default_content()
    take_picture(page, "preview")
    page.run_cell(4)
    page.until_output(4, "no longer served")


@pytest.mark.cells(
    "%daytona vnc start",
    "%daytona bg --name hello -- xterm -geometry 60x12+80+60 -e sh -c 'echo Hello from the screen; sleep 99'",
    "%daytona windows",
    "%daytona screenshot --cursor",
)
@pytest.mark.desktop
def test_the_desktop_is_shown_in_the_notebook(page: LabPage, notebook: str) -> None:
    page.open_notebook(notebook)
    page.run_cell(0)
    page.until(lambda _: page.output(0), "the desktop or why there is none")
    if "CommandFailed" in page.output(0):
        pytest.skip(page.output(0))
    page.run_cell(1)
    page.until_output(1, "Job hello runs")
    page.run_cell(2)
    page.until_done(2)
    page.run_cell(3)
    image = page.find(f"{page.CELLS} .jp-RenderedImage img")
    width = "return arguments[0].naturalWidth"
    page.until(lambda driver: driver.execute_script(width, image) == 1024, "the screen")
    take_picture(page, "desktop")
