"""What a dashboard reads from: a session, or a recording played back in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumem_magic.model.history import HistoryDelta, HistoryLevels
    from gpumem_magic.model.snapshot import Snapshot


class Source(Protocol):
    """Methods are called on the dashboard's thread and, for a page that comes later, on the kernel's."""

    def wait_for_news(self, events: int, index: int, timeout_s: float) -> tuple[int, int]:
        """Sleep, without holding up other threads, until the count of events or the next index differs."""

    def history(self, since: int) -> HistoryDelta:
        """Samples since that index, and the one being made."""

    def history_levels(self) -> HistoryLevels:
        """All samples that are kept."""

    def snapshot(self, *, allocations: bool) -> Snapshot:
        """Everything known now; RuntimeError when nothing is recorded."""

    def header(self) -> Mapping[str, Any]:
        """``badges``: (text, severity, hint) each; ``facts``: (text, hint) each."""

    def is_busy(self) -> bool:
        """Whether a cell runs, so that messages of the page may have to wait."""

    def thread_name(self, thread: int) -> str:
        """Name of a thread by the operating system's number."""

    def source_line(self, filename: str, line: int) -> str:
        """A line of source without its indentation; "" when it cannot be had."""

    def command(self, name: str) -> None:
        """Do what a button of the page asks for. Raises nothing."""

    def watch(self, *, on: bool) -> None:
        """Somebody looks, or nobody does any more: frameworks are asked for their counters as often as samples."""
