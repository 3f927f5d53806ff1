"""A recording in which every name that a user could choose is markup that would be seen if it ran."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.cell_holders import CellHolders, HeldName, HeldRow
from gpumem_magic.analysis.growth import Growth
from gpumem_magic.model.holders import HeldBy, Holder, Holders, Name, NameTotal
from gpumem_magic.model.snapshot import Mark
from gpumem_magic.model.stacks import Frame
from gpumem_magic.model.tensor_history import NO_STACK, TENSOR_BLOCK_DTYPE, TensorHistory
from tests.analysis.build import GIB, SECOND, START_NS, Recording
from tests.analysis.histories import PERIOD_NS, all_levels, samples
from tests.views.cards import CARD, RELEASE

if TYPE_CHECKING:
    from gpumem_magic.model.out_of_memory import OutOfMemory
    from gpumem_magic.model.release import Release
    from gpumem_magic.model.snapshot import Snapshot

MARKUP = '<b-planted onclick="hit()"></b-planted><script>window.planted = 1</script>\'"&'


def planted_recording() -> tuple[Recording, int]:
    """The recording, and the id of its cell."""
    recording = Recording((MARKUP, "2GiB"), host=MARKUP, python=MARKUP, driver=MARKUP, degraded=MARKUP)
    with recording.cell(1, MARKUP, label=MARKUP, error=MARKUP, cell_id=MARKUP) as cell:
        recording.alloc(1 * GIB, (f"/home/{MARKUP}.py", MARKUP, 1), library=f"/lib/{MARKUP}.so")
        recording.gap(1, MARKUP)
        with recording.cell(None, label=MARKUP):
            recording.wait(5)
        recording.fail(1, (f"/home/{MARKUP}.py", MARKUP, 2))
    with recording.cell(2, MARKUP, label=MARKUP, cell_id=MARKUP):
        pass
    return recording, cell


def planted_history(snapshot: Snapshot) -> Snapshot:
    """``snapshot`` as if it had been sampled, with a mark whose name is markup."""
    count = (snapshot.time_ns - START_NS) // PERIOD_NS
    rows = samples(0, count, tracked_bytes=GIB, used_bytes=2 * GIB, process_bytes=GIB, utilization=50)
    marks = (Mark(time_ns=START_NS + SECOND, name=MARKUP),)
    return dataclasses.replace(snapshot, history=all_levels(rows), marks=marks)


def planted_holders() -> Holders:
    """Memory that is held in every way, by things whose names are markup."""
    name = Name(name=MARKUP, path=MARKUP, held_by=HeldBy.NOTEBOOK, exclusive_bytes=GIB)
    held = [
        Holder(
            address=(1 + number) << 40,
            bytes=GIB,
            device=0,
            frameworks=(MARKUP,),
            type_name=MARKUP,
            held_by=held_by,
            names=(name,) if held_by < HeldBy.GARBAGE else (),
            name_count=5 if held_by < HeldBy.GARBAGE else 0,
            path="" if held_by < HeldBy.GARBAGE else MARKUP,
        )
        for number, held_by in enumerate(HeldBy)
    ]
    totals = (NameTotal(name=MARKUP, held_by=HeldBy.NOTEBOOK, exclusive_bytes=GIB),)
    return Holders(holders=tuple(held), totals=totals, bytes=len(held) * GIB, objects=10)


def planted_left_behind() -> tuple[CellHolders, Growth]:
    """What a cell left behind, held in every way by things whose names are markup; and with every run."""
    names = (HeldName(name=MARKUP, path=MARKUP, bytes=GIB, count=1),) * 7
    rows = tuple(HeldRow(held_by=each, bytes=8 * GIB, names=names) for each in (*HeldBy, None))
    held = CellHolders(rows=rows, bytes=len(rows) * 8 * GIB, pools=(MARKUP,))
    added = (GIB,) * 3
    growth = Growth(
        label=MARKUP,
        first_run=1,
        added_bytes=added,
        cells=(1, 2, 3),
        is_searched=True,
        held_by=HeldBy.NOTEBOOK,
        holder=MARKUP,
    )
    return held, growth


def planted_tensors() -> TensorHistory:
    """Tensors that were made by code whose names are markup."""
    stack = (Frame(filename=f"/home/{MARKUP}.py", function=MARKUP, line=1),)
    return TensorHistory(
        stacks=(stack,),
        after=np.array([(0, 512, 500, 0, 0), (512, 512, 7, 3, NO_STACK)], TENSOR_BLOCK_DTYPE),
        notes=(MARKUP,),
    )


def planted_card() -> OutOfMemory:
    """A card of nothing but names and texts that are markup."""
    return dataclasses.replace(
        CARD,
        refusal=dataclasses.replace(CARD.refusal, exception=MARKUP, framework=MARKUP, text=MARKUP),
        cell=MARKUP,
        where=MARKUP,
        device_name=MARKUP,
        requested_bytes=1,
        keepers=tuple(dataclasses.replace(each, names=(MARKUP, MARKUP), path=MARKUP) for each in CARD.keepers),
        actions=tuple(dataclasses.replace(each, command=MARKUP, purpose=MARKUP) for each in CARD.actions),
        note=MARKUP,
    )


def planted_release() -> Release:
    """What was let go of, with names and remarks that are markup."""
    rows = tuple(dataclasses.replace(each, target=MARKUP, remarks=(MARKUP,)) for each in RELEASE.rows)
    return dataclasses.replace(RELEASE, rows=rows)
