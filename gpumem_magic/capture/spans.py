"""Spans: cell runs and ``track()`` blocks, opened and closed on the threads they belong to."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from gpumem_magic import _core

if TYPE_CHECKING:
    from collections.abc import Callable


class OpenSpans:
    """The spans that are open, one stack a thread. Any thread; each has its own."""

    def __init__(self, at_edge: Callable[[], None]) -> None:
        """``at_edge`` is called just after a span opened and just before it closes."""
        self._local = threading.local()
        self._at_edge = at_edge

    def open(self, **description: Any) -> int:
        """Open a span on this thread, inside the one that is open here; returns its id.

        ``description``: fields of ``model.snapshot.Cell`` that say what it is. Spans of the main thread also take
        what threads without a span of their own allocate.
        """
        stack = self._stack()
        parent = stack[-1] if stack else _core.current_span()
        if not stack:
            self._local.outer = parent
        span = int(_core.begin_span(parent, json.dumps(description), _is_main_thread()))
        stack.append(span)
        self._at_edge()
        return span

    def close(self, span: int, **description: Any) -> None:
        """Close a span that this thread opened, and those left open inside it. ``description`` replaces the first."""
        stack = self._stack()
        if span not in stack:
            return
        self._at_edge()
        while True:
            inner = stack.pop()
            parent = stack[-1] if stack else self._local.outer
            _core.end_span(inner, parent, json.dumps(description if inner == span else {}), _is_main_thread())
            if inner == span:
                break
        if not stack and not _is_main_thread():
            _core.adopt_span(parent)  # back to being a thread that somebody's cell started

    def _stack(self) -> list[int]:
        stack: list[int] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        return stack


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
