"""The dashboard: one thread that looks what is new and tells the page, as long as somebody looks."""

from __future__ import annotations

import atexit
import collections
import dataclasses
import gzip
import itertools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.analysis.bands import BAND_HINTS, BAND_LABELS, BAND_NAMES, Bands, bands, settled_base
from gpumem_magic.analysis.cell_report import descendants
from gpumem_magic.analysis.cell_table import outermost
from gpumem_magic.analysis.detail import exact_bytes
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.incidents import IncidentLog
from gpumem_magic.analysis.timelines import MAX_POINTS
from gpumem_magic.model.history import FACTOR, LEVEL_ROWS, LEVELS, UNKNOWN, by_device, finest
from gpumem_magic.views.dashboard.panel import Moment, all_panels
from gpumem_magic.views.dashboard.pictures import document
from gpumem_magic.views.dashboard.tables import Keyed, PanelRows
from gpumem_magic.views.dashboard.widget import DashboardWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpumem_magic.model.snapshot import Cell, Device, Process, Snapshot
    from gpumem_magic.views.dashboard.source import Source

QUICKEST_S = 0.1
"""Between two messages, while there are events."""
QUIET_S = 0.25
"""Between two messages, while only time passes."""
REFRESH_S = 0.5
"""Between two refreshes of the tables, at least."""
REFRESH_SHARE = 0.01
"""Of a core's time, what refreshing the tables may take: with more to do they are refreshed less often."""
UNSEEN_S = 35.0
"""A page says every 10 s that it is there. After so long without a word, while it could be heard, nobody looks."""
MOST_ALLOCATIONS = 100_000
"""With more live allocations than this, ages and threads are left out: they cost a copy of them all."""
MOST_CELLS = 500
HOST_DEVICE = 255
DEFAULT_WINDOW_S = 60.0
_JOIN_S = 5.0
_MOST_DEPARTED = 64  # views whose goodbye is remembered
_UNBOUNDED = 1 << 62
_LATEST_MS = 8.64e15  # of a date in a page

COMMANDS = (
    ("mark", "Mark", "Put a named line into the picture (%gpumem mark NAME)"),
    ("clear-cells", "Clear cells", "Take finished cells off the table (%gpumem watch --clear-cells)"),
    ("close", "Close", "End the live view; a still picture stays (%gpumem close)"),
)


class Clock:
    """Turns the clock of the events into milliseconds of the kernel's wall clock, its offset from UTC included.

    The page shows these as if they were UTC, so it shows the time of the machine that the kernel runs on.
    """

    def __init__(self, process: Process) -> None:
        offset_s = time.localtime(process.started_unix_ns / 1e9).tm_gmtoff
        self._at_zero = (process.started_unix_ns - process.started_ns) / 1e6 + offset_s * 1e3

    def __call__(self, time_ns: int) -> float:
        return round(self._at_zero + time_ns / 1e6, 3)

    def time_ns(self, milliseconds: float) -> int:
        """Back to the clock of the events, to the microsecond."""
        return round((milliseconds - self._at_zero) * 1e6)

    def columns(self, time_ns: np.ndarray) -> np.ndarray:
        """The same for many at once (float64)."""
        milliseconds: np.ndarray = np.round(self._at_zero + time_ns.astype(np.float64) / 1e6, 3)
        return milliseconds


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
        self._seen: dict[str, float] = {}  # when each view was heard of last
        self._heard_at = time.monotonic()
        self._departed: collections.deque[str] = collections.deque(maxlen=_MOST_DEPARTED)
        self._has_left = False  # the last page said goodbye
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
        self._bases: dict[int, int] = {}
        self._untracked: dict[int, int] = {}  # of the row that was told last, by device
        self._measured: dict[int, tuple[int, int]] = {}  # NVML's latest answers: of this process, of all
        self._unsettled = {device.ordinal for device in self._devices}
        self._settle_due = 0.0

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
        return bool(self._ended)

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
        """Whether anybody looks; in doubt, yes: while a cell runs the page may be unable to say so."""
        now = time.monotonic()
        with self._lock:
            if self._source.is_busy() and not self._has_left:
                self._heard_at = max(self._heard_at, now - UNSEEN_S / 2)
            return now - self._heard_at < UNSEEN_S

    def _hear(self, content: dict[str, Any]) -> None:
        kind, view = content.get("kind"), content.get("view")
        if kind in ("hello", "pulse") and isinstance(view, str) and view not in self._departed:
            with self._lock:
                now = time.monotonic()
                self._seen = {each: at for each, at in self._seen.items() if now - at < UNSEEN_S} | {view: now}
                self._heard_at, self._has_left = now, False
            if not self.is_alive:
                self._wake()
        elif kind == "bye" and isinstance(view, str):
            with self._lock:
                # Kernels may hand a page's first messages to the busy main thread and later ones to another, so that a
                # view says hello after its goodbye.
                self._departed.append(view)
                self._seen.pop(view, None)
                if not self._seen:
                    self._has_left = True
                    self._heard_at = time.monotonic() - UNSEEN_S + 2  # a page that is loaded anew says hello soon
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

    # ---- what is told ----

    def _news(self) -> dict[str, Any]:
        """Samples that the page does not have yet. With the lock held."""
        delta = self._source.history(self._index)
        self._index = delta.next_index
        now_ns = int(delta.open["end_ns"].max(initial=0)) or int(delta.host_open["end_ns"].max(initial=0))
        rows = self._band_rows(np.concatenate((delta.rows, delta.open)))
        host = self._host_rows(np.concatenate((delta.host, delta.host_open)))
        told = rows + host
        return {
            "now": self._clock(now_ns or time.monotonic_ns()),
            "rows": [row for row in told if row[1] < delta.next_index],
            "open": [row for row in told if row[1] >= delta.next_index],
        }

    def _band_rows(self, rows: np.ndarray) -> list[list[float]]:
        """[device, index, begin, end, five bands, low, high, utilization] per row, device by device, by time."""
        if not len(rows):
            return []
        if self._unsettled and time.monotonic() >= self._settle_due:
            known = {int(device) for device in rows["device"][rows["process_bytes"] != UNKNOWN]}
            if known & self._unsettled:
                self._settle()
        rows = rows[np.argsort(rows["device"], kind="stable")]
        self._fill(rows)
        limits = np.array([self._bases.get(device, _UNBOUNDED) for device in rows["device"].tolist()])
        found = bands(rows, base_bytes=limits, before=self._untracked)
        self._untracked |= zip(rows["device"].tolist(), found.untracked.tolist(), strict=True)
        columns = self._band_columns(rows["device"], found)
        return list(map(list, zip(*(column.tolist() for column in columns), strict=True)))

    def _fill(self, rows: np.ndarray) -> None:
        """Put what was known before in the place of what could not be asked: a question that failed frees nothing."""
        columns = [rows[name].tolist() for name in ("device", "process_bytes", "used_bytes", "driver_used_bytes")]
        for row, (device, process, used, driver_used) in enumerate(zip(*columns, strict=True)):
            before = self._measured.get(device, (UNKNOWN, UNKNOWN))
            known = next((each for each in (used, driver_used) if each != UNKNOWN), before[1])
            self._measured[device] = (process if process != UNKNOWN else before[0], known)
            rows["process_bytes"][row] = self._measured[device][0]
            if used == driver_used == UNKNOWN:
                rows["used_bytes"][row] = known

    def _band_columns(self, device: np.ndarray, found: Bands) -> list[np.ndarray]:
        return [
            device,
            found.index,
            self._clock.columns(found.begin_ns),
            self._clock.columns(found.end_ns),
            *(getattr(found, name) for name in BAND_NAMES),
            found.low,
            found.high,
            np.where(np.isnan(found.utilization), -1.0, np.round(found.utilization, 1)),
        ]

    def _settle(self) -> None:
        """Find out what lies below all tracked memory of a device, once that is known; see ``settled_base``."""
        self._settle_due = time.monotonic() + REFRESH_S
        rows = self._source.history_levels().rows
        for device in tuple(self._unsettled):
            base = settled_base(finest(rows[rows["device"] == device]))
            if base is not None:
                self._bases[device] = base
                self._unsettled.discard(device)

    def _host_rows(self, rows: np.ndarray) -> list[list[float]]:
        return list(map(list, zip(*(column.tolist() for column in self._host_columns(rows)), strict=True)))

    def _host_columns(self, rows: np.ndarray) -> list[np.ndarray]:
        zeros = np.zeros(len(rows))
        return [
            np.full(len(rows), HOST_DEVICE),
            rows["index"],
            self._clock.columns(rows["begin_ns"]),
            self._clock.columns(rows["end_ns"]),
            *(np.maximum(rows[name], 0) for name in ("rss_bytes", "rss_max", "anonymous_bytes", "anonymous_max")),
            *itertools.repeat(zeros, 3),
            zeros - 1,
        ]

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
        self._fill(levels.rows[levels.rows["level"] == 0])
        self._settle()
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
        return state, self._packed(levels.rows, levels.host)

    def _config(self) -> dict[str, Any]:
        return {
            "devices": [
                {"ordinal": device.ordinal, "name": device.name, "total": device.total_bytes}
                for device in self._devices
            ],
            "history": {"factor": FACTOR, "levels": LEVELS, "rows": LEVEL_ROWS, "columns": 11},
            "bands": {name: {"label": BAND_LABELS[name], "hint": BAND_HINTS[name]} for name in BAND_NAMES},
            "window_ms": self._window_ms,
            "since_ms": self._clock(self._since_ns) if self._since_ns else 0,
            "token": self._token,
            "settings": self._settings,
            "commands": [{"name": name, "text": text, "hint": hint} for name, text, hint in COMMANDS]
            if self._cell is None
            else [],
        }

    def _packed(self, rows: np.ndarray, host: np.ndarray) -> bytes:
        """[device, level, index, begin, end, …] per row as float64, compressed."""
        rows, host = rows[rows["end_ns"] > self._since_ns], host[host["end_ns"] > self._since_ns]
        parts = []
        for device, mine in by_device(rows).items():
            base = self._bases.get(device, _UNBOUNDED)
            for level in np.unique(mine["level"]):
                whole = mine[mine["level"] == level]
                columns = self._band_columns(whole["device"], bands(whole, base_bytes=base))
                parts.append(np.stack([whole["level"], *columns], axis=1))
        parts.append(np.stack([host["level"], *self._host_columns(host)], axis=1))
        table = np.concatenate(parts).astype("<f8")
        table[:, [0, 1]] = table[:, [1, 0]]  # the device comes first
        return gzip.compress(table.tobytes(), 1)


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
