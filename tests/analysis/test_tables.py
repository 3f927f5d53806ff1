"""The table of cells and the report of a recording."""

from __future__ import annotations

from gpumem_magic.analysis.cell_table import cell_table
from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.model.events import Kind
from tests.analysis import scenes
from tests.analysis.build import MIB, SECOND, START_NS, Recording


def test_every_run_has_its_numbers() -> None:
    table = cell_table(scenes.series().snapshot())
    table.self_check()
    assert [(run.cell.label, run.depth, run.run) for run in table.runs] == [
        ("In [1]", 0, 1),
        ("In [2]", 0, 1),
        ("forward", 1, 1),
        ("In [3]", 0, 2),
        ("forward", 1, 2),
        ("In [4]", 0, 3),
        ("forward", 1, 3),
        ("In [5]", 0, 1),
    ]
    third = table.runs[5]
    assert (third.delta_bytes, third.peak_bytes, third.held_bytes) == (256 * MIB, (3 * 256 + 514) * MIB, 256 * MIB)
    assert (table.live_bytes, table.outside_bytes) == ((3 * 256 + 1 + 8) * MIB, 8 * MIB)


def test_runs_of_a_cell_are_a_series() -> None:
    series = cell_table(scenes.series().snapshot()).series
    assert [(each.label, len(each.runs), each.delta_bytes) for each in series] == [
        ("In [4]", 3, 768 * MIB),
        ("forward", 3, 0),
    ]


def test_cells_without_an_id_are_series_by_their_first_line() -> None:
    recording = Recording()
    for count in (1, 2):
        with recording.cell(count, "x = f()"):
            recording.alloc(1)
    with recording.cell(3, "y = g()"):
        pass
    assert [len(each.runs) for each in cell_table(recording.snapshot()).series] == [2]


def test_recording_totals() -> None:
    report = recording_report(scenes.series().snapshot())
    (total,) = report.devices
    assert (total.live_bytes, total.live_count, total.peak_bytes) == (777 * MIB, 5, (3 * 256 + 514) * MIB)
    assert report.duration_s == 5.327
    assert total.timeline is not None
    total.timeline.self_check()
    assert total.timeline.peak_s == total.peak_s
    assert total.timeline.live_bytes[-1] == total.live_bytes
    assert report.warnings == ()
    assert [mark.label for mark in report.marks] == [f"In [{n}]" for n in range(1, 6)]


def test_a_folded_recording_is_drawn_from_its_series() -> None:
    buckets = [
        (START_NS + second * SECOND, low * MIB, high * MIB, last * MIB, 0, b"")
        for second, low, high, last in [(0, 0, 256, 256), (2, 100, 1282, 768), (5, 768, 777, 777)]
    ]
    (total,) = recording_report(scenes.series().snapshot(folded=12, series=buckets)).devices
    line = total.timeline
    assert line is not None
    line.self_check()
    assert (line.seconds / 1.0).tolist() == [0, 0, 0, 0, 2, 2, 2, 5, 5, 5, 5.327]
    assert (line.live_bytes // MIB).tolist() == [0, 0, 256, 256, 100, 1282, 768, 768, 777, 777, 777]
    assert line.peak_bytes == total.peak_bytes


def test_a_folded_recording_without_a_series_says_so() -> None:
    report = recording_report(scenes.series().snapshot(folded=12))
    assert report.devices[0].timeline is None
    assert report.devices[0].peak_bytes == 1282 * MIB
    assert "no picture" in report.warnings[0]


def test_top_rows_and_oddities() -> None:
    recording = Recording()
    for line in range(5):
        recording.alloc(10 + line, ("/home/ada/a.py", "f", line + 1))
    recording.event(Kind.FREE, address=0xDEAD)
    recording.fail(1, ("/home/ada/a.py", "f", 9))
    report = recording_report(recording.snapshot(), top=2)
    assert [row.live_bytes for row in report.stays] == [14, 13]
    assert (report.hidden_stays, report.hidden_bytes) == (3, 33)
    assert report.oddities == (("frees of memory from before tracking began", 1),)
    assert [row.failed_count for row in report.failed] == [1]


def test_a_recording_without_its_beginning() -> None:
    recording = Recording(started_ns=0)
    recording.wait(2)
    recording.alloc(1)
    report = recording_report(recording.snapshot())
    assert report.begin_ns == START_NS + 2 * SECOND + 1_000_000
    assert recording_report(Recording(started_ns=0).snapshot()).duration_s == 0
