"""The dashboards that are open in a notebook: shown, kept in step with a still form of themselves, and closed.

A widget is nothing in a notebook that was saved: opened without its kernel it is an error message, and ``nbconvert``
leaves it out. So two outputs are displayed, a still picture and below it the widget, which hides the picture for as
long as it is alive itself. The still one is made anew at the ends of cells, so that it is what a saved notebook shows.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from IPython.display import display, update_display

from gpumem_magic.analysis.overview import overview
from gpumem_magic.views.html import Html, tag
from gpumem_magic.views.overview import render_overview

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpumem_magic.magics.live import SessionSource
    from gpumem_magic.views.dashboard.dashboard import Dashboard

WIDGET = "application/vnd.jupyter.widget-view+json"
_JOIN_S = 2.0
STILL_SHARE = 0.02
"""Of the time, what keeping the still picture in step may take; it is made again no sooner than that allows."""


class LiveView:
    """One dashboard and its outputs. Belongs to the main thread."""

    def __init__(self, source: SessionSource, **options: Any) -> None:
        from gpumem_magic.views.dashboard.dashboard import Dashboard  # noqa: PLC0415  (brings Bokeh and ipywidgets)

        self._source = source
        self._still_id, self._live_id = uuid.uuid4().hex, uuid.uuid4().hex
        self._still_due = 0.0
        self._timer: threading.Timer | None = None
        self.dashboard: Dashboard = Dashboard(source, token=self._still_id, on_close=self._leave_still, **options)

    def show(self, *, still: bool = True) -> None:
        """Display it under the running cell, a second time if it was displayed before."""
        if still:
            self._show_still(display)
        bundle, metadata = self.dashboard.bundle()
        display(bundle, metadata=metadata, raw=True, display_id=self._live_id)
        self.dashboard.start()

    def keep_still(self) -> None:
        """Bring the still form up to date, if that is due. At the end of a cell."""
        if self.dashboard.is_closed:
            return
        left = self._still_due - time.monotonic()
        if left <= 0:
            self._renew_still()
        elif self._timer is None:
            self._timer = threading.Timer(left, self._catch_up)
            self._timer.daemon, self._timer.name = True, "gpumem-still"
            self._timer.start()

    def _catch_up(self) -> None:
        """On the timer's thread: the still picture of a cell that ended too soon after another."""
        self._timer = None
        if not self.dashboard.is_closed and not self._source.is_busy():  # a cell that runs brings its own end
            self._renew_still()

    def close(self, instead: Mapping[str, str] | None = None) -> None:
        """End it. ``instead`` takes the widget's place, also of one that was closed; a sentence does when None."""
        was_closed = self.dashboard.is_closed
        self._stop_timer()
        self.dashboard.close()
        if instead is not None:
            update_display(instead, raw=True, display_id=self._live_id)
        elif not was_closed:
            self._leave_still()

    def _show_still(self, put: Callable[..., Any]) -> None:
        began = time.monotonic()
        put(self._still(), raw=True, display_id=self._still_id)
        self._still_due = began + (time.monotonic() - began) / STILL_SHARE

    def _renew_still(self) -> None:
        """Make the still form anew. What it shows stays as it is once tracking was turned off."""
        with contextlib.suppress(RuntimeError):
            self._show_still(update_display)

    def _stop_timer(self) -> None:
        timer = self._timer
        if timer is not None:
            timer.cancel()
            timer.join(_JOIN_S)

    def _leave_still(self) -> None:
        self._renew_still()
        sentence = f"The live view was closed at {time.strftime('%H:%M:%S')}. %gpumem opens a new one."
        update_display({"text/plain": sentence}, raw=True, display_id=self._live_id)

    def _still(self) -> dict[str, str]:
        bundle = render_overview(overview(self._source.snapshot(allocations=True)))
        page = Html(bundle["text/html"])
        return {"text/plain": bundle["text/plain"], "text/html": tag("div", page, class_=f"gpumem-{self._still_id}")}


class LiveViews:
    """The notebook's dashboard, and those of cells that run with ``--live``."""

    def __init__(self, source: SessionSource, is_notebook: Callable[[], bool]) -> None:
        self._source = source
        self.is_notebook = is_notebook
        self._open: LiveView | None = None
        self._of_cells: list[LiveView] = []

    @property
    def dashboard(self) -> Dashboard | None:
        """The one that is open."""
        if self._open is None or self._open.dashboard.is_closed:
            return None
        return self._open.dashboard

    def show(self) -> Dashboard:
        """Open the dashboard, or show the open one here too."""
        if self._open is not None and self._open.dashboard.is_closed:
            self._open.close()  # ends what a page or somebody else's close left of it
            self._open = None
        if self._open is None:
            self._open = LiveView(self._source)
        self._open.show()
        return self._open.dashboard

    def prepare(self) -> None:
        """Import what a view needs, so that the first one does not take its time from the cell that it shows."""
        importlib.import_module("gpumem_magic.views.dashboard.dashboard")

    def show_cell(self, span: int) -> LiveView:
        """A view of one running cell."""
        view = LiveView(self._source, cell=span, window_s=0, panels=("allocations",))
        view.show(still=False)
        self._of_cells = [each for each in self._of_cells if not each.dashboard.is_closed] + [view]
        return view

    def cell_ended(self) -> None:
        """Keep what a saved notebook would show in step."""
        if self._open is not None:
            self._open.keep_still()

    def close(self) -> bool:
        """Close the dashboard, and what cells left open; whether there was a dashboard."""
        for view in self._of_cells:
            view.close()
        self._of_cells.clear()
        if self.dashboard is None or self._open is None:
            return False
        self._open.close()
        self._open = None
        return True
