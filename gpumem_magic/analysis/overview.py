"""What fills the GPUs now, and how it came to that: the still form of the dashboard."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gpumem_magic.analysis.allocators import Allocator, allocators
from gpumem_magic.analysis.bands import Bands, bands
from gpumem_magic.analysis.cell_report import device_of, still_live
from gpumem_magic.analysis.cell_table import CellTable, cell_table
from gpumem_magic.analysis.device_history import (
    decimated,
    device_meter,
    recorded_bands,
    up_to_now,
    within,
)
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.incidents import OUT_OF_MEMORY, refusals
from gpumem_magic.analysis.recording_report import recording_begin_ns
from gpumem_magic.analysis.timelines import MAX_EVENTS, thinned
from gpumem_magic.model.events import EventFlag, Layer
from gpumem_magic.model.history import UNKNOWN, by_device, finest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from gpumem_magic.model.snapshot import Cell, Device, Gap, Mark, Process, Snapshot

POINTS = 1200
"""Rows in the picture of one device; with several devices each gets fewer, so that a page stays light."""
_POINTS_IN_ALL = 4800
_FEWEST_POINTS = 120
_MARKS = 30
"""Stretches of time into which marks that lie close together are gathered."""
_MARKS_IN_ALL = 30
_FEWEST_MARKS = 5
_MOST_MARKS = 8

_Mark = TypeVar("_Mark")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellMark:
    """A cell run in the picture, or several short ones that lie too close together to tell apart there."""

    label: str  # "In [7]", or of several the first and the last
    number: str  # "7", or of several the first and the last; the label of a track() block
    first_line: str  # "" for several
    count: int
    begin_ns: int
    end_ns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GapMark:
    """A stretch in which calls were not seen, or several close together."""

    begin_ns: int
    end_ns: int
    reason: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FailureMark:
    """A call that the driver refused, or several close together."""

    device: int  # NO_DEVICE for host memory
    begin_ns: int
    end_ns: int
    count: int
    size: int  # bytes asked for, of the largest
    out_of_memory: bool  # one of them at least
    injected: bool  # all of them were made to fail on purpose


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOverview:
    """One device. Numbers are those of the moment of the snapshot; None is what nobody could tell."""

    device: Device
    bands: Bands | None  # over the window, decimated; None when nothing is known of it
    used_bytes: int | None  # by all processes
    free_bytes: int | None
    tracked_bytes: int  # in allocations: live and cached
    cached_bytes: int | None  # kept by the framework's pool; part of tracked_bytes
    peak_bytes: int  # of tracked_bytes, in the whole recording
    peak_ns: int
    utilization: float | None  # per cent of the latest sample
    failures: tuple[FailureMark, ...]

    @property
    def live_bytes(self) -> int:
        """In allocations and in use, as far as it is known."""
        return self.tracked_bytes - (self.cached_bytes or 0)

    @property
    def highest_bytes(self) -> int:
        """The highest that the picture shows."""
        return 0 if self.bands is None else int((self.bands.floor + self.bands.high).max())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostOverview:
    """Memory of this process in the host, over the window. Columns of the same length, by time; -1 is unknown."""

    begin_ns: np.ndarray
    end_ns: np.ndarray
    resident: np.ndarray  # at the row's end
    highest: np.ndarray  # within the row
    anonymous: np.ndarray  # of resident, not backed by a file: the heaps of Python and of native code

    @property
    def now_bytes(self) -> int:
        return int(self.resident[-1])

    @property
    def anonymous_bytes(self) -> int | None:
        """At the end; None when nobody could tell."""
        return None if self.anonymous[-1] == UNKNOWN else int(self.anonymous[-1])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The answer to "what does my GPU memory look like?". Times are on the clock of the events."""

    name: str
    process: Process
    recording_begin_ns: int
    begin_ns: int  # of the window that the pictures show
    end_ns: int  # of the window: the moment of the snapshot
    devices: tuple[DeviceOverview, ...]
    cell_marks: tuple[CellMark, ...]  # outermost cells within the window
    gaps: tuple[GapMark, ...]  # within the window
    marks: tuple[Mark, ...]  # the latest that somebody set within the window
    host: HostOverview | None
    cells: CellTable
    sites: tuple[Allocator, ...]  # rows with live bytes of the device layer on the chosen devices, largest first
    hidden_sites: int  # rows left out above
    hidden_bytes: int
    events: int
    failures: int  # refused calls in the whole recording
    failures_placed: bool  # False when there are too many events to look for them: no mark shows them then
    paused: str  # why calls are not seen at this moment; "" when they are
    warnings: tuple[str, ...]

    def seconds(self, time_ns: int) -> float:
        """Since the recording began."""
        return (time_ns - self.recording_begin_ns) / 1e9

    @property
    def duration_s(self) -> float:
        """Of the window."""
        return (self.end_ns - self.begin_ns) / 1e9


def overview(
    snapshot: Snapshot,
    *,
    window_s: float | None = None,
    devices: Collection[int] | None = None,
    points: int = POINTS,
    top: int = 10,
) -> Overview:
    """Everything of ``snapshot`` that a picture of the GPUs shows.

    Args:
        snapshot: live, or a recording from disk.
        window_s: how far back the pictures reach; to the begin of the recording when None.
        devices: ordinals of the devices to show; all when None.
        points: at most so many rows in the picture of a device.
        top: how many rows of live memory to show.

    Raises:
        ValueError: one of ``devices`` is not in the recording, or the window is not longer than nothing.
    """
    began_ns, end_ns = recording_begin_ns(snapshot), snapshot.time_ns
    begin_ns = began_ns if window_s is None else max(began_ns, end_ns - _window_ns(window_s))
    chosen = _chosen(snapshot, devices)
    apart_ns = (end_ns - begin_ns) // _share(_MARKS, _MARKS_IN_ALL, len(chosen), _FEWEST_MARKS)
    failures = _failures(snapshot, begin_ns, end_ns, apart_ns)
    sites = _sites(snapshot, chosen)
    return Overview(
        name=snapshot.name,
        process=snapshot.process,
        recording_begin_ns=began_ns,
        begin_ns=begin_ns,
        end_ns=end_ns,
        devices=_devices(snapshot, chosen, begin_ns=begin_ns, points=points, failures=failures or ()),
        cell_marks=_cell_marks(snapshot, begin_ns, end_ns, apart_ns),
        gaps=_gap_marks(snapshot.gaps, begin_ns, end_ns, apart_ns),
        marks=tuple(mark for mark in snapshot.marks if begin_ns <= mark.time_ns <= end_ns)[-_MOST_MARKS:],
        host=_host(snapshot, begin_ns, points),
        cells=cell_table(snapshot),
        sites=sites[:top],
        hidden_sites=len(sites[top:]),
        hidden_bytes=sum(row.live_bytes for row in sites[top:]),
        events=int(snapshot.counters.get("events", 0)),
        failures=int(snapshot.counters.get("failures", 0)),
        failures_placed=failures is not None,
        paused=next((gap.reason or "reason unknown" for gap in snapshot.gaps if not gap.end_ns), ""),
        warnings=snapshot.warnings,
    )


def _window_ns(window_s: float) -> int:
    if not window_s > 0:
        raise ValueError(f"a window of {window_s:g} s shows nothing; it has to be longer than 0 s")
    return round(min(window_s, 1e9) * 1e9)


def _chosen(snapshot: Snapshot, devices: Collection[int] | None) -> list[int]:
    """Ordinals of the devices to show."""
    known = {device.ordinal for device in snapshot.devices}
    known |= {int(row["device"]) for row in snapshot.meters if row["layer"] == Layer.DEVICE}
    known |= set() if snapshot.history is None else set(by_device(snapshot.history))
    if devices is None:
        return sorted(known)
    unknown = sorted(set(devices) - known)
    if unknown:
        there = f"it has {', '.join(map(str, sorted(known)))}" if known else "it has none"
        raise ValueError(f"the recording has no device {unknown[0]}; {there}")
    return sorted(set(devices))


def _share(most: int, in_all: int, count: int, least: int) -> int:
    """How many of something each of ``count`` pictures may have."""
    return max(min(most, in_all // max(count, 1)), least)


# Devices


def _devices(
    snapshot: Snapshot, chosen: Sequence[int], *, begin_ns: int, points: int, failures: Sequence[FailureMark]
) -> tuple[DeviceOverview, ...]:
    rows = {} if snapshot.history is None else by_device(snapshot.history)
    most = _share(points, points * _POINTS_IN_ALL // POINTS, len(chosen), _FEWEST_POINTS)
    return tuple(
        _device(
            snapshot,
            device_of(snapshot, ordinal),
            rows=rows.get(ordinal),
            begin_ns=begin_ns,
            points=most,
            failures=tuple(mark for mark in failures if mark.device == ordinal),
        )
        for ordinal in chosen
    )


def _device(
    snapshot: Snapshot,
    device: Device,
    *,
    rows: np.ndarray | None,
    begin_ns: int,
    points: int,
    failures: tuple[FailureMark, ...],
) -> DeviceOverview:
    meter = device_meter(snapshot, device.ordinal)
    if rows is None:
        whole, last = recorded_bands(snapshot, device.ordinal, recording_begin_ns(snapshot)), None
    else:
        rows = up_to_now(finest(rows), meter, snapshot.time_ns)
        whole, last = bands(rows), rows[-1]
    shown = None if whole is None else within(whole, begin_ns, snapshot.time_ns)
    used = None if whole is None or not whole.knows_total else int(whole.total[-1])
    return DeviceOverview(
        device=device,
        bands=None if shown is None else decimated(shown, points),
        used_bytes=used,
        free_bytes=_free(device, used, last),
        tracked_bytes=int(meter["live_bytes"].sum()) if whole is None else int(whole.live[-1] + whole.cached[-1]),
        cached_bytes=None if whole is None or not _knows_cached(last) else int(whole.cached[-1]),
        peak_bytes=int(meter["peak_bytes"].sum()),
        peak_ns=int(meter["peak_ns"].sum()),
        utilization=None if last is None or np.isnan(last["utilization"]) else float(last["utilization"]),
        failures=failures,
    )


def _free(device: Device, used: int | None, last: np.void | None) -> int | None:
    """What is neither used nor kept by the driver for itself."""
    if device.total_bytes is None or used is None or last is None:
        return None
    return max(device.total_bytes - used - max(int(last["reserved_bytes"]), 0), 0)


def _knows_cached(last: np.void | None) -> bool:
    return last is not None and UNKNOWN not in (last["torch_reserved_bytes"], last["torch_allocated_bytes"])


def _sites(snapshot: Snapshot, chosen: Sequence[int]) -> tuple[Allocator, ...]:
    mine = snapshot.sites[np.isin(snapshot.sites["device"], chosen)]
    rows = allocators(snapshot, mine, notebook_labels(snapshot))
    return tuple(row for row in still_live(rows) if row.layer == Layer.DEVICE)


# Host


def _host(snapshot: Snapshot, begin_ns: int, points: int) -> HostOverview | None:
    if snapshot.host_history is None:
        return None
    rows = finest(snapshot.host_history)
    rows = rows[(rows["end_ns"] > begin_ns) & (rows["rss_bytes"] != UNKNOWN)]
    if not len(rows):
        return None
    kept = thinned(rows["begin_ns"].astype(np.int64), rows["rss_max"].astype(np.int64), points // 2)
    rows = rows[kept]
    begins = np.append(rows["begin_ns"][:1], rows["end_ns"][:-1]).astype(np.int64)
    return HostOverview(
        begin_ns=np.maximum(begins, begin_ns),
        end_ns=np.append(begins[1:], max(int(rows["end_ns"][-1]), snapshot.time_ns)),
        resident=rows["rss_bytes"],
        highest=np.maximum(rows["rss_max"], rows["rss_bytes"]),
        anonymous=np.minimum(rows["anonymous_bytes"], rows["rss_bytes"]),
    )


# Marks


def _cell_marks(snapshot: Snapshot, begin_ns: int, end_ns: int, apart_ns: int) -> tuple[CellMark, ...]:
    """Outermost cells of the window, by their begin."""
    marks = [
        _cell_mark(cell, end_ns)
        for cell in sorted(snapshot.cells, key=lambda cell: (cell.begin_ns, cell.id))
        if not cell.parent and (cell.end_ns or end_ns) > begin_ns and cell.begin_ns < end_ns
    ]
    return tuple(map(_one_cell_mark, _gathered(marks, apart_ns, lambda mark: (mark.begin_ns, mark.end_ns))))


def _cell_mark(cell: Cell, end_ns: int) -> CellMark:
    number = cell.label if cell.execution_count is None else str(cell.execution_count)
    return CellMark(
        label=cell.label,
        number=number,
        first_line=cell.first_line,
        count=1,
        begin_ns=cell.begin_ns,
        end_ns=cell.end_ns or end_ns,
    )


def _one_cell_mark(group: Sequence[CellMark]) -> CellMark:
    first, last = group[0], group[-1]
    if first is last:
        return first
    return CellMark(
        label=f"{first.label} … {last.label}",
        number=f"{first.number}–{last.number}",  # noqa: RUF001  (the dash that is meant)
        first_line="",
        count=len(group),
        begin_ns=first.begin_ns,
        end_ns=max(mark.end_ns for mark in group),
    )


def _gap_marks(gaps: Iterable[Gap], begin_ns: int, end_ns: int, apart_ns: int) -> tuple[GapMark, ...]:
    inside = [
        (max(gap.begin_ns, begin_ns), min(gap.end_ns or end_ns, end_ns), gap.reason)
        for gap in gaps
        if (gap.end_ns or end_ns) >= begin_ns and gap.begin_ns <= end_ns
    ]
    return tuple(
        GapMark(
            begin_ns=group[0][0],
            end_ns=max(end for _, end, _ in group),
            reason=", ".join(dict.fromkeys(reason for _, _, reason in group if reason)),
            count=len(group),
        )
        for group in _gathered(inside, apart_ns, lambda gap: gap[:2])
    )


def _failures(snapshot: Snapshot, begin_ns: int, end_ns: int, apart_ns: int) -> tuple[FailureMark, ...] | None:
    """Refused calls of the window; None when there are some and too many events to look for them."""
    if not snapshot.counters.get("failures", 0):
        return ()
    if snapshot.events.count_between(begin_ns, end_ns) > MAX_EVENTS:
        return None
    events = snapshot.events.between(begin_ns, end_ns)
    failed = refusals(events)
    failed = failed[np.argsort(failed["time_ns"], kind="stable")]
    marks = []
    for device in np.unique(failed["device"]):
        mine = failed[failed["device"] == device]
        starts = _gathered_at(mine["time_ns"].astype(np.int64), apart_ns)
        marks += [_failure_mark(rows) for rows in np.split(mine, starts[1:])]
    return tuple(marks)


def _failure_mark(rows: np.ndarray) -> FailureMark:
    return FailureMark(
        device=int(rows["device"][0]),
        begin_ns=int(rows["time_ns"][0]),
        end_ns=int(rows["time_ns"][-1]),
        count=len(rows),
        size=int(rows["size"].max()),
        out_of_memory=bool((rows["status"] == OUT_OF_MEMORY).any()),
        injected=bool((rows["flags"] & EventFlag.INJECTED).all()),
    )


def _gathered_at(times: np.ndarray, apart_ns: int) -> np.ndarray:
    """Where a new group begins: at the first time that is further than ``apart_ns`` from the begin of the group."""
    starts = [0]
    while (following := int(np.searchsorted(times, times[starts[-1]] + apart_ns, side="right"))) < len(times):
        starts.append(following)
    return np.array(starts)


def _gathered(marks: Iterable[_Mark], apart_ns: int, ends: Callable[[_Mark], tuple[int, int]]) -> list[list[_Mark]]:
    """Groups of short marks that begin within ``apart_ns`` of the group's begin; a longer mark is by itself.

    So there are never more than about twice as many groups as such stretches in the picture.
    """
    groups: list[list[_Mark]] = []
    open_until = -1
    for mark in marks:
        begin, end = ends(mark)
        if end - begin >= apart_ns:
            groups.append([mark])
            open_until = -1
        elif begin < open_until:
            groups[-1].append(mark)
        else:
            groups.append([mark])
            open_until = begin + apart_ns
    return groups
