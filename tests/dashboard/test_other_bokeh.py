"""A Bokeh that others brought to the page stays as it was, and so does ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.dashboard.live import Live, wait_until

if TYPE_CHECKING:
    from tests.jupyter import Notebook

LOAD = """
from bokeh.io import output_notebook, show
from bokeh.plotting import figure
from bokeh.resources import INLINE
output_notebook(INLINE, hide_banner=True)
"""
SHOW = """
plot = figure(width=300, height=200)
plot.line([1, 2, 3], [3, 1, 2])
show(plot)
"""


def check_shown(notebook: Notebook) -> None:
    """Draw a figure of the notebook's own, in the notebook's own way."""
    cell = notebook.run(SHOW)
    cell.area.locator(".bk-Figure canvas").first.wait_for(timeout=20_000)


def global_bokeh(notebook: Notebook) -> str | None:
    version: str | None = notebook.page.evaluate("window.Bokeh?.version ?? null")
    return version


def test_ours_first(lab: Notebook, live: Live) -> None:
    assert lab.page.evaluate("'Bokeh' in window") is False, "ours is not the page's"
    lab.run(LOAD)
    wait_until(lambda: global_bokeh(lab) is not None, "the notebook's Bokeh is there")
    check_shown(lab)
    lab.run("alloc(1 << 20)")
    live.check_bytes(1 << 20)


def test_theirs_first(lab: Notebook) -> None:
    lab.run(LOAD)
    wait_until(lambda: global_bokeh(lab) is not None, "the notebook's Bokeh is there")
    check_shown(lab)
    lab.page.evaluate("() => { window.before = {Bokeh: window.Bokeh, documents: window.Bokeh.documents.length} }")
    lab.run("%gpumem")
    live = Live(lab).wait()
    lab.run("alloc(1 << 20)")
    live.check_bytes(1 << 20)
    assert lab.page.evaluate("window.Bokeh === window.before.Bokeh")
    assert lab.page.evaluate("window.Bokeh.documents.length === window.before.documents")
    check_shown(lab)
    live.button("Close").click()
    wait_until(lambda: lab.page.locator("section.gm-dashboard").count() == 0, "the dashboard is gone")
    check_shown(lab)
