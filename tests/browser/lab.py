"""A real JupyterLab server and a browser that shows its pages. All selectors of these pages are here."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

# How long a person would wait before saying that it hangs, in seconds; a slow machine sets the factor.
PATIENCE = 120 * float(os.environ.get("DAYTONA_KERNEL_TEST_PATIENCE", "1"))

# Without these Chromium calls home at every start, which on a closed network only takes time.
QUIET = (  # noqa: SIM905 (one per line would take a page)
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --lang=en-US"
).split()

# The page is not as far as that yet.
IGNORED = [StaleElementReferenceException, ElementClickInterceptedException, IndexError, StopIteration]

Locator = tuple[str, str]
SPLASH = "#jupyterlab-splash"
"""What is shown while the page, or a theme, loads."""


def missing() -> str:
    """Return what this machine lacks for browser tests, or nothing."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(names)} (Debian: chromium chromium-driver)" if names else ""


@contextlib.contextmanager
def private_sandboxes(env: dict[str, str]) -> Iterator[None]:
    """Stop the local sandbox server of *env* in the end; it is started by the first kernel that needs it."""
    try:
        yield
    finally:
        command = [sys.executable, "-m", "daytona_kernel.cli", "local", "stop"]
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def lab_server(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run JupyterLab on *folder* and yield the address of its start page, token included."""
    settings = folder / ".lab"
    quiet = settings / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    (settings / "config").mkdir()
    (settings / "config" / "jupyter_lab_config.json").write_text(
        json.dumps(
            {"LabApp": {"news_url": None, "check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}}
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **env,
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(settings / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly"),
        f"--ServerApp.root_dir={folder}",
    ]
    with open(settings / "server.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for_server(f"http://127.0.0.1:{port}/api?token={token}", process, settings / "server.log")
            yield f"http://127.0.0.1:{port}/lab?token={token}"
        finally:
            process.terminate()  # The server shuts its kernels down first.
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when *url* answers; raise :exc:`RuntimeError` with the log if it does not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium(profile: Path, width: int = 1200, height: int = 900, scale: float = 1) -> Iterator[WebDriver]:
    """Run a headless Chromium with an empty profile in *profile*."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    # A name of somebody else's that leads to this machine: see test_foreign_page.py.
    options.add_argument("--host-resolver-rules=MAP rebound.example 127.0.0.1")
    options.add_argument(f"--force-device-scale-factor={scale}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or ""))
    driver.set_script_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()


class LabPage:
    """What a person does in JupyterLab, and what they see."""

    LAUNCHER_CARD = ".jp-LauncherCard[data-category='Notebook'][title='{name}']"
    NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
    CELLS = f"{NOTEBOOK} .jp-Notebook .jp-Cell"
    KERNEL_NAME = f"{NOTEBOOK} .jp-KernelName"

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        self.url = url

    def until(self, condition: Callable[[WebDriver], Any], what: str) -> Any:
        """Wait until *condition* gives something true and return it; if not, say *what* was waited for."""
        wait = WebDriverWait(
            self.driver,
            PATIENCE,
            poll_frequency=0.05,
            ignored_exceptions=IGNORED,
        )
        try:
            return wait.until(condition)
        except TimeoutException:
            raise AssertionError(f"never saw {what}; the page says:\n{self.text()[-3000:]}") from None

    def find(self, css: str) -> WebElement:
        """Return the first element for *css* as soon as there is one that is visible."""

        def visible(driver: WebDriver) -> WebElement | None:
            return next((e for e in driver.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None)

        element: WebElement = self.until(visible, css)
        return element

    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def open_launcher(self) -> None:
        self.driver.get(self.url + "&reset")
        self.find(".jp-Launcher")

    def start_notebook(self, kernel: str) -> None:
        """Click the kernel's card in the launcher."""
        self.find(self.LAUNCHER_CARD.format(name=kernel)).click()
        self.until_idle()

    def open_notebook(self, name: str, path: str = "lab/tree") -> None:
        """Open it in JupyterLab, or with the *path* ``notebooks`` in Notebook 7, which is there, too."""
        base, _, query = self.url.partition("/lab?")
        self.driver.get(f"{base}/{path}/{name}?{query}&reset")
        self.until_idle()

    def until_idle(self) -> None:
        """Wait until the kernel is connected and idle, as the indicator in the toolbar shows it."""
        self.find(self.CELLS)
        # Before the page has a kernel it calls itself idle too, and forgets what it is told to run.
        self.until(lambda _: self.kernel_name() not in ("", "No Kernel"), "a kernel")
        self.find(f"{self.NOTEBOOK} .jp-Notebook-ExecutionIndicator[data-status='idle']")

    def kernel_name(self) -> str:
        return self.find(self.KERNEL_NAME).text

    def cell(self, index: int) -> WebElement:
        element: WebElement = self.until(
            lambda driver: driver.find_elements(By.CSS_SELECTOR, self.CELLS)[index], f"cell {index}"
        )
        return element

    def select_cell(self, index: int) -> None:
        """Click into the cell's editor."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.cell(index))

        def click(driver: WebDriver) -> bool:
            self.cell(index).find_element(By.CSS_SELECTOR, ".cm-content").click()
            return True

        self.until(click, f"the editor of cell {index}")

    def type(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def run_cell(self, index: int) -> None:
        """Run the cell with Ctrl+Enter."""
        self.select_cell(index)
        self.type(Keys.CONTROL + Keys.ENTER)

    def complete(self, index: int, whole: str) -> None:
        """Press Tab at the end of the cell until its word is *whole*.

        Until the page has noticed that there is a word, Tab indents. It waits only a second for the kernel,
        whose first answer may take longer: then a person presses Tab again.
        """
        self.select_cell(index)
        self.type(Keys.END)
        self.find(f"{self.CELLS} .jp-mod-completer-enabled")
        pressed = 0.0

        def completed(_: WebDriver) -> bool:
            nonlocal pressed
            if whole in self.cell(index).text:
                return True
            if time.monotonic() > pressed + 3:
                pressed = time.monotonic()
                self.type(Keys.TAB)
            return False

        self.until(completed, f"the completion {whole!r}")

    def prompt(self, index: int) -> str:
        """Return ``[1]:``, ``[*]:`` and so on."""
        return str(self.cell(index).find_element(By.CSS_SELECTOR, ".jp-InputPrompt").text)

    def prompts(self) -> list[str]:
        """Return the prompts of all code cells that are on the page, in order."""
        found = self.driver.find_elements(By.CSS_SELECTOR, f"{self.CELLS} .jp-InputPrompt")
        return [element.text for element in found if element.text.strip()]

    def until_done(self, index: int) -> None:
        """Wait until the cell has an execution number."""
        self.until(lambda _: self.prompt(index).strip("[]: ").isdigit(), f"the end of cell {index}")

    def output(self, index: int) -> str:
        """Return the text of the cell's outputs as it is shown."""
        areas = self.cell(index).find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output")
        return "\n".join(area.text for area in areas)

    def until_output(self, index: int, text: str) -> None:
        self.until(lambda _: text in self.output(index), f"{text!r} in the output of cell {index}")

    def watch_output(self, index: int) -> None:
        """Start to note each state of the cell's output text, for :meth:`watched`."""
        self.driver.execute_script(
            """
            const cell = arguments[0];
            window.watched = [];
            const note = () => {
                const areas = [...cell.querySelectorAll('.jp-OutputArea-output')];
                const text = areas.map(area => area.innerText).join('\\n');
                const last = window.watched[window.watched.length - 1];
                if (text && (!last || last[1] !== text)) window.watched.push([Date.now() / 1000, text]);
            };
            new MutationObserver(note).observe(cell, {childList: true, subtree: true, characterData: true});
            """,
            self.cell(index),
        )

    def watched(self) -> list[tuple[float, str]]:
        """Return the states of the watched output: when (page's clock, seconds since the epoch), and text."""
        return [
            (float(when), str(text)) for when, text in self.driver.execute_script("return window.watched")
        ]

    def interrupt(self) -> None:
        """Click the stop button of the notebook's toolbar."""
        self.find(f"{self.NOTEBOOK} [data-jp-item-name='interrupt'] jp-button").click()

    def run_all(self) -> None:
        """Choose Run > Run All Cells."""
        menus = self.driver.find_elements(By.CSS_SELECTOR, ".lm-MenuBar-item")
        next(menu for menu in menus if menu.text == "Run").click()
        self.find(".lm-Menu-item[data-command='runmenu:run-all']").click()

    def set_theme(self, name: str) -> None:
        """Choose Settings > Theme > *name*."""

        def item(kind: str, text: str) -> WebElement:
            found = self.driver.find_elements(By.CSS_SELECTOR, kind)
            return next(element for element in found if element.text.strip() == text)

        def click(kind: str, text: str) -> None:
            self.until(lambda _: [item(kind, text).click()], f"{text!r} to click on")

        click(".lm-MenuBar-item", "Settings")
        click(".lm-Menu-item", "Theme")
        click(".lm-Menu-item", name)
        shown = (
            f"return document.body.dataset.jpThemeName === {name!r} && !document.querySelector('{SPLASH}')"
        )
        self.until(lambda driver: driver.execute_script(shown), f"the theme {name!r}")

    def restart_and_run_all(self) -> None:
        """Click the toolbar's button for it, and agree to the restart."""
        self.find(f"{self.NOTEBOOK} [data-jp-item-name='restart-and-run'] jp-button").click()
        self.find(".jp-Dialog .jp-mod-warn").click()

    def save(self) -> None:
        self.type(Keys.CONTROL + "s")
