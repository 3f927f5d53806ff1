"""Cells that leave more behind every time they run."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpumem_magic.analysis.born import born_memory
from gpumem_magic.analysis.cell_holders import cell_holders
from gpumem_magic.model.holders import HeldBy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.born import Born
    from gpumem_magic.analysis.cell_table import CellRun, CellSeries, CellTable
    from gpumem_magic.model.cell_blocks import CellBlocks
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.model.snapshot import Snapshot

LEAST_RUNS = 3
_WARM_UP = 2
"""A first run that added more than this many times what any later one did only made things ready."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The latest runs of a cell, each of which left more behind than it found, and what they left is still there."""

    label: str  # of the latest run
    first_run: int  # 1 for the first run of the cell
    added_bytes: tuple[int, ...]  # by each run, blocks of pools counted instead of what pools took from the driver
    cells: tuple[int, ...]  # the runs' spans
    is_searched: bool = False  # whether the two below are known
    held_by: HeldBy | None = None  # how most runs' memory is held; None: nobody holds it that Python knows
    holder: str = ""  # the name that holds it; "" when it has none

    @property
    def last_run(self) -> int:
        return self.first_run + len(self.added_bytes) - 1


def growing_cells(table: CellTable, snapshot: Snapshot, blocks: CellBlocks) -> tuple[Growth, ...]:
    """Cells of which each of the latest runs, three at least, added memory that is still there.

    A first run that merely made things ready is left out, and so is every run across which calls were not seen.

    Args:
        table: the runs.
        snapshot: what the table was made of, with its allocations and what frameworks say of their pools.
        blocks: which cell the frameworks' blocks are from.
    """
    rows = [_latest_that_added(series, snapshot, blocks) for series in table.series]
    long_enough = [row for row in rows if len(row) >= LEAST_RUNS]
    if not long_enough:
        return ()
    born = born_memory(snapshot, [each.run.cell.id for row in long_enough for each in row], blocks)
    kept = [_without_warm_up(_still_there(row, born)) for row in long_enough]
    found = [_growth(row) for row in kept if len(row) >= LEAST_RUNS]
    return tuple(sorted(found, key=lambda each: -sum(each.added_bytes)))


def with_holder(growth: Growth, found: Holders, born: Born) -> Growth:
    """``growth`` with who holds it, from a search ``found`` that told the holders of what its runs have ``born``.

    That is the name that holds something from most runs, so that a model which every run makes anew is not it.
    """
    runs = collections.Counter[tuple[HeldBy | None, str]]()
    sizes = collections.Counter[tuple[HeldBy | None, str]]()
    for cell in growth.cells:
        for row in cell_holders(found, born.of([cell])).rows:
            by_name = {name.name: name.bytes for name in row.names} or {"": row.bytes}
            runs.update((row.held_by, name) for name in by_name)
            sizes.update({(row.held_by, name): size for name, size in by_name.items()})
    held_by, holder = max(sizes, key=lambda each: (runs[each], sizes[each]), default=(None, ""))
    return dataclasses.replace(growth, is_searched=True, held_by=held_by, holder=holder)


class _Run(NamedTuple):
    run: CellRun
    added_bytes: int


def _latest_that_added(series: CellSeries, snapshot: Snapshot, blocks: CellBlocks) -> list[_Run]:
    """The latest runs that all added memory."""
    row: list[_Run] = []
    for run in reversed(series.runs):
        if run.cell.is_running and not row:
            continue  # it is not known yet what this one leaves
        added = _added_bytes(run, snapshot, blocks)
        if added <= 0:
            break
        row.append(_Run(run, added))
    return row[::-1]


def _added_bytes(run: CellRun, snapshot: Snapshot, blocks: CellBlocks) -> int:
    """How much more the program itself held at the end of a run than at its begin; 0 when that is not known."""
    cell = run.cell
    unseen = any(gap.begin_ns <= cell.end_ns and (gap.end_ns or cell.end_ns) >= cell.begin_ns for gap in snapshot.gaps)
    if cell.execution_count is None or unseen or cell.id not in blocks.pooled_delta_bytes:
        return 0
    return run.delta_bytes + blocks.pooled_delta_bytes[cell.id]


def _still_there(row: Sequence[_Run], born: Born) -> Sequence[_Run]:
    """The longest end of ``row`` of which as much is live as its runs added: what came before was given back.

    Memory that a run replaced by more of its own counts as there, as in ``all = concatenate([all, new])``.
    """
    live = np.array([_bytes_of(born, each.run.cell.id) for each in row], np.int64)
    added = np.array([each.added_bytes for each in row], np.int64)
    spare = np.cumsum((live - added)[::-1])[::-1]
    fits = np.flatnonzero(spare >= 0)
    return row[int(fits[0]) :] if len(fits) else []


def _bytes_of(born: Born, cell: int) -> int:
    parts = (born.ranges, born.unplaced)
    return sum(int(part["bytes"][part["cell"] == cell].sum()) for part in parts)


def _without_warm_up(row: Sequence[_Run]) -> Sequence[_Run]:
    first, later = row[:1], row[1:]
    is_first = bool(first) and first[0].run.run == 1 and len(later) >= LEAST_RUNS
    return later if is_first and first[0].added_bytes > _WARM_UP * max(each.added_bytes for each in later) else row


def _growth(row: Sequence[_Run]) -> Growth:
    return Growth(
        label=row[-1].run.cell.label,
        first_run=row[0].run.run,
        added_bytes=tuple(each.added_bytes for each in row),
        cells=tuple(each.run.cell.id for each in row),
    )
