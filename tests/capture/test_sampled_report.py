"""A cell's report from samples: exact numbers of samples by hand, and sentences about what they do not tell."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpumem_magic.analysis.sampled_report import is_sampled, sampled_report
from gpumem_magic.model.history import FACTOR, HISTORY_DTYPE, UNKNOWN, merged
from gpumem_magic.model.snapshot import Gap
from tests.analysis.build import GIB, MIB, SECOND, START_NS, Recording

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot

BLIND = Gap(begin_ns=START_NS, end_ns=0, reason="CUPTI was not found")
TENTH = SECOND // 10


def recorded(*devices: tuple[str, str], seconds: float = 1.0) -> tuple[Snapshot, int]:
    """A recording that saw nothing of its one cell, and the cell's begin."""
    recording = Recording(*devices)
    recording.wait(1.0)
    with recording.cell(1, "train()"):
        recording.wait(seconds)
    recording.wait(1.0)
    snapshot = recording.snapshot()
    return dataclasses.replace(snapshot, gaps=(BLIND,)), snapshot.cells[0].begin_ns


def samples(begin_ns: int, *rows: tuple[float, int, dict[str, int]]) -> np.ndarray:
    """A history of (seconds since the begin, device, what is known), by device, each row of one sample."""
    table = np.zeros(len(rows), HISTORY_DTYPE)
    counts: dict[int, int] = {}
    for row, (seconds, device, known) in zip(table, rows, strict=True):
        for column in HISTORY_DTYPE.names or ():
            if column.endswith(("_bytes", "_min", "_max")):
                row[column] = known.get(column, UNKNOWN)
        row["used_max"], row["process_max"] = row["used_bytes"], row["process_bytes"]
        row["end_ns"], row["device"], row["samples"] = begin_ns + round(seconds * SECOND), device, 1
        row["begin_ns"] = row["end_ns"] - TENTH
        row["index"] = counts[device] = counts.get(device, -1) + 1
    return table[np.argsort(table["device"], kind="stable")]


def test_begin_end_and_peak_are_those_of_the_samples() -> None:
    snapshot, begin = recorded()
    levels = [(0.0, 10), (0.3, 50), (0.6, 20), (1.0, 15)]
    taken = samples(begin, *((at, 0, {"process_bytes": size * MIB}) for at, size in levels))
    snapshot = dataclasses.replace(snapshot, history=taken)
    cell = snapshot.cells[0].id
    assert is_sampled(snapshot, cell)
    report = sampled_report(snapshot, cell)
    (change,) = report.devices
    assert (change.begin_bytes, change.end_bytes, change.peak_bytes) == (10 * MIB, 15 * MIB, 50 * MIB)
    assert change.timeline is not None
    change.timeline.self_check()
    assert change.timeline.peak_s == pytest.approx(0.3)
    assert (report.delta_bytes, report.held_bytes, report.allocators, report.stays) == (5 * MIB, 0, (), ())
    assert report.process.degraded == "CUPTI was not found"
    assert len(report.notes) == 1
    assert report.notes[0].startswith("From samples every 300 ms: peaks between samples are not seen; who allocated is")


def test_one_measure_is_used_throughout() -> None:
    """The process's share and the whole device differ by more than what changed."""
    snapshot, begin = recorded()
    both = {"process_bytes": 10 * MIB, "used_bytes": 9 * GIB, "driver_used_bytes": 10 * GIB}
    device_only = {"used_bytes": 9 * GIB + 5 * MIB, "driver_used_bytes": 10 * GIB + 5 * MIB}
    taken = samples(begin, (0.0, 0, both), (0.5, 0, device_only), (1.0, 0, device_only))
    report = sampled_report(dataclasses.replace(snapshot, history=taken), 1)
    assert report.delta_bytes == 5 * MIB
    assert report.devices[0].begin_bytes == 9 * GIB
    assert any("all processes" in note for note in report.notes)


def test_devices_are_told_apart() -> None:
    snapshot, begin = recorded(("GPU A", "16GiB"), ("GPU B", "16GiB"))
    rows = [(at, device, {"process_bytes": (1 + device) * at * MIB}) for at in (0, 1) for device in (0, 1)]
    report = sampled_report(dataclasses.replace(snapshot, history=samples(begin, *rows)), 1)
    assert {change.device.name: change.delta_bytes for change in report.devices} == {"GPU A": MIB, "GPU B": 2 * MIB}


def test_a_late_first_sample_is_made_up_for_by_the_last_one_before() -> None:
    snapshot, begin = recorded()
    rows = [(-0.4, 10), (-0.1, 20), (0.2, 70), (1.0, 70), (1.2, 90)]
    taken = samples(begin, *((at, 0, {"process_bytes": size * MIB}) for at, size in rows))
    report = sampled_report(dataclasses.replace(snapshot, history=taken), 1)
    assert report.delta_bytes == 50 * MIB
    assert report.devices[0].timeline is not None
    report.devices[0].timeline.self_check()
    assert len(report.notes) == 1


def test_what_no_sample_covers_is_said() -> None:
    snapshot, begin = recorded()
    taken = samples(begin, (0.2, 0, {"process_bytes": 70 * MIB}), (0.7, 0, {"process_bytes": 70 * MIB}))
    report = sampled_report(dataclasses.replace(snapshot, history=taken), 1)
    assert report.delta_bytes == 0
    first, last = (note for note in report.notes if note.startswith("GPU 0"))
    assert "the first sample came 200 ms after the begin" in first
    assert "before the end" in last


def test_what_torch_counts_is_told_beside_it() -> None:
    snapshot, begin = recorded()
    known = {"process_bytes": 2 * GIB, "torch_allocated_bytes": GIB, "torch_reserved_bytes": 2 * GIB}
    taken = samples(begin, (0.0, 0, known), (1.0, 0, known))
    report = sampled_report(dataclasses.replace(snapshot, history=taken), 1)
    assert any("by PyTorch's own count 1.00 GiB were in tensors" in note for note in report.notes), report.notes


def merging(begin_ns: int, levels: list[int]) -> np.ndarray:
    """Samples of a tenth of a second from the begin on, of which all but the last four are left in merged rows only."""
    rows = samples(begin_ns, *((0.1 * i + 0.1, 0, {"process_bytes": size * MIB}) for i, size in enumerate(levels)))
    groups = [merged(rows[at : at + FACTOR]) for at in range(0, len(rows), FACTOR)]
    return np.concatenate((rows[-FACTOR:], *groups))


def test_the_peak_of_merged_samples_is_kept() -> None:
    snapshot, begin = recorded(seconds=2.0)
    levels = [10, 90, 10, 20, 30, 30, 30, 30]
    snapshot = dataclasses.replace(snapshot, history=merging(begin, levels))
    report = sampled_report(snapshot, 1)
    (change,) = report.devices
    assert (change.begin_bytes, change.end_bytes, change.peak_bytes) == (20 * MIB, 30 * MIB, 90 * MIB)
    assert change.timeline is not None
    change.timeline.self_check()
    assert change.timeline.peak_s == pytest.approx(0.2)


def test_what_was_merged_with_samples_from_before_the_cell_tells_no_peak() -> None:
    snapshot, begin = recorded(seconds=2.0)
    levels = [10, 90, 10, 20, 30, 30, 30, 30]
    snapshot = dataclasses.replace(snapshot, history=merging(begin - 2 * TENTH, levels))
    assert sampled_report(snapshot, 1).devices[0].peak_bytes == 30 * MIB


@pytest.mark.parametrize("table", [None, samples(START_NS), samples(START_NS + SECOND, (0.5, 0, {}))])
def test_without_samples_there_is_no_such_report(table: np.ndarray | None) -> None:
    snapshot, _ = recorded()
    snapshot = dataclasses.replace(snapshot, history=table)
    assert not is_sampled(snapshot, 1)
    with pytest.raises(ValueError, match="No sample was taken"):
        sampled_report(snapshot, 1)


def test_a_cell_whose_calls_were_seen_is_not_reported_from_samples() -> None:
    snapshot, begin = recorded()
    taken = samples(begin, (0.0, 0, {"process_bytes": MIB}), (1.0, 0, {"process_bytes": MIB}))
    seen_again = Gap(begin_ns=START_NS, end_ns=begin - TENTH, reason="CUPTI was not found")
    assert not is_sampled(dataclasses.replace(snapshot, history=taken, gaps=(seen_again,)), 1)


def test_an_unknown_cell() -> None:
    snapshot, _ = recorded()
    for ask in (is_sampled, sampled_report):
        with pytest.raises(KeyError):
            ask(snapshot, 99)
