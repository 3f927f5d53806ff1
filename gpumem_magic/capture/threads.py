"""Threads that a cell starts belong to that cell, also when they allocate after it ended."""

from __future__ import annotations

import collections
import functools
import threading
from typing import TYPE_CHECKING, Any

from gpumem_magic import _core

if TYPE_CHECKING:
    from collections.abc import Callable

_STARTED_BY = "_gpumem_started_by"
_MOST_NAMES = 4096


class ThreadAttribution:
    """While installed, every ``threading.Thread`` remembers the span that started it.

    Two methods of ``threading.Thread`` are wrapped: ``start``, which runs in the starting thread, and
    ``_bootstrap_inner``, the first Python function of the new thread in every version from 3.11 to 3.14.
    ``run`` would be too late: subclasses replace it.
    """

    def __init__(self) -> None:
        self._originals: dict[str, Callable[..., Any]] = {}
        self._names: collections.OrderedDict[int, str] = collections.OrderedDict()  # by the system's number

    def name(self, thread: int) -> str:
        """Name of a thread, also of one that has ended; "" of one that was not started by Python, or long ago."""
        alive = {each.native_id: each.name for each in threading.enumerate()}
        return alive.get(thread) or self._names.get(thread, "")

    def _note_name(self, thread: threading.Thread) -> None:
        self._names[threading.get_native_id()] = thread.name
        while len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)

    def install(self) -> None:
        if self._originals:
            return
        for name, wrap in (("start", _remember_starter), ("_bootstrap_inner", self._adopt_starter)):
            original = getattr(threading.Thread, name)
            self._originals[name] = original
            setattr(threading.Thread, name, wrap(original))

    def remove(self) -> None:
        """Undo ``install``. Where someone wrapped the method after us, theirs stays and ours only passes on."""
        for name, original in self._originals.items():
            current = getattr(threading.Thread, name)
            if getattr(current, "__wrapped__", None) is original and hasattr(current, "_gpumem"):
                setattr(threading.Thread, name, original)
        self._originals.clear()

    def _adopt_starter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        note_name = self._note_name

        @functools.wraps(original)
        def _bootstrap_inner(self: threading.Thread, *args: Any, **kwargs: Any) -> Any:
            span = getattr(self, _STARTED_BY, 0)
            if span:
                _core.adopt_span(span)
            note_name(self)
            return original(self, *args, **kwargs)

        _bootstrap_inner._gpumem = True  # type: ignore[attr-defined]  # noqa: SLF001
        return _bootstrap_inner


def _remember_starter(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def start(self: threading.Thread, *args: Any, **kwargs: Any) -> Any:
        setattr(self, _STARTED_BY, _core.current_span())
        return original(self, *args, **kwargs)

    start._gpumem = True  # type: ignore[attr-defined]  # noqa: SLF001
    return start
