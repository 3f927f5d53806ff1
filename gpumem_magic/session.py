"""One recording and everything that feeds it: tracker, cells, threads, profilers, files.

A Session is the only place that knows which of these are on. Its methods may be called from any thread; they hold
one lock, which no callback of the driver ever takes.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic import _core, simulator
from gpumem_magic.analysis.byte_ledger import ByteLedger, byte_ledger
from gpumem_magic.analysis.cell_report import CellReport, cell_report
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.raw_memory import raw_memory
from gpumem_magic.analysis.sampled_report import is_sampled, sampled_report
from gpumem_magic.capture import driver, recording, tracker
from gpumem_magic.capture.assemble import snapshot_from_tables
from gpumem_magic.capture.event_log import SegmentedEventLog
from gpumem_magic.capture.frameworks.imported import imported_frameworks
from gpumem_magic.capture.heartbeat import Heartbeat
from gpumem_magic.capture.holders import find_holders
from gpumem_magic.capture.ipython_shell import shell_of
from gpumem_magic.capture.process import this_process
from gpumem_magic.capture.profilers import ProfilerCourtesy
from gpumem_magic.capture.records import RecordTable
from gpumem_magic.capture.roots import collect_roots
from gpumem_magic.capture.sampling import INTERVAL_S, Sampler
from gpumem_magic.capture.spans import OpenSpans
from gpumem_magic.capture.threads import ThreadAttribution
from gpumem_magic.model.events import Kind
from gpumem_magic.model.history import HISTORY_DTYPE, HOST_DTYPE, HistoryDelta, HistoryLevels
from gpumem_magic.model.snapshot import Process
from gpumem_magic.model.status import Status

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterable

    from gpumem_magic.capture.holders import Progress
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.model.snapshot import Device, Snapshot

DEFAULT_BUDGET_BYTES = 1 << 30
SLOWEST_HZ, FASTEST_HZ = 1.0, 100.0


class Session:
    """Starts and stops tracking, and hands out Snapshots."""

    def __init__(self, *, depth: int = tracker.DEFAULT_DEPTH, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._lock = threading.RLock()
        self._spans = OpenSpans(self._sample_edge)
        self.owner_pid = os.getpid()  # a forked child has to make a session of its own
        self._depth = depth
        self._budget_bytes = budget_bytes
        self._state = "off"
        self._reason = ""
        self._attachment = tracker.Attachment(attached=False)
        self._stacks_problem = ""
        self._directory: pathlib.Path | None = None
        self._recording_problem = ""
        self._records = RecordTable()
        self._records_read = 0
        self._segments: dict[str, np.ndarray] = {}  # mapped for a snapshot, by path
        self._threads = ThreadAttribution()
        self._profilers = ProfilerCourtesy(self)
        self._heartbeat = Heartbeat(self._beat)
        self._sampler: Sampler | None = None
        self._interval_s = INTERVAL_S
        self._watchers = 0
        self._process = Process(host="", pid=0)
        self._devices: tuple[Device, ...] = ()
        self._gap_open = False
        self.progress: Callable[[Progress], None] | None = None
        """Told how far a search for holders is. See ``find_holders``."""
        _sessions.add(self)

    # ---- starting and stopping ----

    def start(self) -> Status:
        """Begin a new recording and watch every allocation from now on. Does nothing when it is on already."""
        with self._lock:
            if self._state != "off":
                return self.status()
            self._begin_recording()
            self._stacks_problem = tracker.start_stacks(self._depth) or self._check_stacks()
            self._threads.install()
            self._profilers.install()
            self._attach()
            self._describe()
            self._follow()
            return self.status()

    def stop(self) -> None:
        """Undo ``start``: no subscription, thread, patch or open file of ours is left. The recording stays on disk."""
        with self._lock:
            if self._state == "off":
                return
            atexit.unregister(self.stop)
            self._heartbeat.stop()
            self._profilers.remove()
            self._threads.remove()
            if self._sampler is not None:
                self._sampler.stop()
            _core.turn(False)
            _core.unsubscribe()
            _core.unwatch_code()
            self._state = "off"
            self._segments = {}
            self._describe(ended=True)
            _core.end_recording()

    def pause(self, reason: str = "paused by the user") -> None:
        """Stop recording events, but keep the subscription and the recording. Marks a gap."""
        with self._lock:
            if self._state not in ("on", "yielded"):
                return
            self._open_gap(reason)
            _core.turn(False)
            self._state, self._reason = "paused", reason
            self._sample()

    def resume(self) -> Status:
        """Record again after ``pause``, ``yield_slot`` or a lost subscription; checks the live set with the driver.

        While a profiler runs that CUPTI is lent to, this waits for its end.
        """
        with self._lock:
            if self._state == "paused" and self._profilers.in_use:
                self._state, self._reason = "yielded", "CUPTI is lent to a profiler that is running"
            elif self._state in ("paused", "yielded", "degraded", "no GPU") and not self._profilers.in_use:
                self._attach()
                self._describe()
                self._follow()
            return self.status()

    def yield_slot(self, to: str, *, shares: bool = False) -> bool:
        """Give CUPTI to another profiler. True when there was something to give. Marks a gap.

        Args:
            to: who gets it, for people.
            shares: the other profiler subscribes with ``allowMultipleSubscribers``, so from CUPTI 13.2 on both can be
                served. A profiler that uses the older ``cuptiSubscribe`` would be refused there too.
        """
        with self._lock:
            health = _core.health()
            if self._state not in ("on", "paused") or not health["subscribed"] or (shares and health["multiple"]):
                return False
            self._open_gap(f"CUPTI was lent to {to}")
            _core.unsubscribe()
            if self._state == "on":
                self._state, self._reason = "yielded", f"CUPTI is lent to {to}"
                self._sample()
            return True

    def check(self) -> bool:
        """Heartbeat: True when calls are seen. A lost subscription is taken up again where that is possible.

        Cheap enough for the end of every cell. Any thread.
        """
        with self._lock:
            if self._state == "yielded" or (self._state == "degraded" and self._attachment.busy):
                return not self._profilers.in_use and self._retake()
            if self._state != "on":
                return False
            if _core.heartbeat():
                return True
            self._open_gap("the CUPTI subscription was lost: another tool reset CUPTI")
            _core.unsubscribe()
            return self._retake()

    def _retake(self) -> bool:
        before = self._state
        self._attach()
        if self._state != before:
            self._describe()
        return self._state == "on"

    def _follow(self) -> None:
        """Keep an eye on the subscription from now on. Threads of ours must be gone before the interpreter goes."""
        if self._state != "no GPU":
            self._heartbeat.start()
            atexit.unregister(self.stop)
            atexit.register(self.stop)

    def _beat(self) -> None:
        """What the heartbeat's thread does. It never waits for the lock: ``stop`` holds that and waits for the thread.

        Kineto resets CUPTI on some other thread a moment after a profile; a call from here meanwhile might hang both.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._sampler is not None:
                self._sampler.follow_frameworks()
            if self._state == "yielded" and self._profilers.settling:
                return
            self.check()
        finally:
            self._lock.release()

    def _forget(self) -> None:
        """Be off. For a forked child, which has none of our threads and where any lock may be held for ever."""
        self._lock = threading.RLock()
        self._heartbeat = Heartbeat(self._beat)
        self._sampler, self._watchers = None, 0
        self._profilers.remove()
        self._threads.remove()
        self._attachment = tracker.Attachment(attached=False)
        self._state, self._reason = "off", ""
        self._directory, self._gap_open, self._devices = None, False, ()

    def _attach(self) -> None:
        previous = self._state
        self._attachment = _attach_to_cupti()
        if self._attachment.attached:
            self._state, self._reason = "on", ""
            _core.turn(True)
            self._sample()
            if self._gap_open:
                self._close_gap()
            return
        if self._attachment.busy and previous == "yielded":
            self._reason = self._attachment.reason
            return
        present = driver.is_driver_present() and self._devices_now()
        self._state = "degraded" if present else "no GPU"
        self._reason = self._attachment.reason
        if present:
            self._open_gap(self._reason.partition(". ")[0].rstrip("."))
            self._sample()

    def _open_gap(self, reason: str) -> None:
        if self._gap_open:
            return
        _core.mark(Kind.GAP_BEGIN)
        _core.note(json.dumps({"gap": "begin", "reason": reason}))
        self._gap_open = True

    def _close_gap(self) -> None:
        _core.mark(Kind.GAP_END)
        absent = _core.reconcile()
        _core.note(json.dumps({"gap": "end", "absent": absent}))
        self._gap_open = False

    def _sample(self) -> None:
        """Sample from now on, at the pace that is wanted now."""
        if self._sampler is None:
            self._sampler = Sampler(self._devices_now())
        self._sampler.interval_s = self._interval_s
        self._sampler.start(hurry=self._watchers > 0 or self._state != "on")

    def _sample_edge(self) -> None:
        """A sample at the edge of a span whose calls are not seen, so that it begins and ends where the span does."""
        sampler = self._sampler
        if sampler is None:
            return
        sampler.follow_frameworks()
        if self._state != "on":
            sampler.refresh()

    def _begin_recording(self) -> None:
        self._records, self._records_read = RecordTable(), 0
        self._segments = {}
        self._directory, self._recording_problem = None, ""
        self._gap_open = False
        self._sampler = None
        try:
            self._directory = recording.create_directory()
        except recording.RecordingError as error:
            self._recording_problem = f"{error} Recording goes on in memory."
        _core.begin_recording(str(self._directory or ""), self._budget_bytes)
        # What earlier recordings of this process interned is in the log from its beginning: ids stay valid.

    def _check_stacks(self) -> str:
        """Compare a native walk of this thread with what Python says. Returns "" when they agree."""
        expected = []
        # The walk sees this function at its own call; take Python's frames in the same expression.
        stack, frame = _core.current_stack(), sys._getframe()  # noqa: SLF001
        while frame is not None:
            expected.append((frame.f_code.co_filename, frame.f_code.co_qualname))
            frame = frame.f_back  # type: ignore[assignment]
        self._read_records()
        walked = [(each.filename, each.function) for each in self._records.stacks().frames(stack)]
        if walked and walked == expected[: len(walked)] and len(walked) == min(len(expected), self._depth):
            return ""
        _core.configure(self._depth, False)
        return "Python stacks are off: a trial walk disagreed with the interpreter, whose frames must have changed."

    # ---- describing ----

    def _devices_now(self) -> tuple[Device, ...]:
        if not self._devices and driver.is_driver_present():
            with contextlib.suppress(RuntimeError):  # a driver so old that it lacks a call: its devices stay unnamed
                self._devices = driver.devices()
        return self._devices

    def _describe(self, *, ended: bool = False) -> None:
        watching = self._state not in ("off", "no GPU") or ended
        if watching:
            self._devices_now()
        if not self._process.pid or self._process.pid != os.getpid():
            self._process = this_process()
        self._process = dataclasses.replace(
            self._process,
            driver=self._process.driver or (driver.driver_version() if self._devices else ""),
            simulated=simulator.is_active(),
            degraded=self._reason.rstrip(".") if self._state == "degraded" else "",
        )
        if self._directory is not None:
            try:
                recording.write_session(self._directory, self._process, self._devices, ended=ended)
            except recording.RecordingError as error:
                self._recording_problem = f"{error} Recording goes on."

    def status(self) -> Status:
        """Where things stand. Cheap; asks nobody outside this process."""
        with self._lock:
            health = _core.health()
            sampled = max(health["sampled"], 1)
            return Status(
                state=self._state,
                reason=self._reason,
                library=self._attachment.library,
                slot_holder=tracker.slot_holder() if self._state == "yielded" or self._attachment.busy else "",
                simulated=simulator.is_active(),
                driver=self._process.driver,
                devices=self._devices,
                recording=str(self._directory) if self._directory else "in memory",
                warnings=self._warnings(health),
                events=health["events"] if self._state != "off" else 0,
                gaps=sum(1 for note in self._notes() if note.text.get("gap") == "begin"),
                stacks=self._stacks_problem,
                overhead_s=health["sampled_ns"] / sampled * health["callbacks"] / 1e9,
                profiler_courtesy=self._profilers.patched,
            )

    def _warnings(self, health: dict[str, Any]) -> tuple[str, ...]:
        warnings = [self._recording_problem] if self._recording_problem else []
        code = health["journal_error"] or health["record_error"]
        if code and self._directory:
            warnings.append(
                f"The recording cannot be written any further ({os.strerror(code)}). "
                "What was recorded stays readable; recording goes on in memory. Free some space and load again.",
            )
        elif health["history_error"]:
            warnings.append(
                f"Memory over time cannot be kept on disk ({os.strerror(health['history_error'])}). It is kept in "
                "memory, and ends with this process.",
            )
        if health["lost_events"]:
            warnings.append(f"{health['lost_events']} events found no room, on disk or in memory, and are lost.")
        return (*warnings, *self._profilers.problems)

    def _notes(self) -> list[Any]:
        self._read_records()
        return self._records.notes

    # ---- spans and marks ----

    def open_span(self, **description: Any) -> int:
        """Open a span on this thread, inside the one that is open here; returns its id. See ``OpenSpans.open``."""
        return self._spans.open(**description)

    def close_span(self, span: int, **description: Any) -> None:
        """Close a span that this thread opened, and those left open inside it. See ``OpenSpans.close``."""
        self._spans.close(span, **description)

    def thread_name(self, thread: int) -> str:
        """What Python calls the thread with that number of the operating system; "thread 4711" where it does not."""
        return self._threads.name(thread) or f"thread {thread}"

    def mark(self, name: str) -> None:
        """Give this moment a name, in the recording and in every picture of it.

        Raises:
            RuntimeError: tracking is off.
        """
        with self._lock:
            if self._state == "off":
                raise RuntimeError(_OFF)
            _core.note(json.dumps({"mark": name}))

    # ---- reading ----

    def snapshot(self, name: str = "", *, allocations: bool = True, frameworks: bool = False) -> Snapshot:
        """Everything the recording knows at this moment, frozen.

        Args:
            name: what to call it; the time of day by default.
            allocations: False leaves the live allocations out, of which there may be a million: for tables that are
                refreshed every second. Sites, meters and cells are whole then, but ``Snapshot.allocations`` is empty,
                and ``self_check`` would find it missing.
            frameworks: ask those that are imported for their pools, which takes a microsecond or so per block.

        Raises:
            RuntimeError: tracking is off.
        """
        # Before our lock is taken: a framework may have to wait for a thread of its own that holds its pool.
        memories = tuple(each.memory() for each in imported_frameworks()) if frameworks else ()
        with self._lock:
            if self._state == "off":
                raise RuntimeError(_OFF)
            tables = _core.snapshot(allocations)
            self._read_records()
            return snapshot_from_tables(
                tables,
                self._records,
                SegmentedEventLog(_recount(_core.segments(), tables), self._segments),
                name=name or time.strftime("%H:%M:%S"),
                process=self._process,
                devices=self._devices,
                warnings=self._warnings(_core.health()),
                history=_core.history_levels(),
                frameworks=memories,
            )

    def ledger(self, devices: Iterable[int] | None = None) -> ByteLedger:
        """Every byte of ``devices``, of all when None, with a sample taken now; see ``byte_ledger``.

        Raises:
            RuntimeError: tracking is off.
            ValueError: a device that is not there.
        """
        if self._sampler is not None:
            self._sampler.refresh()
        return byte_ledger(self.snapshot(frameworks=True), devices)

    def holders(self, shell: Any = None, **options: Any) -> Holders:
        """Who holds the device memory that Python objects know; options as for ``capture.holders.find_holders``.

        ``shell`` is IPython's, whose variables and outputs count; None for a script.

        Raises:
            RuntimeError: tracking is off.
        """
        snapshot = self.snapshot(frameworks=True)
        raw, labels = raw_memory(snapshot), notebook_labels(snapshot)
        del snapshot
        return find_holders(
            imported_frameworks(),
            lambda: collect_roots(None if shell is None else shell_of(shell, labels)),
            allocations=raw,
            **{"progress": self.progress, **options},
        )

    @property
    def events(self) -> int:
        """How many events the recording has. Cheap."""
        return int(_core.health()["events"]) if self._state != "off" else 0

    # ---- memory over time ----

    def history(self, since: int = 0) -> HistoryDelta:
        """The samples with an index from ``since`` on, the latest 1024 at most, and the ones being made now.

        Empty while nothing is recorded. The indices begin anew with each recording. Takes none of our locks.
        """
        found = _core.history(max(since, 0))
        return HistoryDelta(
            rows=np.frombuffer(found["rows"], HISTORY_DTYPE),
            open=np.frombuffer(found["open"], HISTORY_DTYPE),
            host=np.frombuffer(found["host"], HOST_DTYPE),
            host_open=np.frombuffer(found["host_open"], HOST_DTYPE),
            next_index=int(found["next"]),
        )

    def history_levels(self) -> HistoryLevels:
        """All samples that are kept, older ones merged into ever coarser rows. Takes none of our locks."""
        found = _core.history_levels()
        return HistoryLevels(
            rows=np.frombuffer(found["rows"], HISTORY_DTYPE),
            host=np.frombuffer(found["host"], HOST_DTYPE),
            next_index=int(found["next"]),
        )

    def wait_for_news(self, events: int, index: int, timeout_s: float) -> tuple[int, int]:
        """Wait until something was allocated, freed or marked, or a sample taken; without the GIL.

        Args:
            events: the number of events that the caller knows, and
            index: the index of the next sample that it knows: 0 and 0 for a caller that knows nothing.
            timeout_s: the longest wait.

        Returns:
            Both as they are now. They are what the caller gave when the time is up and nothing came.
        """
        known: tuple[int, int] = _core.wait_for_news(events, index, timeout_s)
        return known

    def sampling_rate(self, hz: float) -> None:
        """Take that many samples a second from now on, 1 to 100; 10 unless told otherwise. Also for later recordings.

        Raises:
            ValueError: another number.
        """
        if not SLOWEST_HZ <= hz <= FASTEST_HZ:
            raise ValueError(f"{hz:g} samples a second cannot be taken: between 1 and 100 can.")
        with self._lock:
            self._interval_s = 1 / hz
            if self._sampler is not None and self._sampler.is_alive:
                self._sample()

    @property
    def interval_s(self) -> float:
        """Seconds between two samples."""
        return self._interval_s

    def watch(self) -> None:
        """Somebody looks: ask the frameworks for their counters as often as samples are taken. End with ``unwatch``."""
        self._count_watchers(1)

    def unwatch(self) -> None:
        """One that looked does so no more."""
        self._count_watchers(-1)

    def _count_watchers(self, more: int) -> None:
        with self._lock:
            self._watchers = max(self._watchers + more, 0)
            if self._sampler is not None and self._sampler.is_alive:
                self._sample()

    def report(self, cell: int, **options: Any) -> CellReport:
        """What span ``cell`` did; options as for ``analysis.cell_report.cell_report``, of no effect on samples."""
        snapshot = self.snapshot()
        if is_sampled(snapshot, cell):
            return sampled_report(snapshot, cell)
        return cell_report(snapshot, cell, **options)

    def _read_records(self) -> None:
        data = _core.read_records(self._records_read)
        self._records_read += len(data)
        problem = self._records.feed(data)
        if problem:
            raise AssertionError(f"the live record log is damaged: {problem}")

    @property
    def state(self) -> str:
        return self._state

    @property
    def directory(self) -> pathlib.Path | None:
        """Where the recording is; None while it is kept in memory."""
        return self._directory


_OFF = "Nothing is being recorded. Run `%load_ext gpumem_magic` or gpumem_magic.start()."
_FORKED = (
    "This process was forked from one that uses CUDA, and CUDA works in no such process. "
    "Start the process with the method `spawn` or `forkserver` instead."
)
_cuda_pid = 0  # process in which the driver was initialised for us


def _attach_to_cupti() -> tracker.Attachment:
    global _cuda_pid  # noqa: PLW0603  (it is a fact about the process, whatever sessions there are)
    if _cuda_pid not in (0, os.getpid()):
        return tracker.Attachment(attached=False, reason=_FORKED)
    attachment = tracker.attach()
    if attachment.attached or attachment.busy:
        _cuda_pid = os.getpid()
    return attachment


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _forget_sessions() -> None:
    for session in list(_sessions):
        session._forget()  # noqa: SLF001  (nobody else knows which there are)


os.register_at_fork(after_in_child=_forget_sessions)


def _recount(segments: list[tuple[str, int, int]], tables: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Cut the segment list to the events that the tables know: others may have come since."""
    known = int.from_bytes(tables["counters"][:8], "little")
    return [(path, first, min(count, known - first)) for path, first, count in segments if first < known]
