"""What a whole recording saw: who made it, how far memory went, what is live and what went wrong."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gpumem_magic.analysis.allocators import Allocator, allocators
from gpumem_magic.analysis.cell_report import LAYER_NAMES, SpanMark, device_of, span_marks, still_live
from gpumem_magic.analysis.cell_table import CellTable, cell_table
from gpumem_magic.analysis.changes import changes
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.timelines import MAX_EVENTS, Anchors, Stretch, Timeline, coarse_timeline, is_exact, timeline
from gpumem_magic.model.events import Layer

if TYPE_CHECKING:
    import numpy as np

    from gpumem_magic.model.snapshot import Device, Gap, Process, Snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTotal:
    """One device over the recording."""

    device: Device
    live_bytes: int
    live_count: int
    peak_bytes: int
    peak_s: float  # since the recording began
    allocated_bytes: int  # everything ever allocated
    timeline: Timeline | None  # None when no event is kept


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordingReport:
    """The answer to "what happened in this recording?". Sizes in bytes, device layer unless a field says so."""

    name: str
    process: Process
    duration_s: float
    devices: tuple[DeviceTotal, ...]  # those that had an allocation; all known ones when none had
    cells: CellTable
    marks: tuple[SpanMark, ...]  # outermost cells
    stays: tuple[Allocator, ...]  # top rows with live bytes, all layers
    hidden_stays: int  # rows left out above
    hidden_bytes: int  # their live bytes, device layer
    other_layers: tuple[tuple[str, int, int], ...]  # (layer's name, live bytes, peak bytes) where there were any
    events: int
    failures: int
    failed: tuple[Allocator, ...]  # rows with failed calls, most first
    gaps: tuple[Gap, ...]
    begin_ns: int  # the clock's value at which the recording began
    oddities: tuple[tuple[str, int], ...]  # what should not happen and did, in words, with its count
    warnings: tuple[str, ...]

    @property
    def live_bytes(self) -> int:
        return sum(each.live_bytes for each in self.devices)

    @property
    def peak_bytes(self) -> int:
        """Sum of the devices' peaks."""
        return sum(each.peak_bytes for each in self.devices)


_ODDITIES = {
    "missed_frees": "allocations whose free was not seen (their address was handed out again)",
    "unknown_frees": "frees of memory from before tracking began",
    "absent": "allocations that were gone after a gap",
    "unknown_maps": "mappings of physical memory from before tracking began",
    "span_overflow": "blocks that were not metered because too many were open",
    "unknown_kinds": "events of a kind that this version does not know",
}


def recording_report(snapshot: Snapshot, *, top: int = 20, depth: int | None = None) -> RecordingReport:
    """Everything of ``snapshot`` on one page.

    Args:
        snapshot: the recording.
        top: how many rows of live memory to show.
        depth: tell allocators apart by this many innermost frames only; by whole stacks when None.
    """
    begin_ns = recording_begin_ns(snapshot)
    rows = allocators(snapshot, snapshot.sites, notebook_labels(snapshot), depth=depth)
    stays = still_live(rows)
    devices, notes = _device_totals(snapshot, begin_ns)
    return RecordingReport(
        name=snapshot.name,
        process=snapshot.process,
        duration_s=max(snapshot.time_ns - begin_ns, 0) / 1e9,
        devices=devices,
        cells=cell_table(snapshot),
        marks=span_marks(snapshot, [cell for cell in snapshot.cells if not cell.parent], begin_ns),
        stays=stays[:top],
        hidden_stays=len(stays[top:]),
        hidden_bytes=sum(row.live_bytes for row in stays[top:] if row.layer == Layer.DEVICE),
        other_layers=_other_layers(snapshot),
        events=int(snapshot.counters.get("events", 0)),
        failures=int(snapshot.counters.get("failures", 0)),
        failed=tuple(sorted((row for row in rows if row.failed_count), key=lambda row: -row.failed_count)),
        gaps=snapshot.gaps,
        begin_ns=begin_ns,
        oddities=tuple((text, count) for name, text in _ODDITIES.items() if (count := snapshot.counters.get(name, 0))),
        warnings=(*snapshot.warnings, *notes),
    )


def recording_begin_ns(snapshot: Snapshot) -> int:
    """When the recording began: as its process says, else the first thing that is known to have happened."""
    if snapshot.process.started_ns:
        return snapshot.process.started_ns
    known = [cell.begin_ns for cell in snapshot.cells] + [gap.begin_ns for gap in snapshot.gaps]
    known += [int(time) for time in snapshot.series["begin_ns"][:1]]
    if len(snapshot.events) <= MAX_EVENTS:
        known += [int(time) for time in snapshot.events.between(0, snapshot.time_ns)["time_ns"][:1]]
    return min([*known, snapshot.time_ns])


def _device_totals(snapshot: Snapshot, begin_ns: int) -> tuple[tuple[DeviceTotal, ...], list[str]]:
    """Totals per device, and what to know about their pictures."""
    stretch = _whole_stretch(snapshot, begin_ns)
    made, notes = [], []
    for meter in snapshot.meters[snapshot.meters["layer"] == Layer.DEVICE]:
        line, note = _whole_timeline(snapshot, stretch, meter, begin_ns)
        made.append(_device_total(snapshot, meter, begin_ns, line))
        notes += [note] if note else []
    return tuple(made or map(_unused, snapshot.devices)), notes


def _device_total(snapshot: Snapshot, meter: np.void, begin_ns: int, line: Timeline | None) -> DeviceTotal:
    return DeviceTotal(
        device=device_of(snapshot, int(meter["device"])),
        live_bytes=int(meter["live_bytes"]),
        live_count=int(meter["live_count"]),
        peak_bytes=int(meter["peak_bytes"]),
        peak_s=max(int(meter["peak_ns"]) - begin_ns, 0) / 1e9,
        allocated_bytes=int(meter["allocated_bytes"]),
        timeline=line,
    )


def _unused(device: Device) -> DeviceTotal:
    return DeviceTotal(
        device=device, live_bytes=0, live_count=0, peak_bytes=0, peak_s=0.0, allocated_bytes=0, timeline=None
    )


def _whole_stretch(snapshot: Snapshot, begin_ns: int) -> Stretch | None:
    """All events of the recording; None when not all are kept, or when they are too many."""
    if snapshot.events.first_index > 0 or not 0 < len(snapshot.events) <= MAX_EVENTS:
        return None
    events = snapshot.events.between(0, snapshot.time_ns)
    return Stretch(begin_ns=begin_ns, end_ns=snapshot.time_ns, events=events, changes=changes(events))


def _whole_timeline(
    snapshot: Snapshot, stretch: Stretch | None, meter: np.void, begin_ns: int
) -> tuple[Timeline | None, str]:
    """One device's picture, from the events or else from the coarse series, and a sentence when it is not exact."""
    device = int(meter["device"])
    if stretch is None:
        buckets = snapshot.series[snapshot.series["device"] == device]
        if not len(buckets):
            return None, f"There is no picture of device {device}: its events are no longer kept. The totals are exact."
        return coarse_timeline(buckets, device, begin_ns, snapshot.time_ns), ""
    anchors = Anchors(
        begin_bytes=0,
        end_bytes=int(meter["live_bytes"]),
        peak_bytes=int(meter["peak_bytes"]),
        peak_ns=int(meter["peak_ns"]),
    )
    note = "" if is_exact(stretch, device, anchors) else f"The picture of device {device} is approximate."
    return timeline(stretch, device, anchors), note


def _other_layers(snapshot: Snapshot) -> tuple[tuple[str, int, int], ...]:
    found = []
    for layer in (Layer.MANAGED, Layer.HOST, Layer.IMPORTED):
        live = snapshot.live_bytes_by_device(layer)
        if live:
            found.append((LAYER_NAMES[layer], sum(live.values()), sum(snapshot.peak_bytes_by_device(layer).values())))
    return tuple(found)
