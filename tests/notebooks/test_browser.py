"""The quickstart in real pages: as nbconvert writes it, and in JupyterLab with a kernel behind it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.notebooks.conftest import QUICKSTART, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode
    from playwright.sync_api import Browser, Page

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
REPORT = "section.gpumem"
SCROLL_TO = """
async id => {
  const content = window.jupyterapp.shell.currentWidget.content;
  await content.scrollToItem(content.widgets.findIndex(cell => cell.model.id === id), 'start');
}
"""
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS))
        yield launched
        launched.close()


@contextlib.contextmanager
def opened(browser: Browser, url: str, *, offline: bool) -> Iterator[tuple[Page, list[str]]]:
    """A page, and the list that its errors are added to."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=offline)
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
    with opened(browser, path.as_uri(), offline=True) as (page, problems):
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
def lab(tmp_path: pathlib.Path) -> Iterator[str]:
    """Address of a JupyterLab that has the quickstart notebook, no configuration, and asks nobody for news."""
    pytest.importorskip("jupyterlab")
    files, own = tmp_path / "files", tmp_path / "own"
    files.mkdir()
    (files / "quickstart.ipynb").write_text(_without_outputs(), encoding="utf-8")
    settings = own / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet), encoding="utf-8")
    port = _free_port()
    command = [
        *(sys.executable, "-P", "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=quickstart"),
        *(f"--ServerApp.root_dir={files}", "--LabApp.expose_app_in_browser=True"),
    ]
    places = {name: str(own) for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    places["JUPYTERLAB_SETTINGS_DIR"] = str(own / "settings")
    log = own / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env={**environment(own / "recordings"), **places}, stdout=file, stderr=file, cwd=files
        )
    try:
        _wait_for(f"http://localhost:{port}/api/status?token=quickstart", server, log)
        yield f"http://localhost:{port}/lab/tree/quickstart.ipynb?token=quickstart&reset"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _without_outputs() -> str:
    notebook = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(notebook)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            json.load(answer)
            return
        assert server.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


def test_jupyterlab_runs_it(browser: Browser, lab: str, executed: NotebookNode) -> None:
    count = sum(cell.cell_type == "code" for cell in executed.cells)
    with opened(browser, lab, offline=False) as (page, problems):
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets?.length > 10", timeout=60_000)
        page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.ready")
        page.evaluate(RUN_ALL)
        page.wait_for_function(
            f"""window.jupyterapp.shell.currentWidget.content.widgets
                .filter(cell => cell.model.type === 'code' && cell.model.executionCount !== null).length === {count}""",
            timeout=120_000,
        )
        page.evaluate(SCROLL_TO, "first-report")  # Lab keeps only the cells in sight in the page
        report = page.locator(REPORT, has_text="peak 320 MiB at").first
        report.locator(".gm-stats").wait_for(state="visible", timeout=30_000)
        report.evaluate("each => each.scrollIntoView({block: 'end'})")
        page.wait_for_timeout(500)
        assert "+64.0 MiB" in report.inner_text()
        assert report.locator("svg").first.bounding_box()["height"] > 100
        shown(page, "lab")
    assert [each for each in problems if "gpumem" in each.lower()] == [], problems
