"""What one cell run, or one ``track()`` block, did to device memory."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.allocators import Allocator, allocators
from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.timelines import (
    MAX_EVENTS,
    Anchors,
    Stretch,
    Timeline,
    bucket_timeline,
    is_exact,
    span_anchors,
    span_stretch,
    timeline,
)
from gpumem_magic.model.events import KIND_LABELS, NO_DEVICE, Layer, layer_of
from gpumem_magic.model.snapshot import Device
from gpumem_magic.model.units import format_count, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpumem_magic.analysis.byte_ledger import ByteLedger
    from gpumem_magic.analysis.cell_holders import CellHolders
    from gpumem_magic.analysis.growth import Growth
    from gpumem_magic.analysis.tensor_sites import TensorSites
    from gpumem_magic.model.snapshot import Cell, Gap, Process, Snapshot

__all__ = ["Allocator", "CellReport", "DeviceChange", "SpanMark", "Timeline", "cell_report"]

LAYER_NAMES = {
    Layer.DEVICE: "device",
    Layer.MANAGED: "managed",
    Layer.HOST: "pinned host",
    Layer.IMPORTED: "imported",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """One device's bytes over the cell."""

    device: Device
    begin_bytes: int
    end_bytes: int
    peak_bytes: int  # highest live bytes within the cell, at event granularity
    held_bytes: int  # born inside and still live
    timeline: Timeline | None  # None when the events of the cell are no longer kept

    @property
    def delta_bytes(self) -> int:
        return self.end_bytes - self.begin_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SpanMark:
    """A stretch of the picture that has a name: a ``track()`` block inside a cell, a cell inside a recording."""

    label: str
    begin_s: float  # since the picture's begin
    end_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """The answer to "what did this cell do?". All sizes in bytes; device layer only unless a field says so."""

    cell: Cell
    process: Process
    duration_s: float
    devices: tuple[DeviceChange, ...]  # those that the cell touched; all known ones when it touched none
    allocators: tuple[Allocator, ...]  # of all layers: the device layer first, then by allocated bytes
    hidden_allocators: int  # rows below the --min threshold, left out above
    hidden_bytes: int  # what those of the device layer allocated
    stays: tuple[Allocator, ...]  # rows of all layers with live_bytes > 0, largest first
    other_layers: tuple[tuple[str, int, int], ...]  # (name, delta, highest bytes above the begin), where changed
    marks: tuple[SpanMark, ...]  # blocks nested in the cell
    failures: int  # driver calls that failed
    gaps: tuple[Gap, ...]  # gaps that overlap the cell: its numbers miss what happened in them
    notes: tuple[str, ...]  # sentences a reader must know before trusting a number
    holders: CellHolders | None = None  # None when it was not looked for, or nothing stays
    growth: Growth | None = None  # of a cell that leaves more behind with every run
    ledger: ByteLedger | None = None  # of the devices above, right after the cell; None where it was not taken
    tensors: TensorSites | None = None  # inside the memory above; None when nobody asked for them

    @property
    def delta_bytes(self) -> int:
        return sum(device.delta_bytes for device in self.devices)

    @property
    def peak_bytes(self) -> int:
        """Sum of the devices' peaks: equal to the true joint peak when one device was used."""
        return sum(device.peak_bytes for device in self.devices)

    @property
    def held_bytes(self) -> int:
        return sum(device.held_bytes for device in self.devices)

    @property
    def touched_memory(self) -> bool:
        """Whether the cell made or ended any allocation that was seen, or tried to."""
        moved = any(each.peak_bytes != each.begin_bytes or each.delta_bytes for each in self.devices)
        return bool(moved or self.allocators or self.hidden_allocators or self.other_layers or self.failures)


def cell_report(
    snapshot: Snapshot,
    cell_id: int,
    *,
    minimum_bytes: int = 0,
    depth: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> CellReport:
    """What span ``cell_id`` and everything nested in it did.

    Args:
        snapshot: the recording.
        cell_id: a cell run or ``track()`` block.
        minimum_bytes: leave out rows that allocated less; failed calls always stay.
        depth: tell allocators apart by this many innermost frames only; by whole stacks when None.
        labels: cell labels by the file name of their source, in addition to those that the recording tells.

    Raises:
        KeyError: the snapshot has no such span.
    """
    cell = snapshot.cell(cell_id)
    family = descendants(snapshot.cells, cell_id)
    sites = snapshot.sites[np.isin(snapshot.sites["cell"], family)]
    anchors = {device: span_anchors(cell, device) for device in _touched(cell, sites)}
    stretch = span_stretch(snapshot, cell, anchors)
    labels = notebook_labels(snapshot, until=cell) | dict(labels or {})
    rows = allocators(snapshot, sites, labels, depth=depth, stretch=stretch)
    shown, hidden = above(rows, minimum_bytes)
    held = held_bytes(snapshot.allocations, family)
    return CellReport(
        cell=cell,
        process=snapshot.process,
        duration_s=((cell.end_ns or snapshot.time_ns) - cell.begin_ns) / 1e9,
        devices=_device_changes(snapshot, cell, anchors, held, stretch),
        allocators=shown,
        hidden_allocators=len(hidden),
        hidden_bytes=sum(row.allocated_bytes for row in hidden if row.layer == Layer.DEVICE),
        stays=still_live(rows),
        other_layers=_other_layers(stretch),
        marks=span_marks(snapshot, _children(snapshot.cells, family[1:]), cell.begin_ns),
        failures=int(sites["failed_count"].sum()),
        gaps=_overlapping(snapshot, cell),
        notes=tuple(_notes(snapshot, cell, anchors, stretch, rows)),
    )


def above(rows: Iterable[Allocator], minimum_bytes: int) -> tuple[tuple[Allocator, ...], tuple[Allocator, ...]]:
    """``rows`` that allocated at least ``minimum_bytes``, or failed, and the rest."""
    shown, hidden = list[Allocator](), list[Allocator]()
    for row in rows:
        (shown if row.allocated_bytes >= minimum_bytes or row.failed_count else hidden).append(row)
    return tuple(shown), tuple(hidden)


def descendants(cells: Iterable[Cell], cell_id: int) -> list[int]:
    """``cell_id`` and the ids of all spans nested in it, itself first."""
    children = collections.defaultdict(list)
    for cell in cells:
        children[cell.parent].append(cell.id)
    found, seen = [cell_id], {cell_id}
    for parent in found:  # grows while it is walked
        fresh = [child for child in children[parent] if child not in seen]
        seen.update(fresh)
        found.extend(fresh)
    return found


def held_bytes(allocations: np.ndarray, family: Sequence[int]) -> dict[int, int]:
    """Live device-layer bytes born in one of the spans ``family``, per device."""
    mine = allocations[np.isin(allocations["cell"], family) & is_device_layer(allocations)]
    return {int(device): int(mine["size"][mine["device"] == device].sum()) for device in np.unique(mine["device"])}


def is_device_layer(table: np.ndarray) -> np.ndarray:
    """Per row of a table with ``kind`` and ``device``, whether it counts as device memory."""
    kinds = [kind for kind in KIND_LABELS if layer_of(kind, 0) is Layer.DEVICE]
    found: np.ndarray = np.isin(table["kind"], kinds) & (table["device"] != NO_DEVICE)
    return found


def still_live(rows: Iterable[Allocator]) -> tuple[Allocator, ...]:
    """Rows with live bytes: the device layer first, then the largest."""
    live = [row for row in rows if row.live_bytes > 0]
    return tuple(sorted(live, key=lambda row: (row.layer, -row.live_bytes, row.where, row.library)))


def device_of(snapshot: Snapshot, ordinal: int) -> Device:
    """The device with this ordinal; one that nobody described is named after it."""
    for device in snapshot.devices:
        if device.ordinal == ordinal:
            return device
    return Device(ordinal=ordinal, name=f"device {ordinal}", total_bytes=None)


def span_marks(snapshot: Snapshot, cells: Iterable[Cell], begin_ns: int) -> tuple[SpanMark, ...]:
    """Marks of ``cells`` in a picture that begins at ``begin_ns``."""
    return tuple(
        SpanMark(
            label=cell.label,
            begin_s=(cell.begin_ns - begin_ns) / 1e9,
            end_s=((cell.end_ns or snapshot.time_ns) - begin_ns) / 1e9,
        )
        for cell in cells
    )


def _children(cells: Iterable[Cell], ids: Iterable[int]) -> list[Cell]:
    wanted = set(ids)
    return [cell for cell in cells if cell.id in wanted]


def _touched(cell: Cell, sites: np.ndarray) -> list[int]:
    """Ordinals of the devices on which the cell changed anything."""
    moved = {
        device
        for device, peak in cell.peak_bytes.items()
        if peak != cell.begin_bytes.get(device, 0) or peak != cell.end_bytes.get(device, 0)
    }
    mine = sites[is_device_layer(sites)]
    return sorted(moved | {int(device) for device in np.unique(mine["device"])})


def _device_changes(
    snapshot: Snapshot,
    cell: Cell,
    anchors: Mapping[int, Anchors],
    held: Mapping[int, int],
    stretch: Stretch | None,
) -> tuple[DeviceChange, ...]:
    untouched = {device.ordinal: span_anchors(cell, device.ordinal) for device in snapshot.devices}
    return tuple(
        DeviceChange(
            device=device_of(snapshot, ordinal),
            begin_bytes=expected.begin_bytes,
            end_bytes=expected.end_bytes,
            peak_bytes=expected.peak_bytes,
            held_bytes=held.get(ordinal, 0),
            timeline=bucket_timeline(snapshot, cell, ordinal, expected)
            if stretch is None
            else timeline(stretch, ordinal, expected),
        )
        for ordinal, expected in sorted((anchors or untouched).items())
    )


def _other_layers(stretch: Stretch | None) -> tuple[tuple[str, int, int], ...]:
    """Layers other than the device's that changed: name, bytes at the end over those at the begin, highest so."""
    if stretch is None:
        return ()
    changed = []
    for layer in (Layer.MANAGED, Layer.HOST, Layer.IMPORTED):
        total = np.cumsum(stretch.changes["delta"][stretch.changes["layer"] == layer])
        if len(total):
            changed.append((LAYER_NAMES[layer], int(total[-1]), max(int(total.max()), 0)))
    return tuple(changed)


def _overlapping(snapshot: Snapshot, cell: Cell) -> tuple[Gap, ...]:
    end = cell.end_ns or snapshot.time_ns
    return tuple(gap for gap in snapshot.gaps if gap.begin_ns <= end and (gap.end_ns or end) >= cell.begin_ns)


# Notes


def _notes(
    snapshot: Snapshot,
    cell: Cell,
    anchors: Mapping[int, Anchors],
    stretch: Stretch | None,
    rows: Sequence[Allocator],
) -> list[str]:
    notes = []
    if cell.is_running:
        notes.append("Still running: the numbers are those of the moment at which they were taken.")
    if anchors and not cell.peak_bytes:
        notes.append("Too many blocks were open at once, so begin, end and peak of this one were not metered.")
    if stretch is None:
        notes.append(_no_events(snapshot, cell))
    else:
        notes += [text for device, expected in anchors.items() if (text := _doubt(stretch, device, expected))]
    if any(row.peak_is_bound for row in rows):
        notes.append("A peak marked with ≤ is an upper bound: several stacks share the row and peaked at other times.")
    if cell.end_ns and any(other.begin_ns >= cell.end_ns for other in snapshot.cells):
        notes.append("Other cells ran since: what is still live, and held, is as of now, not of the end of this cell.")
    return notes


def _no_events(snapshot: Snapshot, cell: Cell) -> str:
    """Why the events of a cell were not read."""
    count = snapshot.events.count_between(cell.begin_ns, cell.end_ns or snapshot.time_ns)
    if count > MAX_EVENTS:
        return f"With {format_count(count)} events the picture is a coarse one. The numbers are exact."
    return "The events of this cell are no longer kept, so its picture is coarse or missing. The totals are exact."


def _doubt(stretch: Stretch, device: int, expected: Anchors) -> str:
    """What is wrong with the timeline of a device; "" when its events add up."""
    if is_exact(stretch, device, expected):
        return ""
    mine = stretch.changes[(stretch.changes["layer"] == Layer.DEVICE) & (stretch.changes["device"] == device)]
    reached = expected.begin_bytes + int(mine["delta"].sum())
    return (
        f"The picture of device {device} is approximate: its events add up to {format_size(reached)} at the end, "
        f"the ledger counted {format_size(expected.end_bytes)}. Begin, end and peak are the ledger's."
    )
