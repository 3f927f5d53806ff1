"""Rows of PyTorch's blocks, from histories whose every entry is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gpumem_magic.analysis.tensor_sites import NOT_RECORDED, TensorSites, tensor_sites
from gpumem_magic.model.tensor_history import (
    NO_STACK,
    TENSOR_BLOCK_DTYPE,
    TENSOR_EVENT_DTYPE,
    BlockEvent,
    Made,
    TensorHistory,
)
from tests.analysis.build import IPYTHON, LINEAR, MIB, notebook
from tests.analysis.scenes import frames_of

MADE, FREED = BlockEvent.MADE, BlockEvent.FREED
USER = notebook(7, 3)
LABELS = {USER[0]: "In [7]"}
ATTENTION = ("/env/lib/python3.12/site-packages/transformers/llama.py", "attend", 90)


def history(
    *,
    stacks: Any,
    before: Any = (),
    after: Any = (),
    events: Any = (),
    made: dict[int, Made] | None = None,
) -> TensorHistory:
    return TensorHistory(
        stacks=tuple(frames_of(*stack) for stack in stacks),
        before=np.array(list(before), TENSOR_BLOCK_DTYPE),
        after=np.array(list(after), TENSOR_BLOCK_DTYPE),
        events=np.array(list(events), TENSOR_EVENT_DTYPE),
        made=made,
    )


def checked(told: TensorHistory) -> TensorSites:
    sites = tensor_sites(told, LABELS)
    sites.self_check()
    return sites


def test_frames_of_torch_lead_to_the_line_that_called_it() -> None:
    made = [(address, MIB, 0, stack, MADE) for stack, address in enumerate((0, 1 << 30, 2 << 30, 3 << 30))]
    sites = checked(
        history(
            stacks=[[LINEAR, USER, IPYTHON], [USER], [LINEAR, ATTENTION, LINEAR, USER], []],
            events=made,
            after=[(address, MIB, asked, device, stack) for address, asked, device, stack, _ in made],
            made={0: Made(count=4, bytes=4 * MIB)},
        )
    )
    assert [(row.where, row.count, row.live_bytes) for row in sites.rows] == [
        ("In [7]:3", 2, 2 * MIB),
        ("(no Python frame)", 1, MIB),
        ("In [7]:3 via transformers.llama.attend", 1, MIB),
    ]
    assert sites.rows[2].frames == ("transformers.llama.attend", "In [7]:3")


def test_a_stack_of_torch_alone_is_shown_as_it_is() -> None:
    sites = checked(
        history(stacks=[[LINEAR]], events=[(0, 5, 0, 0, MADE)], made={0: Made(count=1, bytes=5)}),
    )
    assert [row.where for row in sites.rows] == ["torch.nn.functional.linear"]


def test_counts_peaks_and_what_lives() -> None:
    sites = checked(
        history(
            stacks=[[USER]],
            before=[(0, 512, 500, 0, NO_STACK), (512, 512, 400, 0, NO_STACK)],
            events=[
                (0, 500, 0, NO_STACK, FREED),
                (0, 300, 0, 0, MADE),
                (1024, 900, 0, 0, MADE),
                (0, 300, 0, NO_STACK, FREED),
                (0, 100, 0, 0, MADE),
                (1024, 900, 0, NO_STACK, FREED),
            ],
            after=[(0, 512, 100, 0, 0), (512, 512, 400, 0, NO_STACK)],
            made={0: Made(count=3, bytes=1300)},
        )
    )
    (row,) = sites.rows
    assert (row.count, row.made_bytes, row.peak_bytes, row.largest_bytes) == (3, 1300, 1200, 900)
    assert (row.live_count, row.live_bytes, row.peak_is_bound) == (1, 100, False)
    assert (sites.end_bytes, sites.kept_bytes, sites.taken_bytes) == (500, 400, 512)


def test_what_the_ring_lost_is_a_row_of_its_own_on_each_device() -> None:
    sites = checked(
        history(
            stacks=[[USER]],
            after=[(0, 512, 500, 0, 0), (512, 512, 7, 0, NO_STACK), (1 << 40, 512, 9, 1, NO_STACK)],
            events=[(1024, 30, 0, 0, MADE), (1024, 30, 0, NO_STACK, FREED)],
            made={0: Made(count=10, bytes=5000), 1: Made(count=1, bytes=9), 2: Made(count=0, bytes=0)},
        )
    )
    (row,) = sites.rows
    assert (row.count, row.made_bytes, row.live_bytes, row.peak_bytes, row.peak_is_bound) == (2, 530, 500, 530, True)
    assert [(each.where, each.device, each.count, each.made_bytes, each.live_bytes) for each in sites.unrecorded] == [
        (NOT_RECORDED, 0, 8, 4470, 7),
        (NOT_RECORDED, 1, 1, 9, 9),
    ]


def test_without_counters_only_what_was_seen_is_told() -> None:
    for made in (None, {0: Made(count=0, bytes=0)}, {}):
        sites = checked(
            history(
                stacks=[[USER]],
                after=[(0, 512, 500, 0, 0), (512, 512, 7, 0, NO_STACK)],
                events=[(0, 500, 0, 0, MADE)],
                made=made,
            )
        )
        assert sites.made_bytes is None
        assert [each.made_bytes for each in sites.all_rows()] == [500, 7]
        assert sites.rows[0].peak_is_bound


def test_the_same_place_with_another_stack_is_another_block() -> None:
    stacks, before = [[USER], [ATTENTION]], [(0, 512, 500, 0, 0)]
    one, none = {0: Made(count=1, bytes=500)}, {0: Made(count=0, bytes=0)}
    sites = checked(history(stacks=stacks, before=before, after=[(0, 512, 500, 0, 1)], made=one))
    assert [row.where for row in sites.rows] == ["transformers.llama.attend"]
    sites = checked(history(stacks=stacks, before=before, after=before, made=none))
    assert (sites.rows, sites.kept_bytes) == ((), 500)


def test_a_missing_entry_that_freed_does_not_raise_the_peak() -> None:
    events = [(0, 500, 0, 0, MADE)] * 3
    sites = checked(history(stacks=[[USER]], events=events, made={0: Made(count=3, bytes=1500)}))
    assert (sites.rows[0].peak_bytes, sites.rows[0].live_bytes) == (500, 0)


def test_a_block_that_nobody_recorded_is_not_of_the_line_that_was_there_before() -> None:
    sites = checked(
        history(
            stacks=[[USER]],
            events=[(0, 500, 0, 0, MADE), (0, 500, 0, NO_STACK, FREED)],
            after=[(0, 512, 77, 0, NO_STACK)],
            made={0: Made(count=2, bytes=577)},
        )
    )
    assert [(row.where, row.live_bytes) for row in sites.all_rows()] == [("In [7]:3", 0), (NOT_RECORDED, 77)]


def test_nothing_at_all() -> None:
    assert checked(history(stacks=[], made={0: Made(count=0, bytes=0)})).all_rows() == ()
    assert tensor_sites(TensorHistory(problem="No."), {}).problem == "No."


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({"end_bytes": 499}, "live bytes"),
        ({"kept_bytes": 1}, "live bytes"),
        ({"made_bytes": 501}, "PyTorch counted"),
    ],
)
def test_the_check_sees_what_does_not_add_up(damage: dict[str, Any], complaint: str) -> None:
    sites = checked(
        history(
            stacks=[[USER]],
            after=[(0, 512, 500, 0, 0)],
            events=[(0, 500, 0, 0, MADE)],
            made={0: Made(count=1, bytes=500)},
        )
    )
    with pytest.raises(AssertionError, match=complaint):
        dataclasses.replace(sites, **damage).self_check()
    wrong = dataclasses.replace(sites.rows[0], peak_bytes=501)
    with pytest.raises(AssertionError, match="peak"):
        dataclasses.replace(sites, rows=(wrong,)).self_check()
