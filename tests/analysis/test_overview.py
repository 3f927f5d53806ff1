"""What the GPUs' memory looks like, from live snapshots and from recordings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpumem_magic.analysis.overview import CellMark, overview
from gpumem_magic.model.events import EventFlag, Kind
from gpumem_magic.model.history import UNKNOWN, merged_host
from tests.analysis import scenes
from tests.analysis.build import GIB, MIB, SECOND, START_NS, Recording
from tests.analysis.histories import all_levels, host_samples, samples, watched


def test_numbers_of_now_add_up_to_what_the_device_reports() -> None:
    seen = overview(watched(2))
    for each in seen.devices:
        assert each.bands is not None
        each.bands.self_check()
        assert each.tracked_bytes == each.live_bytes + (each.cached_bytes or 0)
        assert each.used_bytes == each.bands.total[-1]
        assert each.free_bytes == 141 * GIB - each.used_bytes - 615 * MIB
    first = seen.devices[0]
    assert first.tracked_bytes == 24 * GIB + 62 * GIB + 3 * MIB
    assert first.used_bytes == first.tracked_bytes + 560 * MIB + 3 * GIB + 6 * GIB
    assert first.utilization == 5


def test_the_picture_keeps_a_spike_of_one_event_however_small_it_is() -> None:
    whole = overview(watched(8))
    assert all(len(each.bands.live) <= 600 for each in whole.devices if each.bands is not None)
    first = whole.devices[0]
    assert first.bands is not None
    assert first.bands.high.max() == first.peak_bytes == 24 * GIB + 2 * GIB + 42 * GIB + 40 * GIB
    assert first.highest_bytes == first.peak_bytes + 560 * MIB + 3 * GIB + 6 * GIB


def test_a_window_shows_its_time_only() -> None:
    snapshot = watched()
    seen = overview(snapshot, window_s=20)
    assert seen.duration_s == 20
    each = seen.devices[0]
    assert each.bands is not None
    assert (each.bands.begin_ns[0], each.bands.end_ns[-1]) == (snapshot.time_ns - 20 * SECOND, snapshot.time_ns)
    assert [mark.label for mark in seen.cell_marks] == ["In [9]"]
    assert each.failures == ()
    assert seen.failures == 1
    assert seen.host is not None
    assert seen.host.begin_ns[0] == seen.begin_ns
    assert overview(snapshot, window_s=1e12).begin_ns == START_NS, "no window reaches back before the begin"


@pytest.mark.parametrize("window_s", [0, -1, float("nan")])
def test_a_window_is_longer_than_nothing(window_s: float) -> None:
    with pytest.raises(ValueError, match="window"):
        overview(watched(), window_s=window_s)


def test_devices_are_chosen_by_their_number() -> None:
    seen = overview(watched(4), devices=[2])
    assert [each.device.ordinal for each in seen.devices] == [2]
    assert {row.device for row in seen.sites} == {2}
    with pytest.raises(ValueError, match="no device 7; it has 0, 1, 2, 3"):
        overview(watched(4), devices=[0, 7])
    with pytest.raises(ValueError, match="it has none"):
        overview(dataclasses.replace(Recording().snapshot(), devices=()), devices=[0])


def test_sites_are_the_largest_live_ones_and_the_rest_is_counted() -> None:
    snapshot = watched(8)
    seen = overview(snapshot, top=3)
    assert [row.where for row in seen.sites] == ["train.py:12 step"] * 3
    assert seen.hidden_sites == 8 + 8 + 2 - 3
    assert sum(row.live_bytes for row in seen.sites) + seen.hidden_bytes == snapshot.live_bytes


def test_refused_calls_have_a_place_and_a_size() -> None:
    (mark,) = overview(watched()).devices[0].failures
    assert (mark.size, mark.count, mark.out_of_memory, mark.injected) == (80 * GIB, 1, True, False)


def test_failures_close_together_are_one_mark_and_injected_ones_are_told_apart() -> None:
    recording = Recording()
    recording.alloc(MIB)
    for size in (3, 9, 5):
        recording.event(Kind.ALLOC, size=size * MIB, status=2, flags=EventFlag.INJECTED)
    recording.wait(10)
    recording.event(Kind.FREE, address=1, status=1)
    recording.wait(10)
    first, second = overview(recording.snapshot()).devices[0].failures
    assert (first.count, first.size, first.out_of_memory, first.injected) == (3, 9 * MIB, True, True)
    assert (second.count, second.size, second.out_of_memory, second.injected) == (1, 0, False, False)


def test_too_many_events_to_look_through_leave_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumem_magic.analysis.overview.MAX_EVENTS", 10)
    seen = overview(watched())
    assert seen.devices[0].failures == ()
    assert (seen.failures, seen.failures_placed) == (1, False)


def test_thousands_of_short_cells_and_gaps_are_gathered() -> None:
    recording = Recording()
    for count in range(1, 2001):
        with recording.cell(count):
            recording.wait(0.01)
        if not count % 10:
            recording.gap(0.01, "a profiler")
    with recording.cell(2001, "long"):
        recording.wait(30)
    seen = overview(recording.snapshot())
    assert len(seen.cell_marks) <= 80
    assert sum(mark.count for mark in seen.cell_marks) == 2001
    assert seen.cell_marks[0].label.startswith("In [1] … In [")
    assert seen.cell_marks[-1].label == "In [2001]"
    assert len(seen.gaps) <= 80
    assert sum(mark.count for mark in seen.gaps) == 200
    assert {mark.reason for mark in seen.gaps} == {"a profiler"}


def test_cells_that_can_be_told_apart_stay_apart() -> None:
    seen = overview(watched())
    assert CellMark(label="In [3] … In [7]", number="3\u20137", first_line="", count=5, begin_ns=0, end_ns=0) in [
        dataclasses.replace(mark, begin_ns=0, end_ns=0) for mark in seen.cell_marks
    ]
    assert [mark.count for mark in seen.cell_marks] == [1, 1, 5, 1, 1]


def test_recordings_from_disk_have_no_history_and_are_drawn_from_their_events() -> None:
    recording, _ = scenes.two_devices()
    seen = overview(recording.snapshot())
    each = seen.devices[0]
    assert each.bands is not None
    assert each.bands.high.max() == each.peak_bytes == 120 * GIB
    assert (each.used_bytes, each.free_bytes, each.cached_bytes, each.utilization) == (None, None, None, None)
    assert seen.host is None


def test_no_gpu_and_nothing_allocated_yet() -> None:
    nothing = overview(dataclasses.replace(Recording().snapshot(), devices=()))
    assert (nothing.devices, nothing.sites, nothing.cells.runs) == ((), (), ())
    quiet = overview(Recording().snapshot()).devices[0]
    assert (quiet.bands, quiet.tracked_bytes, quiet.used_bytes) == (None, 0, None)


def test_unknown_is_not_zero() -> None:
    snapshot = Recording(("a card", None)).snapshot()
    snapshot = dataclasses.replace(
        snapshot,
        time_ns=START_NS + SECOND,
        history=samples(0, 10, tracked_bytes=MIB),
        host_history=host_samples(10, UNKNOWN),
    )
    each = overview(snapshot).devices[0]
    assert (each.used_bytes, each.free_bytes, each.cached_bytes, each.utilization) == (None, None, None, None)
    assert overview(snapshot).host is None


def test_pausing_shows_until_calls_are_seen_again() -> None:
    recording = Recording()
    recording.gap(1, "paused by the user")
    snapshot = recording.snapshot()
    assert overview(snapshot).paused == ""
    open_gap = dataclasses.replace(snapshot.gaps[0], end_ns=0)
    assert overview(dataclasses.replace(snapshot, gaps=(open_gap,))).paused == "paused by the user"


def test_the_host_keeps_its_highest_moment() -> None:
    rows = host_samples(5000, np.full(5000, GIB), np.full(5000, MIB))
    rows["rss_max"][77] = 9 * GIB
    snapshot = dataclasses.replace(
        Recording().snapshot(), time_ns=START_NS + 500 * SECOND, host_history=all_levels(rows, merge=merged_host)
    )
    host = overview(snapshot).host
    assert host is not None
    assert len(host.resident) <= 600
    assert (host.now_bytes, host.anonymous_bytes, host.highest.max()) == (GIB, MIB, 9 * GIB)
    assert (host.begin_ns[1:] == host.end_ns[:-1]).all()
