"""The dashboard: one thread that looks what is new and tells the page, as long as somebody looks."""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.analysis.bands import BAND_HINTS, BAND_LABELS, BAND_NAMES
from gpumem_magic.analysis.cell_report import descendants
from gpumem_magic.analysis.cell_table import outermost
from gpumem_magic.analysis.detail import exact_bytes
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.incidents import IncidentLog
from gpumem_magic.analysis.timelines import MAX_POINTS
from gpumem_magic.model.history import FACTOR, LEVEL_ROWS, LEVELS, by_device
from gpumem_magic.views.dashboard.clock import Clock
from gpumem_magic.views.dashboard.memory_rows import COLUMNS, MemoryRows
from gpumem_magic.views.dashboard.panel import Moment, all_panels
from gpumem_magic.views.dashboard.pictures import document
from gpumem_magic.views.dashboard.tables import Keyed, PanelRows
from gpumem_magic.views.dashboard.viewers import Viewers
from gpumem_magic.views.dashboard.widget import DashboardWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpumem_magic.model.snapshot import Cell, Device, Snapshot
    from gpumem_magic.views.dashboard.source import Source

QUICKEST_S = 0.1
"""Between two messages, while there are events."""
QUIET_S = 0.25
"""Between two messages, while only time passes."""
REFRESH_S = 0.5
"""Between two refreshes of the tables, at least."""
REFRESH_SHARE = 0.01
"""Of a core's time, what refreshing the tables may take: with more to do they are refreshed less often."""
MOST_ALLOCATIONS = 100_000
"""With more live allocations than this, ages and threads are left out: they cost a copy of them all."""
MOST_CELLS = 500
DEFAULT_WINDOW_S = 60.0
_JOIN_S = 5.0
_LATEST_MS = 8.64e15  # of a date in a page

COMMANDS = (
    ("mark", "Mark", "Put a named line into the picture (%gpumem mark NAME)"),
    ("clear-cells", "Clear cells", "Take finished cells off the table (%gpumem watch --clear-cells)"),
    ("close", "Close", "End the live view; a still picture stays (%gpumem close)"),
)


class Dashboard:
    """The state of one live view, and the thread that feeds it. All methods may be called from any thread.

    The thread prints nothing, holds no lock of the source's while it sends, and ends with ``close`` or when nobody has
    looked for a while; a page that comes back wakes it.
    """

    def __init__(
        self,
        source: Source,
        *,
        window_s: float = DEFAULT_WINDOW_S,
        cell: int | None = None,
        panels: Sequence[str] = (),
        token: str = "",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins with everything that ``source`` knows already.

        Args:
            source: what to show.
            window_s: how much time the pictures show, until the reader chooses another; 0 for all.
            cell: id of a span: only it and what is nested in it.
            panels: names of the tables; all when empty.
            token: elements of class ``gpumem-TOKEN`` are hidden in the page while the widget is seen there.
            on_close: called once the dashboard was closed from the page.

        Raises:
            RuntimeError: nothing is being recorded.
        """
        self._source = source
        self._lock = threading.RLock()
        self._cell = cell
        self._token = token
        self._on_close = on_close
        self._panels = [panel for panel in all_panels() if not panels or panel.name in panels]
        snapshot = source.snapshot(allocations=True)
        self._devices: tuple[Device, ...] = snapshot.devices
        self._document = document(self._devices)
        self._since_ns = 0 if cell is None else snapshot.cell(cell).begin_ns
        self._begin(snapshot)
        self._settings: dict[str, Any] = {"number": 0}
        self._window_ms = window_s * 1e3
        self._header = dict(source.header())
        self._ended = ""
        self._viewers = Viewers()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._refresh_due = 0.0
        self._refreshed_events = -1
        self._events, self._index = 0, source.history_levels().next_index
        self.problem = ""  # the last failure of the thread
        self.refresh_cost_s = 0.0
        self._take(snapshot)
        self.widget = DashboardWidget(self._whole, self._hear, self._lock)

    def _begin(self, snapshot: Snapshot) -> None:
        """Know nothing of a recording but what ``snapshot`` says of its devices and its clock."""
        self._recording = _recording_of(snapshot)
        if snapshot.devices != self._devices:
            self._devices = snapshot.devices
            self._document = document(self._devices)
        self._clock = Clock(snapshot.process)
        self._tables = [PanelRows(panel) for panel in self._panels]
        self._spans, self._marks = Keyed(MOST_CELLS), Keyed(MOST_CELLS)
        self._incidents = IncidentLog()
        self._cells_since_ns = 0
        self._memory = MemoryRows(self._clock, (each.ordinal for each in self._devices), self._source.history_levels)

    # ---- its life ----

    def start(self) -> None:
        """Begin to feed the page. Does nothing while it does so, or after ``close``."""
        with self._lock:
            if self._ended or (self._thread is not None and self._thread.is_alive()):
                return
            self._stopping = threading.Event()
            # A daemon, for it must not keep a script from ending; whoever opened the dashboard closes it.
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name="gpumem-dashboard", daemon=True
            )
            self._thread.start()
            _running.add(self)

    def close(self, reason: str = "This view was closed; %gpumem opens a new one.") -> None:
        """Tell the page that this was the last message, end the thread and wait for it. The widget goes too."""
        if self._ended:
            return  # in a forked child nobody may ask for the lock
        with self._lock:
            if self._ended:
                return
            self._ended = reason
            self.widget.send_update({"ended": reason})
        self.stop()
        self.widget.close()

    def stop(self) -> None:
        """End the thread and wait for it, and say nothing to the page. A page that comes back wakes it."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)
        _running.discard(self)

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What shows the widget: (MIME bundle, metadata)."""
        return self.widget.bundle()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be shown any more, be it that somebody else closed the widget."""
        return bool(self._ended) or self.widget.comm is None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def thread_clock(self) -> int:
        """The clock of the thread's own time, for ``time.clock_gettime``. RuntimeError when no thread runs."""
        if self._thread is None or self._thread.ident is None or not self._thread.is_alive():
            raise RuntimeError("The dashboard's thread does not run.")
        return time.pthread_getcpuclockid(self._thread.ident)

    def set(self, **settings: Any) -> None:
        """What a reader can set in the page, set from here: ``window_ms``, ``paused``, ``devices``."""
        with self._lock:
            self._settings = {**self._settings, **settings, "number": self._settings["number"] + 1}
            self.widget.send_update({"config": {"settings": self._settings}, "settings": True})

    def clear_cells(self) -> None:
        """Take the cells that ended before now off the table. Nothing while tracking is off."""
        try:
            now_ns = self._source.snapshot(allocations=False).time_ns
        except RuntimeError:
            return
        with self._lock:
            self._cells_since_ns = now_ns
        self.look_again()

    def look_again(self) -> None:
        """Bring tables and marks up to date at the next turn, although no driver call came."""
        with self._lock:
            self._refreshed_events = -1
            self._refresh_due = 0.0

    # ---- the thread ----

    def _run(self, stopping: threading.Event) -> None:
        self._source.watch(on=True)
        try:
            while not stopping.is_set() and self._is_watched():
                began = time.monotonic()
                try:
                    self._turn(stopping)
                except Exception as error:  # noqa: BLE001  (a thread that prints would print into some cell)
                    self.problem = repr(error)
                    stopping.wait(1.0)
                stopping.wait(max(began + QUICKEST_S - time.monotonic(), 0))
        finally:
            self._source.watch(on=False)

    def _turn(self, stopping: threading.Event) -> None:
        """Wait for something to tell, and tell it."""
        deadline = time.monotonic() + QUIET_S
        events, index = self._events, self._index
        while events == self._events and not stopping.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            events, index = self._source.wait_for_news(self._events, index, left)
        if stopping.is_set():
            return
        self._events = events
        if index < self._index:  # another recording: its numbers begin anew
            self._refreshed_events, self._refresh_due = -1, 0.0
        self._tell(self._news)
        if self._is_refresh_due():
            refreshed = self._refresh()  # after the news, which would have to wait for it
            if refreshed:
                self._tell(lambda: refreshed)

    def _tell(self, make: Callable[[], dict[str, Any]]) -> None:
        with self._lock:
            if not self._ended:
                self.widget.send_update(make())

    def _is_watched(self) -> bool:
        with self._lock:
            return not self.is_closed and self._viewers.any(is_busy=self._source.is_busy())

    def _hear(self, content: dict[str, Any]) -> None:
        kind, view = content.get("kind"), content.get("view")
        if kind in ("hello", "pulse") and isinstance(view, str):
            with self._lock:
                is_there = self._viewers.hello(view)
            if is_there and not self.is_alive:
                self._wake()
        elif kind == "bye" and isinstance(view, str):
            with self._lock:
                self._viewers.goodbye(view)
        elif kind == "detail":
            self._detail(content)
        elif kind == "command":
            self._obey(str(content.get("name", "")))

    def _wake(self) -> None:
        """Somebody looks again: what was missed meanwhile comes at once."""
        if self._ended:
            return
        self.widget.send_everything()
        self.start()

    def _obey(self, name: str) -> None:
        if name == "clear-cells":
            self.clear_cells()
        elif name == "close":
            self.close()
            self._on_close()
        else:
            self._source.command(name)
            self.look_again()

    # ---- what is told ----

    def _news(self) -> dict[str, Any]:
        """Samples that the page does not have yet. With the lock held."""
        delta = self._source.history(self._index)
        self._index = delta.next_index
        now_ns = int(delta.open["end_ns"].max(initial=0)) or int(delta.host_open["end_ns"].max(initial=0))
        told = self._memory.of(delta)
        return {
            "now": self._clock(now_ns or time.monotonic_ns()),
            "rows": [row for row in told if row[1] < delta.next_index],
            "open": [row for row in told if row[1] >= delta.next_index],
        }

    def _detail(self, content: dict[str, Any]) -> None:
        """Somebody zoomed in: each event of the stretch, if they can be had. It has no number: it may be lost."""
        begin, end = content.get("begin"), content.get("end")
        if not (isinstance(begin, int | float) and isinstance(end, int | float) and 0 <= begin < end < _LATEST_MS):
            return
        try:
            log = self._source.snapshot(allocations=False).events
        except RuntimeError:  # tracking was turned off
            return
        rows = self._source.history_levels().rows
        found, is_exact = {}, True
        for device, mine in by_device(rows).items():
            exact = exact_bytes(log, mine, self._clock.time_ns(begin), self._clock.time_ns(end))
            if exact is not None:
                found[device] = [self._clock.columns(exact[0]).tolist(), exact[1].tolist()]
                is_exact &= len(exact[0]) < MAX_POINTS // 2  # with more, some may have been left out
        self.widget.send({"kind": "detail", "begin": begin, "end": end, "exact": is_exact, "devices": found})

    # ---- the tables ----

    def _is_refresh_due(self) -> bool:
        return time.monotonic() >= self._refresh_due and (
            self._events != self._refreshed_events or time.monotonic() >= self._refresh_due + 1.0
        )

    def _refresh(self) -> dict[str, Any]:
        """Make tables, cells and marks anew; returns what of them the page has to be told."""
        began_s, began = time.thread_time(), time.monotonic()
        header = dict(self._source.header())
        message: dict[str, Any] = {}
        if self._events != self._refreshed_events:
            self._refreshed_events = self._events
            message = self._look()
        if header != self._header:
            self._header = message["header"] = header
        self.refresh_cost_s = time.thread_time() - began_s
        self._refresh_due = began + max(REFRESH_S, self.refresh_cost_s / REFRESH_SHARE)
        return message

    def _look(self) -> dict[str, Any]:
        try:
            snapshot = self._source.snapshot(allocations=self._live_count <= MOST_ALLOCATIONS)
        except RuntimeError:  # tracking was turned off: the header says so
            return {}
        if _is_another(_recording_of(snapshot), self._recording):
            self._change_over(snapshot)
            return {}
        self._recording = _recording_of(snapshot)
        return self._take(snapshot)

    def _change_over(self, snapshot: Snapshot) -> None:
        """Show another recording, which was begun meanwhile, from its begin. A view of one cell stays with its own."""
        if self._cell is not None:
            return
        with self._lock:
            self._begin(snapshot)
            self._take(snapshot)
            self.widget.send_everything()

    def _take(self, snapshot: Snapshot) -> dict[str, Any]:
        self._live_count = int(snapshot.meters["live_count"].sum())
        moment = self._moment(snapshot)
        made = [table.make(moment) for table in self._tables]
        incidents = self._incidents.incidents(snapshot, moment.labels)
        with self._lock:
            changes = {table.panel.name: table.update(rows) for table, rows in zip(self._tables, made, strict=True)}
            spans = self._spans.update([self._span(cell) for cell in self._shown_cells(snapshot)])
            marks = self._marks.update([self._mark(each) for each in incidents])
        told = {
            "panels": {name: change for name, change in changes.items() if change is not None},
            "spans": spans,
            "marks": marks,
        }
        return {name: value for name, value in told.items() if value}

    def _moment(self, snapshot: Snapshot) -> Moment:
        return Moment(
            snapshot=snapshot if self._cell is None else _only(snapshot, self._cell),
            labels=notebook_labels(snapshot),
            clock=self._clock,
            thread_name=self._source.thread_name,
            source_line=self._source.source_line,
            since_ns=max(self._cells_since_ns, self._since_ns),
        )

    def _shown_cells(self, snapshot: Snapshot) -> list[Cell]:
        return [cell for cell in outermost(snapshot.cells) if not cell.end_ns or cell.end_ns >= self._since_ns]

    def _span(self, cell: Cell) -> dict[str, Any]:
        return {
            "key": cell.id,
            "label": cell.label.removeprefix("In "),
            "begin": self._clock(cell.begin_ns),
            "end": self._clock(cell.end_ns) if cell.end_ns else None,
        }

    def _mark(self, incident: Any) -> dict[str, Any]:
        return {
            "key": f"{incident.kind} {incident.begin_ns} {incident.number}",
            "kind": incident.kind,
            "at": self._clock(incident.begin_ns),
            "end": self._clock(incident.end_ns) if incident.end_ns else None,
            "text": incident.text,
            "device": incident.device,
        }

    # ---- everything, for a page that comes now ----

    def _whole(self) -> tuple[dict[str, Any], bytes]:
        """State and history. With the lock held, so no message comes in between."""
        levels = self._source.history_levels()
        self._index = levels.next_index
        state = {
            "config": self._config(),
            "document": self._document,
            "header": self._header,
            "panels": [table.whole() for table in self._tables],
            "spans": list(self._spans.items.values()),
            "marks": list(self._marks.items.values()),
            "now": self._clock(int(levels.host["end_ns"].max(initial=0))),
            "ended": self._ended,
        }
        return state, self._memory.packed(levels, self._since_ns)

    def _config(self) -> dict[str, Any]:
        return {
            "devices": [
                {"ordinal": device.ordinal, "name": device.name, "total": device.total_bytes}
                for device in self._devices
            ],
            "history": {"factor": FACTOR, "levels": LEVELS, "rows": LEVEL_ROWS, "columns": COLUMNS},
            "bands": {name: {"label": BAND_LABELS[name], "hint": BAND_HINTS[name]} for name in BAND_NAMES},
            "window_ms": self._window_ms,
            "since_ms": self._clock(self._since_ns) if self._since_ns else 0,
            "token": self._token,
            "settings": self._settings,
            "commands": [{"name": name, "text": text, "hint": hint} for name, text, hint in COMMANDS]
            if self._cell is None
            else [],
        }


_running: weakref.WeakSet[Dashboard] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """A thread that waits in native code must be gone before the interpreter goes."""
    for each in list(_running):
        each.stop()


def _forget_all() -> None:
    """For a forked child, which has none of our threads and where any lock may be held for ever."""
    for each in list(_running):
        each._ended = "This process was forked."  # noqa: SLF001  (nobody else knows which there are)
    _running.clear()


os.register_at_fork(after_in_child=_forget_all)


def _recording_of(snapshot: Snapshot) -> tuple[int, tuple[Device, ...]]:
    """What tells one recording of this process from another: when its first sample began, and of which devices.

    The time is 0 before the first sample.
    """
    history = snapshot.history
    return (0 if history is None or not len(history) else int(history["begin_ns"].min())), snapshot.devices


def _is_another(recording: tuple[int, tuple[Device, ...]], known: tuple[int, tuple[Device, ...]]) -> bool:
    (began, devices), (known_began, known_devices) = recording, known
    return devices != known_devices or known_began not in (0, began)


def _only(snapshot: Snapshot, cell: int) -> Snapshot:
    """What one span and those nested in it did."""
    mine = descendants(snapshot.cells, cell)
    return dataclasses.replace(
        snapshot,
        sites=snapshot.sites[np.isin(snapshot.sites["cell"], mine)],
        allocations=snapshot.allocations[np.isin(snapshot.allocations["cell"], mine)],
        cells=tuple(each for each in snapshot.cells if each.id in mine),
    )
