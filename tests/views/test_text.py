"""Text as a reader sees it, in golden files, and the building blocks by themselves."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpumem_magic.analysis.byte_ledger import byte_ledger
from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.analysis.cell_table import cell_table
from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.analysis.tensor_sites import TensorSites, tensor_sites
from gpumem_magic.analysis.timelines import Timeline
from gpumem_magic.model.holders import Holders
from gpumem_magic.model.release import Release
from gpumem_magic.views.byte_ledger import byte_ledger_text
from gpumem_magic.views.cell_report import cell_report_text
from gpumem_magic.views.cell_table import cell_table_text
from gpumem_magic.views.holders import holders_text
from gpumem_magic.views.out_of_memory import out_of_memory_text
from gpumem_magic.views.recording_report import recording_report_text
from gpumem_magic.views.release import release_text
from gpumem_magic.views.status import status_text
from gpumem_magic.views.tensor_sites import render_tensors
from gpumem_magic.views.text import Column, bar, shortened, sparkline, table, text_width, without_middle
from tests.analysis import scenes
from tests.analysis.build import Recording
from tests.views.cards import CARD, RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable


SCENES = {
    "training": scenes.training,
    "two_devices": scenes.two_devices,
    "out_of_memory": scenes.out_of_memory,
    "simulated": lambda: scenes.training(simulated=True, degraded="CUPTI is held by Nsight Systems"),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("width", [80, 120])
def test_cell_report(golden: Callable[[str, str], None], scene: str, width: int) -> None:
    recording, cell = SCENES[scene]()
    golden(f"cell_{scene}_{width}.txt", cell_report_text(cell_report(recording.snapshot(), cell), width=width))


@pytest.mark.parametrize("width", [80, 120])
def test_byte_ledger(golden: Callable[[str, str], None], width: int) -> None:
    golden(f"ledger_{width}.txt", byte_ledger_text(byte_ledger(scenes.every_owner()), width=width))


def test_byte_ledger_of_a_device_that_nobody_measured(golden: Callable[[str, str], None]) -> None:
    recording, _ = scenes.training(simulated=True, degraded="CUPTI is held by Nsight Systems")
    golden("ledger_unmeasured.txt", byte_ledger_text(byte_ledger(recording.snapshot()), width=100))


@pytest.mark.parametrize("width", [80, 120])
def test_holders(golden: Callable[[str, str], None], width: int) -> None:
    golden(f"holders_{width}.txt", holders_text(scenes.held(), title="The 10 largest pieces", width=width))


@pytest.mark.parametrize("width", [80, 120])
def test_a_card_of_a_cell_that_ran_out_of_memory(golden: Callable[[str, str], None], width: int) -> None:
    golden(f"out_of_memory_{width}.txt", out_of_memory_text(CARD, width=width))


@pytest.mark.parametrize("width", [80, 120])
def test_what_was_let_go_of(golden: Callable[[str, str], None], width: int) -> None:
    golden(f"release_{width}.txt", release_text(RELEASE, width=width))
    rows = tuple(dataclasses.replace(row, freed_bytes=None, returned_bytes=None) for row in RELEASE.rows)
    golden(f"release_dry_{width}.txt", release_text(Release(rows=rows, cached_bytes=0, is_dry_run=True), width=width))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("lost", [0, 3000])
def test_tensors(golden: Callable[[str, str], None], width: int, lost: int) -> None:
    sites = tensor_sites(scenes.tensors(lost=lost), {})
    sites.self_check()
    text = render_tensors(sites, cell="In [7]", width=width)["text/plain"]
    golden(f"tensors_{'lost_' if lost else ''}{width}.txt", text)
    assert max(map(text_width, text.splitlines())) <= width


def test_tensors_are_a_section_of_the_report_of_a_cell_that_needed_no_more_memory() -> None:
    recording = Recording()
    with recording.cell(4, "x = model(y)") as cell:
        recording.wait(0.5)
    report = cell_report(recording.snapshot(), cell)
    assert "Tensors" not in cell_report_text(report)
    told = dataclasses.replace(report, tensors=tensor_sites(scenes.tensors(), {}))
    assert "model.py:31 __init__" in cell_report_text(told)
    empty = dataclasses.replace(report, tensors=TensorSites(made_bytes=0))
    assert "handed out no block" in cell_report_text(empty)
    without = dataclasses.replace(report, tensors=TensorSites(problem="There is no PyTorch."))
    assert "Tensors\n  There is no PyTorch." in cell_report_text(without)


def test_nothing_is_held() -> None:
    assert "No device memory that a Python object knows." in holders_text(Holders(), title="Who holds 0x10")


@pytest.mark.parametrize("width", [80, 120])
def test_cell_report_with_holders(golden: Callable[[str, str], None], width: int) -> None:
    text = cell_report_text(scenes.left_behind(), width=width)
    golden(f"cell_left_behind_{width}.txt", text)
    assert max(map(text_width, text.splitlines())) <= width


def test_cells_that_grow(golden: Callable[[str, str], None]) -> None:
    cells = dataclasses.replace(cell_table(scenes.series().snapshot()), growth=scenes.growing())
    golden("cells_that_grow.txt", cell_table_text(cells, width=100))


def test_cell_report_of_a_quiet_cell(golden: Callable[[str, str], None]) -> None:
    recording = Recording()
    with recording.cell(4, "x = 1") as cell:
        recording.wait(0.5)
    golden("cell_quiet.txt", cell_report_text(cell_report(recording.snapshot(), cell), width=80))


def test_cell_report_without_events_and_below_the_minimum(golden: Callable[[str, str], None]) -> None:
    recording, cell = scenes.training()
    report = cell_report(recording.snapshot(folded=20), cell, minimum_bytes=64 << 20)
    golden("cell_folded.txt", cell_report_text(report, width=100))


def test_cells(golden: Callable[[str, str], None]) -> None:
    golden("cells.txt", cell_table_text(cell_table(scenes.series().snapshot()), width=100))
    assert "No cell has run" in cell_table_text(cell_table(Recording().snapshot()))


def test_recording(golden: Callable[[str, str], None]) -> None:
    recording = scenes.series()
    recording.gap(0.5, "Kineto took over CUPTI")
    snapshot = recording.snapshot(warnings=("The last segment was cut short: 3 events are missing.",))
    golden("recording.txt", recording_report_text(recording_report(snapshot), width=100))


def test_status(golden: Callable[[str, str], None]) -> None:
    rows = [
        ("Tracking", "on, every call", "ok"),
        ("Device", "NVIDIA H200", ""),
        ("Gaps", "1, because torch.profiler took over CUPTI while it ran, and gave it back", "warning"),
        ("Stacks", "off", "error"),
    ]
    golden("status.txt", status_text(rows, title="gpumem 0.1.0", next_="%gpumem cells", width=60))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("width", [80, 100, 120])
def test_lines_keep_to_the_width(scene: str, width: int) -> None:
    recording, cell = SCENES[scene]()
    report = cell_report(recording.snapshot(), cell)
    assert max(map(text_width, cell_report_text(report, width=width).splitlines())) <= width


def test_text_cannot_redraw_a_terminal() -> None:
    recording = Recording(("evil\x1b[2Jcard", None))
    with recording.cell(1, "x\x1b[31m = 1", error="Err\x07or") as cell:
        recording.alloc(1, ("/home/ada/\x1b[0mfile.py", "f\n", 1))
    text = cell_report_text(cell_report(recording.snapshot(), cell))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_table_aligns_wide_characters_and_cuts_what_gives() -> None:
    columns = [Column(title="Name", gives=True, least=4), Column(title="Size", right=True)]
    lines = table(columns, [["日本語", "1 B"], ["a very long name", "22 B"]], width=14).splitlines()
    assert lines == ["Name      Size", "────────  ────", "日本語     1 B", "a very…   22 B"]


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 10, ""), (10, 10, "████"), (5, 10, "██"), (1, 10**9, "▏"), (1, 0, ""), (20, 10, "████")],
)
def test_bar(part: float, whole: float, expected: str) -> None:
    assert bar(part, whole, 4) == expected


def test_shortening() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert without_middle("In [7]:3 via torch.nn.functional.linear", 21) == "In [7]:3 v…nal.linear"


def test_sparkline_shows_a_spike_of_no_width() -> None:
    line = Timeline(
        device=0,
        seconds=np.array([0.0, 4.0, 4.0, 10.0]),
        live_bytes=np.array([1, 8, 0, 0]),
        peak_index=1,
        decimated=False,
    )
    assert sparkline(line, 10) == "▂▂▂▂█     "


def test_degraded_report_claims_nothing_that_it_did_not_see() -> None:
    recording = Recording(degraded="another tool holds CUPTI")
    with recording.cell(1) as cell:
        recording.wait(1)
    text = cell_report_text(cell_report(recording.snapshot(), cell), width=100)
    assert "unknown   calls were not seen" in text
    assert "No change was seen in the samples" in text
    assert "No CUDA allocation" not in text
