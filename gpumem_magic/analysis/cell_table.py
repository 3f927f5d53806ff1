"""Every cell run of a recording in one table, and the runs of the same cell as a series."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.cell_report import is_device_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumem_magic.analysis.growth import Growth
    from gpumem_magic.model.snapshot import Cell, Process, Snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One run of a cell, or one ``track()`` block. Device layer, over all devices; nested blocks count in."""

    cell: Cell
    depth: int  # 0 for a cell, 1 for a block in it, and so on
    run: int  # 1 for the first run of its series
    duration_s: float
    delta_bytes: int
    peak_bytes: int  # sum of the devices' peaks
    held_bytes: int  # born inside and still live
    failures: int  # driver calls that failed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellSeries:
    """The runs of one cell, oldest first."""

    label: str  # of the latest run
    first_line: str
    runs: tuple[CellRun, ...]

    @property
    def delta_bytes(self) -> int:
        """What all runs together left behind."""
        return sum(run.delta_bytes for run in self.runs)

    @property
    def held_bytes(self) -> int:
        return sum(run.held_bytes for run in self.runs)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellTable:
    """The answer of ``%gpumem cells``."""

    process: Process
    runs: tuple[CellRun, ...]  # by begin; a block comes after the cell it is nested in
    series: tuple[CellSeries, ...]  # cells and blocks that ran more than once, largest growth first
    live_bytes: int  # now
    outside_bytes: int  # live and born outside any cell
    growth: tuple[Growth, ...] = ()  # cells that leave more behind with every run; empty when it was not looked for

    def self_check(self) -> None:
        """Assert that no byte is counted twice: the outermost runs and the rest make up what is live."""
        outermost = sum(run.held_bytes for run in self.runs if run.depth == 0)
        assert outermost + self.outside_bytes == self.live_bytes


def cell_table(snapshot: Snapshot) -> CellTable:
    """Every span of ``snapshot`` with what it did to device memory."""
    cells = {cell.id: cell for cell in snapshot.cells}
    depths = {cell.id: len(_ancestors(cells, cell.id)) - 1 for cell in snapshot.cells}
    mine = snapshot.sites[is_device_layer(snapshot.sites)]
    # The sites of a cell know what of it is live, and stay few where allocations are many.
    held = _with_nested(cells, mine["cell"], mine["allocated_bytes"] - mine["freed_bytes"])
    failures = _with_nested(cells, snapshot.sites["cell"], snapshot.sites["failed_count"])
    numbers = _run_numbers(snapshot.cells)
    runs = tuple(
        CellRun(
            cell=cell,
            depth=depths[cell.id],
            run=numbers[cell.id],
            duration_s=((cell.end_ns or snapshot.time_ns) - cell.begin_ns) / 1e9,
            delta_bytes=cell.delta_bytes,
            peak_bytes=sum(cell.peak_bytes.values()),
            held_bytes=held[cell.id],
            failures=failures[cell.id],
        )
        for cell in sorted(snapshot.cells, key=lambda cell: (cell.begin_ns, depths[cell.id], cell.id))
    )
    inside = sum(run.held_bytes for run in runs if run.depth == 0)
    return CellTable(
        process=snapshot.process,
        runs=runs,
        series=_series(runs),
        live_bytes=snapshot.live_bytes,
        outside_bytes=snapshot.live_bytes - inside,
    )


def outermost(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that are nested in no other, by begin."""
    known = {cell.id for cell in cells}
    return sorted((cell for cell in cells if cell.parent not in known), key=lambda cell: (cell.begin_ns, cell.id))


def series_key(cell: Cell) -> tuple[str, str]:
    """Equal for runs of the same cell: the front end's id, else its source; a block's label."""
    if cell.execution_count is None:
        return ("block", cell.label)
    if cell.cell_id:
        return ("cell", cell.cell_id)
    return ("source", f"{_INPUT_NUMBER.sub('', cell.source_file)} {cell.first_line}")


_INPUT_NUMBER = re.compile(r"^<ipython-input-\d+")
"""IPython names the code of a cell by a number that grows, and a hash of its source."""


def _ancestors(cells: Mapping[int, Cell], cell_id: int) -> list[int]:
    """``cell_id`` and the spans around it, innermost first."""
    found: list[int] = []
    while cell_id in cells and cell_id not in found:
        found.append(cell_id)
        cell_id = cells[cell_id].parent
    return found


def _with_nested(cells: Mapping[int, Cell], ids: np.ndarray, amounts: np.ndarray) -> dict[int, int]:
    """Sums of ``amounts`` per span of ``ids``, everything nested in a span counted in it too."""
    own, place = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(own), np.int64)
    np.add.at(sums, place, amounts.astype(np.int64))
    totals = dict.fromkeys(cells, 0)
    for cell_id, amount in zip(own.tolist(), sums.tolist(), strict=True):
        for ancestor in _ancestors(cells, cell_id):
            totals[ancestor] += amount
    return totals


def _run_numbers(cells: Sequence[Cell]) -> dict[int, int]:
    seen = collections.Counter[tuple[str, str]]()
    numbers = {}
    for cell in sorted(cells, key=lambda cell: (cell.begin_ns, cell.id)):
        seen[series_key(cell)] += 1
        numbers[cell.id] = seen[series_key(cell)]
    return numbers


def _series(runs: Sequence[CellRun]) -> tuple[CellSeries, ...]:
    groups: dict[tuple[str, str], list[CellRun]] = collections.defaultdict(list)
    for run in runs:
        groups[series_key(run.cell)].append(run)
    made = [
        CellSeries(label=group[-1].cell.label, first_line=group[-1].cell.first_line, runs=tuple(group))
        for group in groups.values()
        if len(group) > 1
    ]
    return tuple(sorted(made, key=lambda series: -series.delta_bytes))
