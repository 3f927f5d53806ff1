"""What went wrong or was marked, found anew in each snapshot of a growing recording."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gpumem_magic.analysis import incidents
from gpumem_magic.analysis.incidents import IncidentLog
from gpumem_magic.model.events import NO_DEVICE, Kind
from gpumem_magic.model.snapshot import Mark
from tests.analysis.build import GIB, MIB, START_NS, Recording

if TYPE_CHECKING:
    import pytest

STEP = ("/home/ada/train.py", "step", 12)


def test_a_refused_call_says_what_was_asked_for_and_where() -> None:
    recording = Recording()
    with recording.cell(3, "train()"):
        recording.alloc(MIB, STEP)
        recording.fail(80 * GIB, STEP)
    (found,) = IncidentLog().incidents(recording.snapshot(), {})
    assert (found.kind, found.text) == ("refusal", "cuMemAlloc of 80.0 GiB on GPU 0: out of memory")
    assert (found.where, found.cell, found.device) == ("train.py:12 step", "In [3]", 0)
    assert found.begin_ns == recording.events[-2]["time_ns"]


def test_another_error_gives_its_number() -> None:
    recording = Recording()
    recording.fail(MIB, STEP, status=201)
    (found,) = IncidentLog().incidents(recording.snapshot(), {})
    assert found.text == "cuMemAlloc of 1.00 MiB on GPU 0: CUDA error 201"


def test_each_call_is_told_once_however_often_one_looks() -> None:
    recording, log = Recording(), IncidentLog()
    for count in range(1, 4):
        recording.fail(count * GIB, STEP)
        found = log.incidents(recording.snapshot(), {})
        assert [each.text.split()[2] for each in found] == [f"{size}.00" for size in range(1, count + 1)]
    assert log.incidents(recording.snapshot(), {}) == found


def test_gaps_and_marks_stand_among_them_by_time() -> None:
    recording = Recording()
    recording.fail(GIB, STEP)
    recording.gap(2, "CUPTI was lent to torch.profiler")
    snapshot = dataclasses.replace(recording.snapshot(), marks=(Mark(time_ns=START_NS, name="epoch 1"),))
    found = IncidentLog().incidents(snapshot, {})
    assert [each.kind for each in found] == ["mark", "refusal", "gap"]
    assert found[0].text == "epoch 1"
    assert found[2].text == "Calls were not seen: CUPTI was lent to torch.profiler."
    assert found[2].end_ns - found[2].begin_ns == 2_001_000_000
    assert {each.device for each in found if each.kind != "refusal"} == {NO_DEVICE}


def test_of_very_many_marks_the_latest_are_kept_with_their_numbers() -> None:
    marks = tuple(Mark(time_ns=START_NS + number, name=f"step {number}") for number in range(5000))
    found = IncidentLog().incidents(dataclasses.replace(Recording().snapshot(), marks=marks), {})
    assert [each.text for each in found] == [f"step {number}" for number in range(5000 - incidents.MOST, 5000)]
    assert found[-1].number == 4999


def test_among_too_many_events_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, log = Recording(), IncidentLog()
    monkeypatch.setattr(incidents, "MAX_EVENTS", 3)
    for _ in range(4):
        recording.alloc(MIB, STEP)
    recording.fail(GIB, STEP)
    recording.fail(GIB, STEP)
    (found,) = log.incidents(recording.snapshot(), {})
    assert found.text == "2 calls were refused among too many events to find them."


def test_a_refused_free_and_marks_of_the_recorder_are_no_allocation() -> None:
    recording = Recording()
    recording.event(Kind.FREE, address=64, status=1)
    recording.event(Kind.SYNCHRONIZE, status=700)
    found = IncidentLog().incidents(recording.snapshot(), {})
    assert [each.text for each in found] == ["free on GPU 0: CUDA error 1"]
