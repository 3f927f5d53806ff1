"""What each cell run did to device memory; runs of the same cell stand together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.analysis.cell_table import CellRun, cell_table, series_key
from gpumem_magic.views.dashboard.panel import Column, Moment, Panel, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_RUNS = 200


def _make() -> Callable[[Moment], Sequence[Row]]:
    return _rows


def _rows(moment: Moment) -> list[Row]:
    """The latest run first; below a cell that ran before, its earlier runs."""
    runs = [run for run in cell_table(moment.snapshot).runs if _is_shown(run, moment)]
    latest = runs[-_MOST_RUNS:][::-1]
    series: dict[tuple[str, str], list[CellRun]] = {}
    for run in latest:
        if run.depth == 0:
            series.setdefault(series_key(run.cell), []).append(run)
    rows = []
    for group in series.values():
        rows.append(_row(moment, group[0], len(group)))
        rows += [_row(moment, run, 1, parent=str(group[0].cell.id)) for run in group[1:]]
    shown = {run.cell.id for run in latest if run.depth == 0}
    for run in sorted(latest, key=lambda run: run.depth):
        if run.cell.parent in shown:
            shown.add(run.cell.id)
            rows.append(_row(moment, run, 1, parent=str(run.cell.parent)))
    return rows


def _is_shown(run: CellRun, moment: Moment) -> bool:
    return run.cell.is_running or run.cell.end_ns > moment.since_ns


def _row(moment: Moment, run: CellRun, runs: int, parent: str = "") -> Row:
    cell = run.cell
    cells: dict[str, Any] = {
        "cell": cell.label,
        "name": cell.label,
        "title": cell.first_line,
        "source": cell.first_line,
        "delta": run.delta_bytes,
        "peak": run.peak_bytes,
        "held": run.held_bytes,
        "runs": runs,
        "duration": round(run.duration_s, 6),
        "begin": moment.clock(cell.begin_ns),
        "badges": _badges(run),
        "link": {
            "panel": "allocations",
            "column": "cell",
            "value": cell.label,
            "label": f"allocated in {cell.label}",
            "text": "allocations",
            "hint": f"show what {cell.label} allocated",
        },
    }
    return Row(key=str(cell.id), cells=cells | ({"parent": parent} if parent else {}))


def _badges(run: CellRun) -> list[tuple[str, str, str]]:
    marks = [("running", "info", "")] if run.cell.is_running else []
    marks += [(run.cell.error, "error", "the exception that ended it")] if run.cell.error else []
    marks += [(f"{run.failures:,} failed", "error", "calls that the driver refused")] if run.failures else []
    return marks


PANEL = Panel(
    name="cells",
    title="Cells",
    hint=f"the latest {_MOST_RUNS} cell runs; earlier runs of the same cell unfold below it",
    empty="No cell has run since tracking began, or since this table was cleared.",
    columns=(
        Column(key="cell", title="Cell"),
        Column(key="source", title="Source", wide=True),
        Column(key="begin", title="Began", kind="clock", minor=True, spare=True),
        Column(key="duration", title="Time", kind="seconds", adds=True),
        Column(key="runs", title="Runs", kind="count", adds=True, spare=True),
        Column(key="delta", title="Delta", kind="signed", bar="live", adds=True, hint="live at its end minus at start"),
        Column(key="peak", title="Peak", kind="bytes", bar="peak", hint="highest at any moment within"),
        Column(key="held", title="Held", kind="bytes", bar="held", adds=True, hint="allocated in it and still live"),
    ),
    make=_make,
    rank="held",
    place=20,
)
