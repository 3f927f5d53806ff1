"""Who holds what a cell left behind: a part of its report, in text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.holders import HELD_BY_LABELS
from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.holders import HINTS, SEVERITIES
from gpumem_magic.views.html import Html, badge, data_table, joined, measure, note, tag
from gpumem_magic.views.text import WIDTH, Column, bar, one_line, paragraph, table, without_middle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumem_magic.analysis.cell_holders import CellHolders, HeldName, HeldRow

MOST_NAMES = 5
"""Names shown of each class; what the others hold is one row."""
_IN_SENTENCE = 2
_LONGEST_NAME = 48
_LONGEST_PATH = 120
_UNKNOWN = "not known to Python"
_UNKNOWN_HINT = "allocated by native code for itself, such as a library's workspace"


def _sentence(held: CellHolders) -> str:
    """``Stays 3.20 GiB: 2.10 GiB held by notebook (model), 1.10 GiB garbage cycle``."""
    parts = ", ".join(f"{format_size(row.bytes)} {_label(row)}{_names(row)}" for row in held.rows)
    return f"Stays {format_size(held.bytes)}: {parts}."


def _label(row: HeldRow) -> str:
    return _UNKNOWN if row.held_by is None else HELD_BY_LABELS[row.held_by]


def _names(row: HeldRow) -> str:
    """The largest names of a class, in brackets."""
    if not row.names:
        return ""
    shown = [without_middle(one_line(name.name), _LONGEST_NAME) for name in row.names[:_IN_SENTENCE]]
    more = len(row.names) - len(shown)
    return f" ({', '.join(shown)}{f' and {format_count(more)} more' if more else ''})"


def _pools(held: CellHolders) -> str:
    """What the reader must know who compares the sum with what the driver handed out."""
    names = " and ".join(held.pools)
    return f"This counts what is in use. The rows below count what {names} took from the driver." if names else ""


def _way(name: HeldName) -> str:
    """The path to one piece; the name of several, and how many they are."""
    if name.count == 1:
        return without_middle(name.path or name.name, _LONGEST_PATH)
    return f"{without_middle(name.name, _LONGEST_PATH)}, {format_count(name.count)} pieces"


def _lines(held: CellHolders) -> Iterator[tuple[HeldRow, int, str]]:
    """(class, bytes, way) of each line of the table."""
    for row in held.rows:
        shown = row.names[:MOST_NAMES]
        yield from ((row, name.bytes, _way(name)) for name in shown)
        rest = row.bytes - sum(name.bytes for name in shown)
        if rest:
            more = len(row.names) - len(shown)
            yield row, rest, f"{format_count(more)} more names" if more else "smaller pieces" if shown else ""


# Text


def cell_holders_text(held: CellHolders, *, width: int = WIDTH) -> str:
    """A sentence, and a line per name where there are several to a class."""
    if held.problem:
        return paragraph(held.problem, width=width, first="  ! ", rest="    ")
    parts = [paragraph(text, width=width, first="  ", rest="    ") for text in (_sentence(held), _pools(held)) if text]
    if any(len(row.names) > 1 or (row.names and row.unnamed_bytes) for row in held.rows):
        parts.append(_table_text(held, width))
    return "\n".join(parts)


def _table_text(held: CellHolders, width: int) -> str:
    columns = [
        Column(title="Bytes", right=True),
        Column(title=""),
        Column(title="Held by", gives=True, least=13),
        Column(title="Through", gives=True, middle=True, least=40),
    ]
    lines = list(_lines(held))
    largest = max(size for _, size, _ in lines)
    rows = [
        [format_size(size), bar(size, largest, 6), _label(row).removeprefix("held by "), way]
        for row, size, way in lines
    ]
    return "\n" + table(columns, rows, width=width, indent="  ")


# HTML


def cell_holders_html(held: CellHolders) -> Html:
    """The sentence and a table with a row per name."""
    if held.problem:
        return note(held.problem, "warning")
    lines = list(_lines(held))
    largest = max((size for _, size, _ in lines), default=0)
    rows = [
        [
            tag("span", way, class_="gm-code"),
            _badge(row),
            tag("span", measure(format_size(size), size, largest, "held"), title=f"{size:,} bytes"),
        ]
        for row, size, way in lines
    ]
    titles = [("Through", "wide"), ("Held by", ""), ("Bytes", "num bars")]
    pools = _pools(held)
    return joined(
        [
            tag("p", _sentence(held)),
            tag("p", pools, class_="gm-quiet") if pools else None,
            data_table(titles, rows, caption="Who holds what stays"),
        ]
    )


def _badge(row: HeldRow) -> Html:
    if row.held_by is None:
        return badge(_UNKNOWN, "info", _UNKNOWN_HINT)
    return badge(
        HELD_BY_LABELS[row.held_by].removeprefix("held by "), SEVERITIES.get(row.held_by, "info"), HINTS[row.held_by]
    )
