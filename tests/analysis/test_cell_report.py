"""The numbers of a cell, from recordings whose every byte is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.model.events import EventFlag, Kind, Layer
from tests.analysis import scenes
from tests.analysis.build import GIB, IPYTHON, LINEAR, MIB, Recording, notebook


def test_numbers_of_a_training_cell() -> None:
    recording, cell = scenes.training()
    report = cell_report(recording.snapshot(), cell)
    # 12 x 40 + 32 + 4 stay; the last step has 6 x 190 on top of 96 (before) + 480 + 32.
    assert report.delta_bytes == 516 * MIB
    assert report.peak_bytes == (96 + 480 + 32 + 6 * 190) * MIB
    assert report.held_bytes == 516 * MIB
    assert report.notes == ()
    assert report.failures == 0


def test_rows_say_who_allocated() -> None:
    recording, cell = scenes.training()
    rows = cell_report(recording.snapshot(), cell).allocators
    assert [(row.where, row.library, row.kind, row.count) for row in rows] == [
        ("train.py:12 step", "torch (libc10_cuda)", "cuMemAlloc", 48),
        ("model.py:31 Net.__init__", "torch (libc10_cuda)", "cuMemAlloc", 12),
        ("In [7]:3 via torch.nn.functional.linear", "cuBLAS", "cuMemAlloc", 1),
        ("(no Python frame)", "NCCL", "cuMemAlloc", 1),
        ("loader.py:88 Loader.pin", "torch (libc10_cuda)", "pinned host", 1),
    ]
    step = rows[0]
    assert step.allocated_bytes == sum(6 * (120 + 10 * n) for n in range(8)) * MIB
    assert (step.live_bytes, step.live_count, step.peak_bytes) == (0, 0, 6 * 190 * MIB)
    assert [row.background for row in rows] == [False, False, False, True, False]
    assert step.frames == ("train.py:12 step", "In [7]:3")


def test_what_stays_covers_all_layers_and_never_mixes_them() -> None:
    recording, cell = scenes.training()
    report = cell_report(recording.snapshot(), cell)
    device_layer = [row for row in report.stays if row.layer == Layer.DEVICE]
    assert sum(row.live_bytes for row in device_layer) == report.held_bytes
    assert [row.kind for row in report.stays if row.layer == Layer.HOST] == ["pinned host"]
    assert report.other_layers == (("pinned host", 64 * MIB, 64 * MIB),)


def test_nested_blocks_count_to_the_cell() -> None:
    recording = Recording()
    with recording.cell(1) as outer:
        with recording.cell(None, label="inner") as inner:
            recording.alloc(3 * GIB, notebook(1, 2))
        recording.alloc(1 * GIB, notebook(1, 3))
    snapshot = recording.snapshot()
    assert cell_report(snapshot, outer).held_bytes == 4 * GIB
    assert cell_report(snapshot, inner).held_bytes == 3 * GIB
    assert [mark.label for mark in cell_report(snapshot, outer).marks] == ["inner"]


def test_timeline_is_the_exact_step_function() -> None:
    recording = Recording()
    before = recording.alloc(10)
    with recording.cell(1) as cell:
        first = recording.alloc(100)  # each event takes a millisecond
        recording.free(before)
        recording.alloc(5)
        recording.free(first)
    (change,) = cell_report(recording.snapshot(), cell).devices
    line = change.timeline
    assert line is not None
    line.self_check()
    assert line.seconds.tolist() == [0, 0.001, 0.002, 0.003, 0.004, 0.005]
    assert line.live_bytes.tolist() == [10, 110, 100, 105, 5, 5]
    assert (line.peak_bytes, line.peak_s, line.decimated) == (110, 0.001, False)


def test_memory_from_before_on_another_layer_is_told_by_earlier_events() -> None:
    recording = Recording()
    managed = recording.alloc(1 * GIB, kind=Kind.ALLOC_MANAGED)
    with recording.cell(1) as cell:
        recording.alloc(1 * MIB)
        recording.free(managed)  # its event alone does not say that this was managed memory
    report = cell_report(recording.snapshot(), cell)
    assert report.notes == ()
    assert report.devices[0].timeline is not None
    assert report.devices[0].timeline.live_bytes.tolist() == [0, MIB, MIB]
    assert report.other_layers == (("managed", -GIB, 0),)


def test_an_address_handed_out_again_ends_what_was_there() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        address = recording.alloc(100)
        recording.alloc(30, address=address, flags=EventFlag.REUSED)
        recording.free(address, flags=EventFlag.DEFERRED_FREE)
    report = cell_report(recording.snapshot(), cell)
    assert report.notes == ()
    assert (report.delta_bytes, report.peak_bytes, report.held_bytes) == (30, 100, 30)


def test_events_that_do_not_add_up_are_told_and_anchored() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        recording.alloc(100)
        recording.alloc(50)
    snapshot = recording.snapshot()
    log = snapshot.events
    lost = snapshot.events.between(0, snapshot.time_ns).copy()
    lost["size"][2] = 7  # the second allocation, damaged
    report = cell_report(dataclasses.replace(snapshot, events=type(log)(lost)), cell)
    line = report.devices[0].timeline
    assert line is not None
    assert (line.live_bytes[0], line.live_bytes[-1], line.live_bytes.max()) == (0, 150, 150)
    (note,) = report.notes
    assert note.startswith("The picture of device 0 is approximate: its events add up to 107 B at the end")


def test_folded_events_leave_the_totals_exact() -> None:
    recording, cell = scenes.training()
    snapshot = recording.snapshot(folded=20)
    report = cell_report(snapshot, cell)
    assert report.devices[0].timeline is None
    assert report.delta_bytes == 516 * MIB
    assert "no longer kept" in report.notes[0]


def test_minimum_hides_rows_but_not_failures_nor_what_stays() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        recording.alloc(100 * MIB, notebook(1, 1))
        recording.alloc(5, notebook(1, 2))
        recording.alloc(6, notebook(1, 3), kind=Kind.ALLOC_HOST)
        recording.fail(1 * GIB, notebook(1, 4))
    report = cell_report(recording.snapshot(), cell, minimum_bytes=MIB)
    assert [row.where for row in report.allocators] == ["In [1]:1", "In [1]:4"]
    assert (report.hidden_allocators, report.hidden_bytes) == (2, 5)
    assert len(report.stays) == 3
    assert report.failures == 1


def test_a_failed_call_of_any_kind_has_a_row() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        recording.fail(0, notebook(1, 1), kind=Kind.FREE, status=201)
    (row,) = cell_report(recording.snapshot(), cell).allocators
    assert (row.kind, row.failed_count, row.count) == ("free", 1, 0)


def test_stacks_that_differ_in_hidden_frames_share_a_row_with_their_joint_peak() -> None:
    recording = Recording()
    other = (IPYTHON[0], "InteractiveShell.run_ast_nodes", 3500)
    with recording.cell(1) as cell:
        first = recording.alloc(100, notebook(1, 1), IPYTHON)
        recording.free(first)
        recording.alloc(70, notebook(1, 1), other)
    (row,) = cell_report(recording.snapshot(), cell).allocators
    assert (row.count, row.allocated_bytes, row.peak_bytes, row.peak_is_bound) == (2, 170, 100, False)
    (folded,) = cell_report(recording.snapshot(folded=3), cell).allocators
    assert (folded.peak_bytes, folded.peak_is_bound) == (170, True)


def test_depth_merges_callers() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        for line in (1, 2):
            recording.alloc(10, ("/home/ada/a.py", "make", 5), notebook(1, line))
    snapshot = recording.snapshot()
    assert [row.where for row in cell_report(snapshot, cell).allocators] == [
        "a.py:5 make ← In [1]:1",
        "a.py:5 make ← In [1]:2",
    ]
    assert [row.count for row in cell_report(snapshot, cell, depth=1).allocators] == [2]


def test_devices_are_those_that_the_cell_touched() -> None:
    recording = Recording(("A", None), ("B", "8GiB"))
    recording.alloc(5, device=0)
    with recording.cell(1) as busy:
        recording.alloc(7, device=1)
    with recording.cell(2) as idle:
        pass
    snapshot = recording.snapshot()
    assert [each.device.name for each in cell_report(snapshot, busy).devices] == ["B"]
    quiet = cell_report(snapshot, idle)
    assert [(each.device.name, each.begin_bytes, each.end_bytes) for each in quiet.devices] == [
        ("A", 5, 5),
        ("B", 7, 7),
    ]
    assert not quiet.touched_memory


def test_a_running_cell_is_reported_as_of_now() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        recording.alloc(9)
        report = cell_report(recording.snapshot(), cell)
    assert report.delta_bytes == 9
    assert report.notes[0].startswith("Still running")


def test_gaps_that_overlap_are_listed() -> None:
    recording, cell = scenes.out_of_memory()
    report = cell_report(recording.snapshot(), cell)
    assert [gap.reason for gap in report.gaps] == ["torch.profiler took over CUPTI"]
    recording.gap(1, "later")
    assert len(cell_report(recording.snapshot(), cell).gaps) == 1


def test_context_destruction_and_virtual_memory_stay_exact() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        recording.alloc(100, notebook(1, 1), context=1)
        recording.event(Kind.CREATE_PHYSICAL, address=0xA, size=2 * MIB)
        recording.event(Kind.MAP, address=0x1000, size=2 * MIB, handle=0xA)
        recording.event(Kind.RELEASE_PHYSICAL, address=0xA)
        recording.event(Kind.CONTEXT_DESTROY, context=1)
        recording.event(Kind.UNMAP, address=0x1000, size=2 * MIB)
    report = cell_report(recording.snapshot(), cell)
    assert report.notes == ()
    line = report.devices[0].timeline
    assert line is not None
    assert line.live_bytes.tolist() == [0, 100, 2 * MIB + 100, 2 * MIB, 0, 0]


def test_unknown_cell() -> None:
    with pytest.raises(KeyError):
        cell_report(Recording().snapshot(), 99)


def test_ten_thousand_spikes_keep_their_peak() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        address = recording.alloc(1 * MIB, LINEAR, notebook(1, 1))
        recording.free(address)
    snapshot = recording.snapshot()
    template = snapshot.events.between(0, snapshot.time_ns)
    steps = np.repeat(template[1:3][None], 10_000, axis=0).reshape(-1)
    steps["time_ns"] = template["time_ns"][0] + 1000 * np.arange(1, len(steps) + 1)
    steps["size"][10_010], steps["handle"][10_011] = 9 * MIB, 9 * MIB  # in the middle of a bucket
    end = int(steps["time_ns"][-1]) + 1000
    begin, last = template[:1], template[3:].copy()
    last["time_ns"] = end
    span = dataclasses.replace(snapshot.cell(cell), end_ns=end, peak_bytes={0: 9 * MIB}, peak_ns={0: 0})
    changed = dataclasses.replace(
        snapshot, cells=(span,), events=type(snapshot.events)(np.concatenate((begin, steps, last))), time_ns=end
    )
    line = cell_report(changed, cell).devices[0].timeline
    assert line is not None
    line.self_check()
    assert line.decimated
    assert len(line.seconds) <= 2000
    assert line.peak_bytes == 9 * MIB
