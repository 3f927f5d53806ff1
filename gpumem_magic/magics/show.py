"""Puts an answer, or how far it is, under the cell that is running."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from IPython.display import display, update_display

if TYPE_CHECKING:
    from gpumem_magic.capture.holders import Progress

_SILENT_S, _PAUSE_S = 1.0, 0.2
_CELLS = 30


def show(answer: Any) -> None:
    """Display an answer in the forms it has: rich where there is a page, text in a terminal."""
    display(answer._repr_mimebundle_(), raw=True)


class SearchProgress:
    """Shows how far a search is when it lasts over a second, and takes that away when it is over."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._shown_at = 0.0
        self._display = ""

    def __call__(self, progress: Progress) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # what another thread displays lands in whatever cell ran last
        now = time.monotonic()
        if progress.done >= progress.total:
            self._end()
        elif self._began is None:
            self._began = now
        elif now - self._began > _SILENT_S and now - self._shown_at > _PAUSE_S:
            self._show(progress, now)

    def _show(self, progress: Progress, now: float) -> None:
        share = progress.done / progress.total
        bar = "█" * round(share * _CELLS)
        text = f"Looking for who holds device memory  {bar:░<{_CELLS}} {share:.0%}  (interrupt to stop)"
        if self._display:
            update_display({"text/plain": text}, raw=True, display_id=self._display)
        else:
            self._display = f"gpumem-{uuid.uuid4().hex}"
            display({"text/plain": text}, raw=True, display_id=self._display)
        self._shown_at = now

    def _end(self) -> None:
        if self._display:
            update_display({"text/plain": ""}, raw=True, display_id=self._display)
        self._began, self._display = None, ""
