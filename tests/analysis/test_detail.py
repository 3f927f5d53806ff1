"""Zooming in: the events of any stretch, between what samples counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis import detail
from gpumem_magic.analysis.detail import exact_bytes
from tests.analysis.build import MIB, SECOND, START_NS, Recording
from tests.analysis.histories import PERIOD_NS, all_levels, samples

if TYPE_CHECKING:
    import pytest

STEP = ("/home/ada/train.py", "step", 12)


def recorded(devices: int = 2) -> tuple[Recording, np.ndarray]:
    """Ten seconds: 1 MiB more each 30 ms on every device, and a spike of 1 ms at 5 s; sampled each 0.1 s."""
    recording = Recording(*[("GPU", "16GiB")] * devices)
    history: list[list[int]] = []
    due = START_NS + PERIOD_NS
    while recording.now < START_NS + 10 * SECOND:
        if recording.now >= due:
            live = {int(row["device"]): int(row["live_bytes"]) for row in recording.ledger.meters}
            history.append([live.get(device, 0) for device in range(devices)])
            due += PERIOD_NS
        for device in range(devices):
            recording.alloc(MIB, STEP, device=device)
        if abs(recording.now - START_NS - 5 * SECOND) < SECOND // 50:
            recording.free(recording.alloc(777 * MIB, STEP))
        recording.wait(0.03)
    counted = np.array(history)
    rows = [all_levels(samples(device, len(history), tracked_bytes=counted[:, device])) for device in range(devices)]
    return recording, np.concatenate(rows)


def test_every_event_of_the_stretch_is_there() -> None:
    recording, rows = recorded()
    begin, end = START_NS + 4 * SECOND, START_NS + 6 * SECOND
    found = exact_bytes(recording.snapshot().events, rows[rows["device"] == 0], begin, end)
    assert found is not None
    times, live = found
    assert times[0] <= begin
    assert times[-1] >= end - SECOND // 10
    assert (np.diff(times) >= 0).all()
    births = [event["time_ns"] for event in recording.events if event["size"] == MIB and not event["device"]]
    inside = [time for time in births if times[0] < time <= times[-1]]
    assert set(inside) <= set(times.tolist())
    steps = np.diff(live)
    assert sorted(set(steps.tolist())) == [-777 * MIB, MIB, 777 * MIB]


def test_the_other_device_is_by_itself() -> None:
    recording, rows = recorded()
    found = exact_bytes(
        recording.snapshot().events, rows[rows["device"] == 1], START_NS + 4 * SECOND, START_NS + 6 * SECOND
    )
    assert found is not None
    assert set(np.diff(found[1]).tolist()) == {MIB}


def test_a_recording_begins_with_nothing() -> None:
    recording, rows = recorded()
    found = exact_bytes(recording.snapshot().events, rows[rows["device"] == 0], START_NS - SECOND, START_NS + SECOND)
    assert found is not None
    assert (found[0][0], found[1][:3].tolist()) == (START_NS, [0, MIB, 2 * MIB])


def test_with_few_points_the_spike_stays() -> None:
    recording, rows = recorded()
    found = exact_bytes(
        recording.snapshot().events, rows[rows["device"] == 0], START_NS + SECOND, START_NS + 9 * SECOND, points=40
    )
    assert found is not None
    assert len(found[0]) <= 40
    assert found[1].max() > 777 * MIB


def test_what_cannot_be_told_exactly_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, rows = recorded()
    rows, begin, end = rows[rows["device"] == 0], START_NS + 4 * SECOND, START_NS + 6 * SECOND
    log = recording.snapshot().events
    assert exact_bytes(log, rows[rows["index"] > 0], START_NS - SECOND, end) is None  # before the first sample
    assert exact_bytes(log, rows, begin, START_NS + 60 * SECOND) is None  # after the last
    wrong = rows.copy()
    wrong["tracked_bytes"] += np.arange(len(rows)) * 4096
    assert exact_bytes(log, wrong, begin, end) is None
    folded = recording.snapshot(folded=len(recording.events) // 2).events
    assert exact_bytes(folded, rows, START_NS + SECOND, START_NS + 2 * SECOND) is None
    monkeypatch.setattr(detail, "MAX_EVENTS", 5)
    assert exact_bytes(log, rows, begin, end) is None
