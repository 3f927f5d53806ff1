"""The quickstart in real pages: as nbconvert writes it, and in JupyterLab with a kernel behind it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import TYPE_CHECKING

import pytest

from tests.jupyter import App, Notebook, launched_chromium, running_server
from tests.notebooks.conftest import QUICKSTART, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode
    from playwright.sync_api import Browser, Page

    from tests.jupyter import Server

REPORT = "section.gpumem"
PLACE = "id => window.jupyterapp.shell.currentWidget.content.widgets.findIndex(cell => cell.model.id === id)"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    pytest.importorskip("playwright.sync_api")
    with launched_chromium(chromium) as launched:
        yield launched


@contextlib.contextmanager
def opened(browser: Browser, url: str) -> Iterator[tuple[Page, list[str]]]:
    """A page without a network, and the list that its errors are added to."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url, wait_until="domcontentloaded")
    yield page, problems
    context.close()


def shown(page: Page, name: str) -> None:
    """Keep a picture for those who want to look: ``GPUMEM_SCREENSHOTS`` names a directory."""
    folder = os.environ.get("GPUMEM_SCREENSHOTS")
    if folder:
        page.screenshot(path=pathlib.Path(folder, f"{name}.png"), full_page=True)


def test_the_html_shows_the_report(browser: Browser, executed: NotebookNode, tmp_path: pathlib.Path) -> None:
    nbconvert = pytest.importorskip("nbconvert")
    path = tmp_path / "quickstart.html"
    path.write_text(nbconvert.HTMLExporter().from_notebook_node(executed)[0], encoding="utf-8")
    with opened(browser, path.as_uri()) as (page, problems):
        report = page.locator(REPORT, has_text="peak 320 MiB at").first
        assert report.is_visible()
        assert report.locator("svg").first.bounding_box()["height"] > 100
        report.locator("details summary").first.click()
        assert report.locator("details[open]").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
        shown(page, "html")
    # The page itself asks for MathJax and require.js, which are not there offline.
    assert [each for each in problems if "ERR_INTERNET_DISCONNECTED" not in each] == []


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server that has the quickstart notebook, without its outputs."""
    pytest.importorskip("notebook")
    with running_server(tmp_path, environment(tmp_path / "recordings")) as running:
        (running.files / "quickstart.ipynb").write_text(_without_outputs(), encoding="utf-8")
        yield running


def _without_outputs() -> str:
    notebook = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(notebook)


def test_jupyterlab_runs_it(browser: Browser, server: Server, executed: NotebookNode) -> None:
    count = sum(cell.cell_type == "code" for cell in executed.cells)
    app = App(browser, server, "lab", width=1100, height=900)
    app.show("quickstart.ipynb")
    notebook, page = Notebook(app, "quickstart.ipynb"), app.page
    notebook.wait_for_kernel()
    notebook.run_all()
    page.wait_for_function(
        f"""window.jupyterapp.shell.currentWidget.content.widgets
            .filter(cell => cell.model.type === 'code' && cell.model.executionCount !== null).length === {count}""",
        timeout=120_000,
    )
    cell = page.locator(".jp-Cell").nth(page.evaluate(PLACE, "first-report"))
    report = cell.locator(REPORT, has_text="peak 320 MiB at").first
    report.locator(".gm-stats").wait_for(state="visible", timeout=30_000)
    report.evaluate("each => each.scrollIntoView({block: 'end'})")
    page.wait_for_timeout(500)
    assert "+64.0 MiB" in report.inner_text()
    assert report.locator("svg").first.bounding_box()["height"] > 100
    shown(page, "lab")
    assert [each for each in app.problems if "gpumem" in each.lower()] == [], app.problems
    app.close()
