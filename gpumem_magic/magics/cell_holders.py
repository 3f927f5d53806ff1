"""Who holds what cells left behind: searched for where a report is asked for, and never otherwise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gpumem_magic.analysis.born import born_memory
from gpumem_magic.analysis.cell_holders import CellHolders, cell_holders
from gpumem_magic.analysis.cell_table import cell_table
from gpumem_magic.analysis.growth import growing_cells, with_holder

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from gpumem_magic.analysis.born import Born
    from gpumem_magic.analysis.cell_report import CellReport
    from gpumem_magic.analysis.cell_table import CellTable
    from gpumem_magic.model.cell_blocks import CellBlocks
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.session import Session

_NAMED = 2000  # pieces of memory, the largest, for which names are looked for: 0.1 ms each
_INTERRUPTED = "Who holds it is not known: the search was interrupted."


def report_with_holders(
    report: CellReport, session: Session, shell: InteractiveShell, blocks: CellBlocks
) -> CellReport:
    """``report`` with who holds what stays, and whether the cell leaves more behind with every run.

    Nothing is searched when nothing stays. A KeyboardInterrupt ends the search, and the report says so.

    Raises:
        RuntimeError: tracking is off.
    """
    try:
        snapshot = session.snapshot(frameworks=True)
        born = born_memory(snapshot, [report.cell.id], blocks)
        if not born.bytes:
            return report
        growing = growing_cells(cell_table(snapshot), snapshot, blocks)
        growth = next((each for each in growing if each.cells[-1] == report.cell.id), None)
        every = born if growth is None else born_memory(snapshot, growth.cells, blocks)
        found = _search(session, shell, every)
    except KeyboardInterrupt:
        return dataclasses.replace(report, holders=CellHolders(problem=_INTERRUPTED))
    return dataclasses.replace(
        report,
        holders=cell_holders(found, born),
        growth=None if growth is None else with_holder(growth, found, every),
    )


def table_with_growth(session: Session, shell: InteractiveShell, blocks: CellBlocks) -> CellTable:
    """Every cell run, and the cells that leave more behind with every run, with who holds it.

    A KeyboardInterrupt ends the search for who holds it; the rest is told.

    Raises:
        RuntimeError: tracking is off.
    """
    snapshot = session.snapshot(frameworks=True)
    table = cell_table(snapshot)
    growing = growing_cells(table, snapshot, blocks)
    if growing:
        try:
            born = born_memory(snapshot, [cell for growth in growing for cell in growth.cells], blocks)
            found = _search(session, shell, born)
            growing = tuple(with_holder(growth, found, born) for growth in growing)
        except KeyboardInterrupt:
            pass  # asked for by the user, who gets the answer as far as it is known
    return dataclasses.replace(table, growth=growing)


def _search(session: Session, shell: InteractiveShell, born: Born) -> Holders:
    return session.holders(shell, within=born.ranges, named=_NAMED)
