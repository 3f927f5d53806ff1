"""Answers in a real browser: legible light and dark, whole at 600 px, and nothing planted runs."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.analysis.bands import BAND_NAMES
from gpumem_magic.analysis.overview import overview
from gpumem_magic.views.html import Html, document
from gpumem_magic.views.overview import render_overview, render_timeline
from gpumem_magic.views.theme import DARK, LIGHT
from tests.analysis.build import GIB
from tests.analysis.histories import watched
from tests.views.planted import MARKUP
from tests.views.test_html import contrast, every_answer

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ANSWERS = dict(every_answer())


@contextlib.contextmanager
def opened(browser: Browser, content: str, *, width: int = 1000, scheme: str = "light") -> Iterator[Page]:
    """A page that shows ``content`` and must neither log an error nor ask for anything."""
    context = browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url))
    page.set_content(content)
    yield page
    context.close()
    assert problems == []


@pytest.mark.parametrize("name", ANSWERS)
def test_planted_markup_does_not_run(browser: Browser, name: str) -> None:
    with opened(browser, document(Html(ANSWERS[name]), MARKUP)) as page:
        assert page.evaluate("window.planted") is None
        assert page.locator("b-planted").count() == 0
        assert page.locator("script").count() == 0
        assert MARKUP in page.locator("section.gpumem").inner_text().replace("\n", "")


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("width", [360, 600, 1000])
def test_nothing_sticks_out(browser: Browser, name: str, width: int) -> None:
    with opened(browser, document(Html(ANSWERS[name]), "x"), width=width) as page:
        for details in page.locator("details").all():
            details.evaluate("each => { each.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(STICKING_OUT) == []


STICKING_OUT = """
[...document.querySelectorAll('.gpumem *')].filter(each =>
    !each.closest('.gm-scroll > table') && !each.closest('svg') && each.tagName !== 'STYLE'
    && each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(each => each.className)
"""

COLOURS = """
() => Object.fromEntries(['.gm-stats .gm-big td', '.gm-hint td', '.gm-table thead th', '.gm-peaktext', '.gm-step']
  .map(each => [each, getComputedStyle(document.querySelector('.gpumem ' + each))])
  .map(([each, style]) => [
    each, each === '.gm-step' ? style.stroke : each === '.gm-peaktext' ? style.fill : style.color]))
"""


def colours(page: Page) -> dict[str, str]:
    """Hex colours of text and curve."""
    found = page.evaluate(COLOURS)
    hexed = {name: [int(each) for each in re.findall(r"\d+", rgb)[:3]] for name, rgb in found.items()}
    return {name: "#{:02x}{:02x}{:02x}".format(*channels) for name, channels in hexed.items()}


@pytest.mark.parametrize(
    ("scheme", "body", "palette", "background"),
    [
        ("light", "", LIGHT, "#ffffff"),
        ("dark", "", DARK, "#111418"),
        ("dark", 'data-jp-theme-light="true"', LIGHT, "#ffffff"),
        ("light", 'data-jp-theme-light="false"', DARK, "#111111"),
        ("light", 'data-vscode-theme-kind="vscode-dark"', DARK, "#1e1e1e"),
        ("dark", 'data-vscode-theme-kind="vscode-light"', LIGHT, "#ffffff"),
    ],
)
def test_legible_in_every_theme(
    browser: Browser, scheme: str, body: str, palette: dict[str, str], background: str
) -> None:
    page_html = f"<!DOCTYPE html><body {body} style='background:{background}'>{ANSWERS['cell']}</body>"
    with opened(browser, page_html, scheme=scheme) as page:
        shown = colours(page)
        assert shown[".gm-step"] == palette["live"]
        for name, colour in shown.items():
            assert contrast(colour, background) >= (3 if name == ".gm-step" else 4.5), name


def test_text_follows_the_variables_of_jupyterlab(browser: Browser) -> None:
    content = f"<style>body{{--jp-content-font-color1:#123456}}</style>{ANSWERS['cell']}"
    with opened(browser, content) as page:
        assert colours(page)[".gm-stats .gm-big td"] == "#123456"


def test_numbers_line_up(browser: Browser) -> None:
    with opened(browser, document(Html(ANSWERS["cells"]), "x")) as page:
        edges = page.evaluate(
            "[...document.querySelectorAll('.gm-table tbody tr > :nth-child(4)')].map(each => "
            "[getComputedStyle(each).textAlign, Math.round(each.getBoundingClientRect().right)].join())",
        )
        assert set(edges[:2]) == {edges[0]}
        assert edges[0].startswith("right")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_survives_nbconvert(browser: Browser, theme: str, tmp_path: pathlib.Path) -> None:
    """The same report in nbconvert's page, with JupyterLab's own style sheet around it."""
    nbconvert = pytest.importorskip("nbconvert")
    nbformat = pytest.importorskip("nbformat")
    output = nbformat.v4.new_output("display_data", {"text/plain": "x", "text/html": ANSWERS["cell"]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%%gpumem", outputs=[output])])
    page_html, _ = nbconvert.HTMLExporter(theme=theme).from_notebook_node(notebook)
    path = tmp_path / "notebook.html"
    path.write_text(page_html, encoding="utf-8")
    context = browser.new_context(viewport={"width": 900, "height": 700}, offline=True)
    page = context.new_page()
    page.goto(path.as_uri(), wait_until="domcontentloaded")
    shown = colours(page)
    assert shown[".gm-step"] == (LIGHT if theme == "light" else DARK)["live"]
    background = "#ffffff" if theme == "light" else "#111111"
    assert contrast(shown[".gm-stats .gm-big td"], background) >= 4.5
    row = page.locator(".gm-table tbody tr").first
    assert row.evaluate("each => getComputedStyle(each).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert sys.getsizeof(ANSWERS["cell"]) < 60_000
    context.close()


SEEN = overview(watched(2))


@pytest.mark.parametrize(("scheme", "palette", "page"), [("light", LIGHT, "#ffffff"), ("dark", DARK, "#111418")])
def test_bands_have_their_colours_and_their_edges_stand_out(
    browser: Browser, scheme: str, palette: dict[str, str], page: str
) -> None:
    content = document(Html(render_overview(SEEN)["text/html"]), "x")
    with opened(browser, content, scheme=scheme) as shown:
        for name in BAND_NAMES:
            band = shown.locator(f".gm-b-{name}").first
            fill, edge = band.evaluate("each => [getComputedStyle(each).fill, getComputedStyle(each).stroke]")
            assert hexed(fill) == palette[f"band-{name}"]
            assert hexed(edge) == palette[f"edge-{name}"]
            assert contrast(hexed(edge), page) >= 3


def test_a_band_is_as_high_in_the_page_as_its_bytes(browser: Browser) -> None:
    """The drawn height of what is used now, in pixels, against the capacity's line."""
    with opened(browser, document(Html(render_overview(SEEN)["text/html"]), "x")) as page:
        tops = page.evaluate(
            "[...document.querySelector('.gm-device .gm-plot[aria-label^=Memory]').querySelectorAll('.gm-b-cached')]"
            ".map(each => each.getAttribute('d').match(/V([0-9.]+)H1000V/)[1])",
        )
        capacity = page.locator(".gm-capacity").first.evaluate("each => +each.getAttribute('y1')")
    height = 140
    ground, used = height + 18, SEEN.devices[0].used_bytes
    assert used is not None
    drawn = (height - float(tops[-1])) / (ground - capacity) * 141 * GIB
    assert abs(drawn - used) < 0.01 * 141 * GIB


@pytest.mark.parametrize("width", [360, 600, 1000])
@pytest.mark.parametrize("devices", [1, 8])
def test_pictures_fit_any_page(browser: Browser, devices: int, width: int) -> None:
    seen = overview(watched(devices))
    for text in (render_overview(seen)["text/html"], render_timeline(seen)["text/html"]):
        with opened(browser, document(Html(text), "x"), width=width) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(STICKING_OUT) == []
            plots = page.evaluate("[...document.querySelectorAll('.gm-plot')].map(each => each.clientWidth)")
            assert len(set(plots)) == 1, "pictures on one clock have one width"


def hexed(rgb: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*[int(each) for each in re.findall(r"\d+", rgb)[:3]])
