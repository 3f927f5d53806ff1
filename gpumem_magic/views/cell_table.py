"""The table of ``%gpumem cells``: every cell run, and the runs of the same cell as a series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.growth import growth_html, growth_text
from gpumem_magic.views.html import Html, answer, badge, data_table, joined, measure, next_steps, note, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, bar, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.cell_table import CellRun, CellSeries, CellTable

NEXT = (("%gpumem status", "what is tracked, and since when"), ("%gpumem last", "the kernel before this one"))
MOST_RUNS = 200
"""Runs shown, the latest; more would make a notebook heavy."""
EMPTY = "No cell has run since tracking began."


def render_cell_table(cells: CellTable, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": cell_table_text(cells, width=width), "text/html": cell_table_html(cells)}


# Text


def cell_table_text(cells: CellTable, *, width: int = WIDTH) -> str:
    """Every run in one line."""
    parts = [paragraph(text, width=width, first="! ", rest="  ") for text, _ in _notes(cells)]
    parts += [runs_text(cells, width=width), *([series_text(cells.series, width=width)] if cells.series else [])]
    parts += [growth_text(cells.growth, width=width)] if cells.growth else []
    parts += [_total(cells), f"Next: {' · '.join(command for command, _ in NEXT)}"]
    return "\n\n".join(parts) + "\n"


def runs_text(cells: CellTable, *, width: int = WIDTH) -> str:
    """The runs as a table."""
    columns = [
        Column(title="Cell"),
        Column(title="Source", gives=True, least=12),
        Column(title="Time", right=True),
        Column(title="Delta", right=True),
        Column(title="Peak", right=True),
        Column(title="Held", right=True),
        Column(title=""),
        Column(title="Ended", gives=True, least=6),
    ]
    runs = cells.runs[-MOST_RUNS:]
    largest = _largest(runs)
    rows = [
        [
            "  " * run.depth + run.cell.label,
            run.cell.first_line,
            format_duration(run.duration_s),
            format_size(run.delta_bytes, signed=True),
            format_size(run.peak_bytes),
            format_size(run.held_bytes),
            bar(run.held_bytes, largest, 6),
            _ended(run),
        ]
        for run in runs
    ]
    return table(columns, rows, width=width) + _left_out(cells) if rows else EMPTY


def series_text(series: Sequence[CellSeries], *, width: int = WIDTH) -> str:
    """Cells that ran more than once, as a table."""
    columns = [
        Column(title="Ran again"),
        Column(title="Source", gives=True, least=12),
        Column(title="Runs", right=True),
        Column(title="Delta", right=True),
        Column(title="Held", right=True),
        Column(title="Delta of the latest runs", gives=True, least=20),
    ]
    rows = [
        [
            each.label,
            each.first_line,
            format_count(len(each.runs)),
            format_size(each.delta_bytes, signed=True),
            format_size(each.held_bytes),
            _latest_deltas(each),
        ]
        for each in series
    ]
    return table(columns, rows, width=width)


def _latest_deltas(series: CellSeries, most: int = 5) -> str:
    deltas = [format_size(run.delta_bytes, signed=True) for run in series.runs[-most:]]
    return ("… " if len(series.runs) > most else "") + ", ".join(deltas)


def _largest(runs: Sequence[CellRun]) -> int:
    return max((run.held_bytes for run in runs), default=0)


def _ended(run: CellRun) -> str:
    words = [run.cell.error] if run.cell.error else ["running"] if run.cell.is_running else []
    words += [f"{format_count(run.failures)} failed"] if run.failures else []
    return ", ".join(words)


def _left_out(cells: CellTable) -> str:
    more = len(cells.runs) - MOST_RUNS
    return f"\n… and {format_count(more)} earlier runs" if more > 0 else ""


def _total(cells: CellTable) -> str:
    outside = f", of which {format_size(cells.outside_bytes)} from outside any cell" if cells.outside_bytes else ""
    return f"Live now: {format_size(cells.live_bytes)}{outside}"


def _notes(cells: CellTable) -> list[tuple[str, str]]:
    notes = []
    if cells.process.simulated:
        notes.append(("A simulated GPU: nothing here was allocated on real hardware.", "info"))
    if cells.process.degraded:
        notes.append((f"Not every call was seen: {cells.process.degraded}.", "warning"))
    return notes


# HTML


def cell_table_html(cells: CellTable) -> str:
    """The table as a fragment of HTML that needs nothing else."""
    return answer(
        tag(
            "div",
            spaced(tag("span", "Cells", class_="gm-label"), tag("span", _total(cells), class_="gm-meta")),
            class_="gm-head",
        ),
        *(note(text, severity) for text, severity in _notes(cells)),
        runs_html(cells),
        series_html(cells.series),
        growth_html(cells.growth),
        next_steps(NEXT),
        label="GPU memory of every cell run",
    )


def runs_html(cells: CellTable) -> Html:
    """The runs as a table."""
    runs = cells.runs[-MOST_RUNS:]
    if not runs:
        return tag("p", EMPTY, class_="gm-quiet")
    titles = [
        ("Cell", ""),
        ("Source", "wide"),
        ("Time", "num"),
        ("Delta", "num"),
        ("Peak", "num"),
        ("Held", "num bars"),
    ]
    rows = [
        [
            tag("span", run.cell.label, class_="gm-code"),
            _source_html(run),
            format_duration(run.duration_s),
            format_size(run.delta_bytes, signed=True),
            format_size(run.peak_bytes),
            measure(format_size(run.held_bytes), run.held_bytes, _largest(runs), "held"),
        ]
        for run in runs
    ]
    nested = ["gm-nested" if run.depth else "" for run in runs]
    left_out = _left_out(cells).strip()
    made = data_table(titles, rows, caption="Every cell run", row_classes=nested)
    return joined([made, tag("p", left_out, class_="gm-quiet") if left_out else None])


def _source_html(run: CellRun) -> Html:
    marks = [
        badge(run.cell.error, "error", "the exception that ended it") if run.cell.error else None,
        badge("running", "info") if run.cell.is_running else None,
        badge(f"{format_count(run.failures)} failed", "error", "calls that the driver refused")
        if run.failures
        else None,
    ]
    source = tag("span", run.cell.first_line, class_="gm-code gm-sub")
    return joined([source, *(joined([" ", mark]) for mark in marks if mark)])


def series_html(series: Sequence[CellSeries]) -> Html | None:
    """Cells that ran more than once, as a table; None when none did."""
    if not series:
        return None
    titles = [
        ("Cell", ""),
        ("Source", "wide"),
        ("Runs", "num"),
        ("Delta", "num"),
        ("Held", "num"),
        ("Delta of the latest runs", "wrap"),
    ]
    rows = [
        [
            tag("span", each.label, class_="gm-code"),
            tag("span", each.first_line, class_="gm-code gm-sub"),
            format_count(len(each.runs)),
            format_size(each.delta_bytes, signed=True),
            format_size(each.held_bytes),
            _latest_deltas(each),
        ]
        for each in series
    ]
    title = tag("h3", spaced("Ran again", tag("small", "does it grow each time?")))
    return joined([title, data_table(titles, rows, caption="Cells that ran more than once")])
