"""What a cell did to device memory, where its calls were not seen and only samples are known."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.cell_report import CellReport, DeviceChange, descendants, device_of, span_marks
from gpumem_magic.analysis.timelines import Timeline, thinned
from gpumem_magic.model.history import MEASURES, UNKNOWN, by_device, finest, measured
from gpumem_magic.model.units import format_duration, format_size

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Cell, Gap, Snapshot

__all__ = ["is_sampled", "sampled_report"]

_CAVEAT = (
    "From samples every {interval}: peaks between samples are not seen; who allocated is not known, "
    "nor what of it is held."
)
_ALL_PROCESSES = (
    "GPU {device}: this is the memory of all processes on it, because the driver does not tell this process's share."
)


_AT_THE_EDGE_NS = 50_000_000
"""A sample this near to the begin or the end of a cell counts as taken there. One is asked for at both."""


def is_sampled(snapshot: Snapshot, cell_id: int) -> bool:
    """Whether ``sampled_report`` is the right answer: the cell began where calls were not seen, but samples taken.

    Raises:
        KeyError: the snapshot has no such span.
    """
    cell = snapshot.cell(cell_id)
    return _blind(snapshot, cell) is not None and len(_samples(snapshot, cell)) > 0


def sampled_report(snapshot: Snapshot, cell_id: int) -> CellReport:
    """What span ``cell_id`` did, as far as samples tell: begin, end and highest sample of each device.

    It has no rows: nobody saw who allocated. ``held_bytes`` is 0 for the same reason, and its notes say so.

    Raises:
        KeyError: the snapshot has no such span.
        ValueError: no sample was taken while it ran.
    """
    cell = snapshot.cell(cell_id)
    samples = _samples(snapshot, cell)
    if not len(samples):
        raise ValueError(f"No sample was taken while {cell.label} ran.")
    end_ns = cell.end_ns or snapshot.time_ns
    inner = set(descendants(snapshot.cells, cell_id)) - {cell_id}
    return CellReport(
        cell=cell,
        process=dataclasses.replace(snapshot.process, degraded=_reason(snapshot, cell)),
        duration_s=(end_ns - cell.begin_ns) / 1e9,
        devices=tuple(
            _change(snapshot, cell, end_ns, samples[samples["device"] == device])
            for device in np.unique(samples["device"])
        ),
        allocators=(),
        hidden_allocators=0,
        hidden_bytes=0,
        stays=(),
        other_layers=(),
        marks=span_marks(snapshot, [each for each in snapshot.cells if each.id in inner], cell.begin_ns),
        failures=0,
        gaps=tuple(gap for gap in snapshot.gaps if _overlaps(gap, cell.begin_ns, end_ns)),
        notes=tuple(_notes(cell, samples, end_ns)),
    )


def _blind(snapshot: Snapshot, cell: Cell) -> Gap | None:
    """The gap in which the cell began."""
    return next((gap for gap in snapshot.gaps if _overlaps(gap, cell.begin_ns, cell.begin_ns)), None)


def _overlaps(gap: Gap, begin_ns: int, end_ns: int) -> bool:
    return gap.begin_ns <= end_ns and (not gap.end_ns or gap.end_ns >= begin_ns)


def _reason(snapshot: Snapshot, cell: Cell) -> str:
    gap = _blind(snapshot, cell)
    return snapshot.process.degraded or (gap.reason if gap is not None else "") or "calls were not seen"


def _samples(snapshot: Snapshot, cell: Cell) -> np.ndarray:
    """Samples of the cell's time of which something is known; the last ones before it where its first came late.

    Device by device, by time. What was merged is one sample, taken at its end.
    """
    if snapshot.history is None:
        return np.empty(0)
    until_ns = cell.end_ns or snapshot.time_ns
    parts = [_of_device(rows, cell.begin_ns, until_ns) for rows in by_device(snapshot.history).values()]
    return np.concatenate([snapshot.history[:0], *parts])


def _of_device(rows: np.ndarray, begin_ns: int, until_ns: int) -> np.ndarray:
    known = finest(rows)
    known = known[measured(known) != UNKNOWN]
    times = known["end_ns"]
    inside = (times >= begin_ns) & (times <= until_ns)
    before = np.flatnonzero(times < begin_ns)
    if inside.any() and len(before) and int(times[inside][0]) > begin_ns + _AT_THE_EDGE_NS:
        inside[before[-1]] = True
    found: np.ndarray = known[inside]
    return found


def _change(snapshot: Snapshot, cell: Cell, end_ns: int, samples: np.ndarray) -> DeviceChange:
    """One device's samples as a change. One measure throughout: two of them differ by more than what changed."""
    column = _measure(samples)
    known = samples[samples[column] != UNKNOWN]
    begin_bytes = int(known[column][0])
    times, live = _points(known, column, cell.begin_ns)
    return DeviceChange(
        device=device_of(snapshot, int(samples["device"][0])),
        begin_bytes=begin_bytes,
        end_bytes=int(known[column][-1]),
        peak_bytes=int(live.max()),
        held_bytes=0,
        timeline=_timeline(int(samples["device"][0]), times, live, cell.begin_ns, end_ns, before=begin_bytes),
    )


def _points(known: np.ndarray, column: str, begin_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and bytes to draw: each sample, and the highest of those that were merged, in the middle of their time.

    What was merged with samples from before the cell may have been highest then, so it counts with its end only.
    """
    ends = known["end_ns"].astype(np.int64)
    begins = known["begin_ns"].astype(np.int64)
    spiked = np.flatnonzero((known["level"] > 0) & (begins >= begin_ns))
    times = np.concatenate(((begins + (ends - begins) // 2)[spiked], ends))
    live = np.concatenate((known[MEASURES[column]][spiked], known[column])).astype(np.int64)
    order = np.argsort(times, kind="stable")
    return times[order], live[order]


def _measure(samples: np.ndarray) -> str:
    """The column that is known most often; the most telling of those that are known as often."""
    return max(MEASURES, key=lambda column: int((samples[column] != UNKNOWN).sum()))


def _timeline(
    device: int, times_ns: np.ndarray, live: np.ndarray, begin_ns: int, end_ns: int, *, before: int
) -> Timeline:
    """``before`` is what was there at the begin."""
    since_begin = np.maximum(times_ns.astype(np.int64) - begin_ns, 0)
    times = np.concatenate(([0], since_begin, [end_ns - begin_ns]))
    live = np.concatenate(([before], live, live[-1:]))
    kept = thinned(times, live)
    return Timeline(
        device=device,
        seconds=times[kept] / 1e9,
        live_bytes=live[kept],
        peak_index=int(np.argmax(live[kept])),
        decimated=True,
    )


def _notes(cell: Cell, samples: np.ndarray, end_ns: int) -> list[str]:
    notes = [_CAVEAT.format(interval=_interval(samples))]
    if cell.is_running:
        notes.append("Still running: the numbers are those of the moment at which they were taken.")
    for device in np.unique(samples["device"]):
        mine = samples[samples["device"] == device]
        if _measure(mine) != "process_bytes":
            notes.append(_ALL_PROCESSES.format(device=device))
        notes += _missed_edges(int(device), mine["end_ns"], cell.begin_ns, end_ns)
        last = mine[-1]
        if last["torch_allocated_bytes"] != UNKNOWN and last["torch_reserved_bytes"]:
            notes.append(
                f"GPU {device}: by PyTorch's own count {format_size(int(last['torch_allocated_bytes']))} were in "
                f"tensors at the end and {format_size(int(last['torch_reserved_bytes']))} in its pool.",
            )
    return notes


def _missed_edges(device: int, times_ns: np.ndarray, begin_ns: int, end_ns: int) -> list[str]:
    """Sentences on what no sample covers at the begin and the end of a cell."""
    late_ns, early_ns = int(times_ns[0]) - begin_ns, end_ns - int(times_ns[-1])
    found = []
    if late_ns > _AT_THE_EDGE_NS:
        found.append(
            f"GPU {device}: the first sample came {format_duration(late_ns / 1e9)} after the begin; "
            "what changed before it is not in the numbers.",
        )
    if early_ns > _AT_THE_EDGE_NS:
        found.append(
            f"GPU {device}: the last sample came {format_duration(early_ns / 1e9)} before the end; "
            "what changed after it is not in the numbers.",
        )
    return found


def _interval(samples: np.ndarray) -> str:
    """How far apart the samples of a device typically are, for people."""
    apart = [np.diff(samples["end_ns"][samples["device"] == device]) for device in np.unique(samples["device"])]
    steps = np.concatenate(apart)
    typical = float(np.median(steps)) if len(steps) else 1e8
    return f"{max(round(typical / 1e8), 1) * 100} ms"
