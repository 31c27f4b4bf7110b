"""Make ``docs/jupyterlab.png``, the picture in README: the quickstart notebook at work in JupyterLab.

Run it as ``python -m tests.browser.picture`` from the repository's root, with the extra ``test`` and Chromium
installed, whenever the page looks different.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from .lab import LabPage, chromium, lab_server, private_sandboxes

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "jupyterlab.png"
SIZE = (1180, 900)
COLOURS = 128


def main() -> None:
    """Open the notebook, run it all, scroll to the plot, take the picture."""
    with tempfile.TemporaryDirectory(prefix="dk-picture-") as folder:
        home = Path(folder)
        work = home / "work"
        work.mkdir()
        shutil.copy(ROOT / "notebooks" / "quickstart.ipynb", work)
        env = {**os.environ, "HOME": str(home), "DAYTONA_LOCAL_DIR": str(home / "local")}
        with (
            private_sandboxes(env),
            lab_server(work, env) as url,
            chromium(home / "profile", *SIZE, scale=1.25) as driver,
        ):
            page = LabPage(driver, url)
            page.open_notebook("quickstart.ipynb")
            take(page)


def take(page: LabPage) -> None:
    """Run the notebook that is open and save the picture, with few colours to keep the file small."""
    page.run_all()
    page.until(lambda _: page.prompts()[-1].strip("[]: ").isdigit(), "the end of the notebook")
    page.until_idle()
    page.driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center'})", page.find(f"{page.CELLS} .jp-RenderedImage img")
    )
    picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    TARGET.parent.mkdir(exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    print(f"{TARGET.relative_to(ROOT)}: {picture.size}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
