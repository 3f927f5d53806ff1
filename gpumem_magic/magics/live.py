"""The session as the source of a dashboard, and the dashboards that are open."""

from __future__ import annotations

import contextlib
import linecache
from typing import TYPE_CHECKING, Any

from gpumem_magic.model.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpumem_magic.model.history import HistoryDelta, HistoryLevels
    from gpumem_magic.model.snapshot import Snapshot
    from gpumem_magic.model.status import Status
    from gpumem_magic.session import Session


class SessionSource:
    """Implements ``views.dashboard.source.Source``."""

    def __init__(self, session: Session, is_busy: Callable[[], bool]) -> None:
        self._session = session
        self._is_busy = is_busy
        self._marks = 0

    def wait_for_news(self, events: int, index: int, timeout_s: float) -> tuple[int, int]:
        return self._session.wait_for_news(events, index, timeout_s)

    def history(self, since: int) -> HistoryDelta:
        return self._session.history(since)

    def history_levels(self) -> HistoryLevels:
        return self._session.history_levels()

    def snapshot(self, *, allocations: bool) -> Snapshot:
        return self._session.snapshot(allocations=allocations)

    def header(self) -> Mapping[str, Any]:
        status = self._session.status()
        return {"badges": _badges(status), "facts": _facts(status)}

    def is_busy(self) -> bool:
        return self._is_busy()

    def thread_name(self, thread: int) -> str:
        return self._session.thread_name(thread)

    def source_line(self, filename: str, line: int) -> str:
        return linecache.getline(filename, line).strip() if line else ""

    def command(self, name: str) -> None:
        if name == "mark":
            self._marks += 1
            with contextlib.suppress(RuntimeError):  # tracking is off, as the header of the dashboard says
                self._session.mark(f"mark {self._marks}")

    def watch(self, *, on: bool) -> None:
        self._session.watch() if on else self._session.unwatch()


def _badges(status: Status) -> list[tuple[str, str, str]]:
    made = [(status.state, "info" if status.state == "on" else "warning", status.reason or "every call is seen")]
    if status.simulated:
        made.append(("SIMULATED", "info", "nothing here was allocated on real hardware"))
    if status.gaps:
        made.append((f"{format_count(status.gaps)} gaps", "warning", "stretches in which calls were not seen"))
    made += [("attention", "warning", warning) for warning in status.warnings]
    return made


def _facts(status: Status) -> list[tuple[str, str]]:
    names = [device.name for device in status.devices]
    sizes = [format_size(device.total_bytes) for device in status.devices if device.total_bytes is not None]
    facts = [(_together(names), ", ".join(names))] if names else []
    if sizes:
        facts.append((sizes[0] if len(set(sizes)) == 1 else ", ".join(sizes), "capacity of each"))
    if status.driver:
        facts.append((f"CUDA {status.driver}", "version of CUDA that the driver supports"))
    facts.append((f"{format_count(status.events)} events", "driver calls seen that concern memory"))
    cost = format_duration(status.overhead_s) if status.overhead_s else "none measured"
    facts.append((f"cost so far {cost}", "time spent in the tracker's callbacks, estimated from one in 64"))
    return facts


_MOST_NAMES = 2


def _together(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if len(set(names)) == 1:
        return f"{len(names)} GPUs, {names[0]}"
    return ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} GPUs"
