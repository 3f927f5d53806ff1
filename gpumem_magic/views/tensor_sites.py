"""Which line made which of PyTorch's blocks, in text and in HTML: a section of the cell report, or an answer alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.analysis.frames import short_path
from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.html import Html, answer, breakable, data_table, joined, measure, next_steps, note, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, one_line, paragraph, table

if TYPE_CHECKING:
    from gpumem_magic.analysis.tensor_sites import TensorSite, TensorSites

MOST_ROWS = 30
"""Rows that the table shows before it says how many it left out."""

TITLE = "Tensors"
HINT = "blocks inside PyTorch's cache, in bytes asked for: part of driver memory, not added to its rows above"
NOTHING = "PyTorch's cache handed out no block in this cell."
NEXT = (("%%gpumem --tensors", "the same of one cell, in its report"), ("%gpumem who", "what keeps them alive"))


def render_tensors(sites: TensorSites, *, cell: str, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``. ``cell`` says whose tensors they are."""
    text = f"{one_line(cell)}\n\n{tensors_text(sites, width=width)}\n\nNext: {' · '.join(name for name, _ in NEXT)}\n"
    head = tag("div", tag("span", cell, class_="gm-label gm-code"), class_="gm-head")
    html = answer(head, tensors_html(sites), next_steps(NEXT), label=f"Tensors of {cell}")
    return {"text/plain": text, "text/html": html}


def _summary(sites: TensorSites) -> str:
    """The whole in one sentence, which begins with a number or with "at least"."""
    made = sum(row.made_bytes for row in sites.all_rows())
    blocks = f"{format_count(sites.count)} block{'s' * (sites.count != 1)}"
    least = "at least " if sites.made_bytes is None else ""
    taken, asked = format_size(sites.taken_bytes), format_size(sites.live_bytes)
    live = f"{asked} of it still live" if sites.live_bytes else "none of it still live"
    rounding = f" ({taken} with rounding)" if taken != asked else ""
    return f"{least}{format_size(made)} made in {blocks}, {live}{rounding}."


def _notes(sites: TensorSites) -> list[tuple[str, str]]:
    """What a reader must know: sentence and severity."""
    found = [(each, "info") for each in sites.notes]
    if sites.made_bytes is None:
        found.append(
            ("PyTorch's counters do not tell how much was made in all, so some may be missing here.", "warning")
        )
    elif sites.unrecorded:
        count = format_count(sum(row.count for row in sites.unrecorded))
        text = f"{count} blocks are beyond what the history keeps: “not recorded”. A peak with ≥ is a lower bound."
        found.append((text, "warning"))
    if any(not row.stack for row in sites.rows):
        found.append(("Rows without a Python frame are of PyTorch's own threads, such as the backward pass.", "info"))
    return found


def _shown(sites: TensorSites) -> tuple[TensorSite, ...]:
    return sites.rows[:MOST_ROWS] + sites.unrecorded


def _left_out(sites: TensorSites) -> str:
    hidden = sites.rows[MOST_ROWS:]
    if not hidden:
        return ""
    made, live = (sum(getattr(row, name) for row in hidden) for name in ("made_bytes", "live_bytes"))
    return f"… and {format_count(len(hidden))} more rows: {format_size(made)} made, {format_size(live)} still live"


def _has_devices(sites: TensorSites) -> bool:
    """Whether a column must tell devices apart."""
    return {row.device for row in sites.all_rows()} > {0}


def _peak(row: TensorSite) -> str:
    if row.peak_bytes is None:
        return "unknown"
    return f"{'≥ ' if row.peak_is_bound else ''}{format_size(row.peak_bytes)}"


def _largest(row: TensorSite) -> str:
    return "unknown" if row.largest_bytes is None else format_size(row.largest_bytes)


# Text


def tensors_text(sites: TensorSites, *, width: int = WIDTH) -> str:
    """The section in lines of at most ``width`` where its numbers allow."""
    lines = [TITLE]
    if sites.problem:
        return "\n".join([*lines, paragraph(sites.problem, width=width, first="  ", rest="  ")])
    lines.append(paragraph(f"{HINT[0].upper()}{HINT[1:]}.", width=width, first="  ", rest="  "))
    for text, severity in _notes(sites):
        lines.append(paragraph(text, width=width, first="  ! " if severity != "info" else "  i ", rest="    "))
    if not sites.all_rows():
        return "\n".join([*lines, f"  {NOTHING}"])
    lines.append(paragraph(_summary(sites)[0].upper() + _summary(sites)[1:], width=width, first="  ", rest="  "))
    lines.append(_table_text(sites, width))
    left_out = _left_out(sites)
    return "\n".join([*lines, f"  {left_out}"] if left_out else lines)


def _table_text(sites: TensorSites, width: int) -> str:
    devices = _has_devices(sites)
    columns = [
        Column(title="Where", gives=True, middle=True, least=20),
        *([Column(title="GPU", right=True)] if devices else []),
        Column(title="Count", right=True),
        Column(title="Made", right=True),
        Column(title="Peak", right=True),
        Column(title="Largest", right=True),
        Column(title="Still live", right=True),
    ]
    cells = [
        [
            row.where,
            *([str(row.device)] if devices else []),
            format_count(row.count),
            format_size(row.made_bytes),
            _peak(row),
            _largest(row),
            format_size(row.live_bytes),
        ]
        for row in _shown(sites)
    ]
    return table(columns, cells, width=width, indent="  ")


# HTML


def tensors_html(sites: TensorSites) -> Html:
    """The section; a row opens to its stack."""
    title = tag("h3", spaced(TITLE, tag("small", HINT)))
    if sites.problem:
        return joined([title, tag("p", sites.problem, class_="gm-quiet")])
    notes = [note(text, severity) for text, severity in _notes(sites)]
    if not sites.all_rows():
        return joined([title, *notes, tag("p", NOTHING, class_="gm-quiet")])
    summary = _summary(sites)
    left_out = _left_out(sites)
    return joined(
        [
            title,
            *notes,
            tag("p", summary[0].upper() + summary[1:], class_="gm-quiet"),
            _table_html(sites),
            tag("p", left_out, class_="gm-quiet") if left_out else None,
        ]
    )


def _table_html(sites: TensorSites) -> Html:
    devices = _has_devices(sites)
    titles = [
        ("Where", "wide"),
        *([("GPU", "num")] if devices else []),
        ("Count", "num"),
        ("Made", "num"),
        ("Peak", "num"),
        ("Largest", "num"),
        ("Still live", "num bars"),
    ]
    largest = max(row.live_bytes for row in sites.all_rows())
    cells = [
        [
            _where_html(row),
            *([str(row.device)] if devices else []),
            format_count(row.count),
            format_size(row.made_bytes),
            _peak(row),
            _largest(row),
            measure(format_size(row.live_bytes), row.live_bytes, largest, "held"),
        ]
        for row in _shown(sites)
    ]
    return data_table(titles, cells, caption="Tensors by the line that made them")


def _where_html(row: TensorSite) -> Html:
    place = tag("span", breakable(row.where), class_="gm-code")
    if not row.stack:
        return place
    frames = [
        tag("li", tag("span", breakable(label), class_="gm-code"), title=f"{short_path(frame.filename)}:{frame.line}")
        for label, frame in zip(row.frames, row.stack, strict=True)
    ]
    return tag("details", tag("summary", place), tag("ol", *frames))
