"""A cell with more events than a picture needs: exact numbers, a coarse curve, no pass over the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpumem_magic.analysis import cell_report as module
from gpumem_magic.analysis import timelines
from gpumem_magic.analysis.cell_report import cell_report
from tests.analysis.build import Recording

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot

MIB = 1 << 20


def busy_cell() -> tuple[Snapshot, int]:
    """A cell of 200 allocations with a spike in the middle, and the buckets that a recorder would have kept."""
    recording = Recording()
    with recording.cell(1) as cell:
        series = []
        for index in range(200):
            address = recording.alloc(150 * MIB if index == 100 else MIB)
            live = int(recording.ledger.meters[0]["live_bytes"])
            series.append((recording.now, live - MIB, live, live, 0, b""))
            if index == 100:
                recording.free(address)
    return recording.snapshot(series=series), cell


@pytest.mark.parametrize("limit", [100, 1_000_000])
def test_numbers_do_not_depend_on_how_the_curve_is_drawn(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(timelines, "MAX_EVENTS", limit)
    monkeypatch.setattr(module, "MAX_EVENTS", limit)
    snapshot, cell = busy_cell()
    report = cell_report(snapshot, cell)
    assert (report.delta_bytes, report.peak_bytes) == (199 * MIB, 250 * MIB)
    line = report.devices[0].timeline
    assert line is not None
    line.self_check()
    assert (int(line.live_bytes[0]), int(line.live_bytes[-1]), line.peak_bytes) == (0, 199 * MIB, 250 * MIB)
    assert any("coarse" in note for note in report.notes) is (limit == 100)
