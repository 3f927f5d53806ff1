"""Rows of all levels become one picture: nothing is left out between the levels, no extreme is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.analysis.bands import Bands, bands
from gpumem_magic.analysis.device_history import (
    decimated,
    device_meter,
    recorded_bands,
    up_to_now,
    within,
)
from gpumem_magic.model.history import finest
from tests.analysis.build import GIB, MIB, SECOND, START_NS, Recording
from tests.analysis.histories import PERIOD_NS, all_levels, samples


def spiky(seed: int, count: int) -> np.ndarray:
    """Rows whose extremes are much wider than what holds at their ends."""
    random = np.random.default_rng(seed)
    tracked = random.integers(1000, 2000, count)
    rows = samples(0, count, tracked_bytes=tracked, used_bytes=tracked + 500, process_bytes=tracked + 300)
    rows["tracked_max"] += random.integers(0, 1 << 40, count)
    rows["tracked_min"] -= random.integers(0, 1000, count)
    return rows


@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(4, 40))
def test_levels_join_without_a_seam(seed: int, count: int, keep: int) -> None:
    rows = spiky(seed, count)
    joined = finest(all_levels(rows, keep=keep))
    assert (joined["begin_ns"][1:] == joined["end_ns"][:-1]).all(), "there is a hole, or two rows overlap"
    assert (joined["begin_ns"] < joined["end_ns"]).all()
    assert (joined["begin_ns"][0], joined["end_ns"][-1]) == (rows["begin_ns"][0], rows["end_ns"][-1])
    assert joined["tracked_max"].max() == rows["tracked_max"].max()
    assert joined["tracked_min"].min() == rows["tracked_min"].min()


@given(st.integers(0, 2**32), st.integers(1, 3000), st.sampled_from([60, 120, 480]))
def test_a_decimated_picture_keeps_every_extreme(seed: int, count: int, points: int) -> None:
    whole = bands(spiky(seed, count))
    thin = decimated(whole, points)
    thin.self_check()
    assert len(thin.live) <= points
    assert thin.high.max() == whole.high.max()
    assert thin.live.max() == whole.live.max()
    assert thin.live[-1] == whole.live[-1]
    assert (thin.begin_ns[1:] == thin.end_ns[:-1]).all()
    assert (thin.begin_ns[0], thin.end_ns[-1]) == (whole.begin_ns[0], whole.end_ns[-1])


def test_a_spike_stays_as_narrow_as_it_was() -> None:
    rows = samples(0, 6000, tracked_bytes=GIB)
    rows["tracked_max"][3000] = 50 * GIB
    thin = decimated(bands(rows), 60)
    at = int(np.argmax(thin.high))
    assert thin.end_ns[at] - thin.begin_ns[at] == PERIOD_NS


def test_utilization_is_averaged_over_what_went() -> None:
    rows = samples(0, 1000, tracked_bytes=1, utilization=np.tile([0.0, 100.0, np.nan, 50.0], 250))
    thin = decimated(bands(rows), 60)
    known = ~np.isnan(thin.utilization)
    weights = (thin.end_ns - thin.begin_ns)[known].astype(float)
    assert np.isclose(np.average(thin.utilization[known], weights=weights), 50, atol=1)
    unknown = decimated(bands(samples(0, 1000, tracked_bytes=1)), 60)
    assert np.isnan(unknown.utilization).all()


def test_the_picture_ends_with_what_the_ledger_counts_now() -> None:
    recording = Recording()
    recording.alloc(3 * MIB)
    recording.free(recording.alloc(7 * MIB))
    recording.alloc(1 * MIB)
    snapshot = recording.snapshot()
    rows = samples(0, 1, begin_ns=START_NS - PERIOD_NS, tracked_bytes=0, used_bytes=9)
    now = bands(up_to_now(rows, device_meter(snapshot, 0), snapshot.time_ns))
    now.self_check()
    assert (now.live.tolist(), now.end_ns[-1]) == ([0, 4 * MIB], snapshot.time_ns)
    assert now.high[-1] == 10 * MIB, "the peak since the last row is in the row that is added"
    blind = samples(0, 1, begin_ns=START_NS - PERIOD_NS, used_bytes=9)
    assert len(up_to_now(blind, device_meter(snapshot, 0), snapshot.time_ns)) == 1


def test_without_a_history_the_events_are_drawn_exactly() -> None:
    recording = Recording()
    first = recording.alloc(5 * MIB)
    recording.alloc(2 * MIB)
    recording.free(first)
    found = recorded_bands(recording.snapshot(), 0, START_NS)
    assert found is not None
    found.self_check()
    assert found.live.tolist() == [0, 5 * MIB, 7 * MIB, 2 * MIB, 2 * MIB]
    assert not found.knows_total


def test_without_events_the_buckets_are_drawn_with_their_extremes() -> None:
    recording = Recording()
    recording.alloc(2 * MIB)
    buckets = [(START_NS, 0, 9 * MIB, MIB, 0, b""), (START_NS + SECOND, MIB, 3 * MIB, 2 * MIB, 0, b"")]
    found = recorded_bands(recording.snapshot(folded=1, series=buckets), 0, START_NS)
    assert found is not None
    found.self_check()
    assert (found.live.tolist(), found.high.tolist()) == ([MIB, 2 * MIB], [9 * MIB, 3 * MIB])
    assert recorded_bands(recording.snapshot(folded=1), 0, START_NS) is None


@pytest.mark.parametrize(
    ("begin", "end", "expected"), [(0, 10, 10), (2, 4, 2), (2.5, 2.6, 1), (9, 20, 1), (10, 20, 0), (-5, 0, 0)]
)
def test_within_cuts_off_at_both_ends(begin: float, end: float, expected: int) -> None:
    whole = bands(samples(0, 10, tracked_bytes=np.arange(10)))
    begin_ns, end_ns = START_NS + round(begin * PERIOD_NS), START_NS + round(end * PERIOD_NS)
    found: Bands | None = within(whole, begin_ns, end_ns)
    assert (0 if found is None else len(found.live)) == expected
    if found is not None:
        assert begin_ns <= found.begin_ns[0]
        assert found.end_ns[-1] <= end_ns
