"""The panel of a terminal and the picture in blocks, as a reader sees them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpumem_magic.analysis.overview import overview
from gpumem_magic.model.snapshot import Mark
from gpumem_magic.views.overview_text import SIGNS, overview_text, panel, timeline_text
from gpumem_magic.views.text import levels, stacked_bar, text_width
from tests.analysis import scenes
from tests.analysis.build import GIB, SECOND, START_NS, Recording
from tests.analysis.histories import all_levels, samples, watched
from tests.views.planted import planted_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumem_magic.model.snapshot import Snapshot


def from_disk() -> Snapshot:
    recording, _ = scenes.out_of_memory()
    return recording.snapshot()


def without_gpu() -> Snapshot:
    return dataclasses.replace(Recording().snapshot(), devices=())


def idle() -> Snapshot:
    """A device on which nothing is held at all, and that is known."""
    rows = samples(0, 10, tracked_bytes=0, used_bytes=0, process_bytes=0)
    return dataclasses.replace(Recording().snapshot(), time_ns=START_NS + SECOND, history=all_levels(rows))


SCENES: dict[str, Callable[[], Snapshot]] = {
    "one": watched,
    "eight": lambda: watched(8),
    "simulated": lambda: watched(2, simulated=True, degraded="CUPTI is held by Nsight Systems"),
    "from_disk": from_disk,
    "nothing_yet": lambda: Recording().snapshot(),
    "no_gpu": without_gpu,
    "idle": idle,
}


@pytest.mark.parametrize("scene", SCENES)
def test_overview(golden: Callable[[str, str], None], scene: str) -> None:
    golden(f"overview_{scene}.txt", overview_text(overview(SCENES[scene]()), width=100))


@pytest.mark.parametrize("scene", ["one", "eight", "from_disk"])
def test_timeline(golden: Callable[[str, str], None], scene: str) -> None:
    golden(f"timeline_{scene}.txt", timeline_text(overview(SCENES[scene]()), width=100))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_lines_keep_to_the_width(scene: str, width: int) -> None:
    seen = overview(SCENES[scene]())
    for text in (overview_text(seen, width=width), timeline_text(seen, width=width)):
        longest = max(text.splitlines(), key=text_width)
        assert text_width(longest) <= width, longest


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("height", [12, 16, 20, 24, 40])
def test_the_panel_keeps_to_its_height(scene: str, height: int) -> None:
    lines = panel(overview(SCENES[scene]()), 100, height).splitlines()
    assert len(lines) <= height


def test_a_panel_that_is_too_low_says_how_many_devices_it_leaves_out() -> None:
    text = panel(overview(watched(8)), 100, 12)
    shown = [line for line in text.splitlines() if " of 141 GiB " in line]
    assert f"… and {8 - len(shown)} more GPUs" in text
    assert len(shown) >= 3


def test_numbers_of_the_panel_are_those_of_the_ledger() -> None:
    text = panel(overview(watched()), 100, 24)
    assert "95.5 GiB of 141 GiB used, 5 % busy" in text
    assert "other processes 6.00 GiB" in text
    assert "not explained 3.00 GiB" in text
    assert "! GPU 0: out of memory: 80.0 GiB asked for, at 60 s." in text


def test_a_window_is_said() -> None:
    assert "the last 20 s" in panel(overview(watched(), window_s=20), 100, 24)


def test_a_spike_of_one_event_is_seen_in_the_blocks() -> None:
    rows = samples(0, 1000, tracked_bytes=GIB)
    rows["tracked_max"][500] = 100 * GIB
    snapshot = dataclasses.replace(Recording().snapshot(), time_ns=START_NS + 100 * SECOND, history=all_levels(rows))
    text = timeline_text(overview(snapshot), width=80)
    assert text.count("│ highest between") == 1
    spikes = [line.index("│", 12) for line in text.splitlines() if "│" in line[12:]]
    assert len(spikes) >= 9, "all the way up"
    assert {abs(column - (12 + 68 // 2)) <= 1 for column in spikes} == {True}, "in the middle of the time"


def test_marks_have_a_sign() -> None:
    snapshot = dataclasses.replace(watched(), marks=(Mark(time_ns=START_NS + 50 * SECOND, name="before"),))
    assert "◆" in timeline_text(overview(snapshot), width=100)
    assert "◆" not in timeline_text(overview(watched()), width=100)


def test_text_cannot_redraw_a_terminal() -> None:
    recording, _ = planted_recording()
    recording.devices = (dataclasses.replace(recording.devices[0], name="evil\x1b[2Jcard"),)
    with recording.cell(3, "x\x1b[31m = 1", label="l\x1b", error="Err\x07or"):
        recording.gap(1, "why\x1b[0m")
    seen = overview(recording.snapshot(warnings=("\x1b[1mx",)))
    for text in (overview_text(seen), timeline_text(seen)):
        assert "\x1b" not in text
        assert "\x07" not in text


@pytest.mark.parametrize(
    ("parts", "whole", "expected"),
    [
        ([("a", 5), ("b", 5)], 10, "aaaabbbb"),
        ([("a", 0), ("b", 10)], 10, "bbbbbbbb"),
        ([("a", 1), ("b", 9_999)], 10_000, "abbbbbbb"),
        ([("a", 20)], 10, "aaaaaaaa"),
        ([("a", 1)], 0, ""),
        ([], 10, ""),
    ],
)
def test_stacked_bar(parts: list[tuple[str, float]], whole: float, expected: str) -> None:
    assert stacked_bar(parts, whole, 8) == expected


def test_stacked_bars_never_outgrow_their_room() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        sizes = random.integers(0, 10, 5) ** random.integers(1, 9)
        parts = list(zip("abcde", sizes.tolist(), strict=True))
        made = stacked_bar(parts, max(int(sizes.sum()), 1), 12)
        assert len(made) <= 12
        assert set(made) == {sign for sign, size in parts if size}


def test_levels() -> None:
    assert levels([0, 1, 50, 100, 101], 100) == " ▁▅██"


def test_signs_are_told_apart() -> None:
    assert len(set(SIGNS.values())) == len(SIGNS)
