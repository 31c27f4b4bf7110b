"""``output_trust = isolated``: nothing that a front end would interpret leaves the kernel."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import trust
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.magics import words

from .hostile import line, victim

EVIL = "<img src=x onerror=\"alert(1)\"><script>alert('2')</script>"
HARMLESS = {"text/plain", "text/html", "application/json", *trust.PIXELS}
FRAME = re.compile(
    r'<iframe sandbox="" referrerpolicy="no-referrer" style="[^"<>]*" srcdoc="([^"<>]*)"></iframe>'
)
PICTURE = re.compile(r'<img alt="SVG" src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]*">')
MIMES = [
    *("text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png", "application/json"),
    *("application/javascript", "text/javascript", "application/pdf", "application/vnd.vegalite.v5+json"),
    *("application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json", "text/plain", "x"),
]


@given(st.dictionaries(st.sampled_from(MIMES) | st.text(max_size=30), st.text() | st.just(EVIL) | st.none()))
def test_only_harmless_forms_are_left(data: dict[str, Any]) -> None:
    kept = trust.isolated_bundle(data)
    assert set(kept) <= HARMLESS
    assert isinstance(kept["text/plain"], str)
    if "text/html" in kept:
        assert FRAME.fullmatch(kept["text/html"]) or PICTURE.fullmatch(kept["text/html"])


@given(st.text())
def test_a_page_can_not_get_out_of_its_frame(page: str) -> None:
    match = FRAME.fullmatch(trust.framed(page))
    assert match is not None
    whole = html.unescape(match[1])
    head, _, body = whole.partition("</style>")
    assert body == html.unescape(html.escape(page))
    assert f'content="{trust.POLICY}"' in head


def test_what_is_left_out_is_named() -> None:
    plain = trust.isolated_bundle({"application/javascript": "alert(1)", "\x1b]0;x\x07": 1})["text/plain"]
    assert plain.endswith("output_trust is isolated: application/javascript, unnamed]")
    kept = trust.isolated_bundle(
        {"text/plain": "IntSlider()", "application/vnd.jupyter.widget-view+json": {}}
    )
    assert kept["text/plain"].startswith("IntSlider()\n[")
    assert trust.isolated_bundle({"text/plain": "1"}) == {"text/plain": "1"}


def test_markdown_is_shown_as_it_is_written() -> None:
    assert trust.isolated_bundle({"text/markdown": EVIL}) == {"text/plain": EVIL}


def test_pixels_are_kept_and_anything_else_under_their_name_is_not() -> None:
    assert trust.isolated_bundle({"image/png": "iVBO\nRw0="})["image/png"] == "iVBO\nRw0="
    assert "image/png" not in trust.isolated_bundle({"image/png": '"><script>'})


def test_of_the_metadata_only_sizes_of_pictures_are_kept() -> None:
    content = {
        "data": {"image/png": "aaaa", "text/html": "x"},
        "metadata": {
            "image/png": {"width": 3, "height": "9", "x": EVIL},
            "text/html": {"isolated": False},
            "a": 1,
        },
    }
    assert trust.isolated_message("display_data", content) == {
        "data": {"image/png": "aaaa", "text/html": trust.framed("x"), "text/plain": ""},
        "metadata": {"image/png": {"width": 3}},
    }


def test_pages_and_descriptions_are_plain() -> None:
    bundle = {"data": {"text/plain": "p", "text/html": EVIL}}
    reply = trust.isolated_reply(
        {
            "status": "ok",
            "user_expressions": {"a": {"status": "ok", **bundle}},
            "payload": [{"source": "page", **bundle}],
        }
    )
    assert "script" not in json.dumps(reply)
    assert trust.isolated_answer({"found": True, **bundle}) == {"found": True, "data": {"text/plain": "p"}}


@pytest.mark.parametrize("where", ["full", "isolated"])
async def test_the_setting_decides_what_is_published(where: str) -> None:
    async with victim(DaytonaSettings(backend="local", output_trust=where)) as one:
        one.feed(line(0, "display_data", {"data": {"text/html": EVIL}}, m={"x": 1}))
        one.feed(
            line(
                1,
                "comm_open",
                {"comm_id": "c", "target_name": "t", "target_module": "https://evil.example/x"},
            )
        )
        one.feed(line(2, "stream", {"name": "stdout", "text": EVIL}))
        one.feed(line(3, "error", {"ename": "E", "evalue": EVIL, "traceback": [EVIL]}))
        found = one.messages()
        published = found[0][1]["data"]
        if where == "full":
            assert published == {"text/html": EVIL}
            assert [kind for kind, _ in found] == ["display_data", "comm_open", "stream", "error"]
        else:
            assert FRAME.fullmatch(published["text/html"])
            assert [kind for kind, _ in found] == ["display_data", "stream", "error"]


def test_full_is_the_default_and_the_environment_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DaytonaSettings().output_trust == "full"
    monkeypatch.setenv("DAYTONA_KERNEL_OUTPUT_TRUST", "isolated")
    assert DaytonaSettings().output_trust == "isolated"
    monkeypatch.setenv("DAYTONA_KERNEL_OUTPUT_TRUST", "some")
    settings = DaytonaSettings()
    with pytest.raises(Exception, match="DAYTONA_KERNEL_OUTPUT_TRUST"):
        settings.check()


@given(st.text() | st.just(EVIL), st.text() | st.just("javascript:alert(1)"))
def test_names_of_the_sandbox_are_text_in_our_own_tables(name: str, url: str) -> None:
    """They are HTML with any setting: of this machine's making, but for the names."""
    made = words.table_html([name], [[name, name]], name) + words.link(url, name)
    plain = words.table_html(["x"], [["x", "x"]], "x" if name else "") + words.link(url, "x")
    assert made.count("<") <= plain.count("<")
    assert not re.search(r"href=[\"']?\s*javascript", made, re.IGNORECASE)
