"""The table of who allocated, and of what stays, in text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.analysis.frames import short_path
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.html import Html, badge, breakable, data_table, joined, measure, tag
from gpumem_magic.views.text import WIDTH, Column, bar, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.allocators import Allocator

MOST_ROWS = 30
"""Rows that a table shows before it says how many it left out."""

_ROOM_FOR_KINDS = 96


# Text


def allocators_text(rows: Sequence[Allocator], *, width: int = WIDTH, devices: bool = False) -> str:
    """Who allocated, one line per row. ``devices`` adds the column that tells them apart.

    A narrow table leaves out the kind, so that there is room for what matters.
    """
    kinds = width >= _ROOM_FOR_KINDS
    columns = [
        Column(title="Where", gives=True, middle=True, least=20),
        *([Column(title="GPU", right=True)] if devices else []),
        Column(title="Library", gives=True, least=7),
        *([Column(title="Kind", gives=True, least=8)] if kinds else []),
        Column(title="Count", right=True),
        Column(title="Allocated", right=True),
        Column(title="Peak", right=True),
        Column(title="Still live", right=True),
    ]
    cells = [
        [
            row.where + _remark(row),
            *([_device(row)] if devices else []),
            row.library,
            *([row.kind] if kinds else []),
            format_count(row.count),
            format_size(row.allocated_bytes),
            _peak(row),
            format_size(row.live_bytes),
        ]
        for row in rows[:MOST_ROWS]
    ]
    return table(columns, cells, width=width, indent="  ") + _left_out(rows)


def stays_text(rows: Sequence[Allocator], *, width: int = WIDTH, devices: bool = False) -> str:
    """What is still live, one line per row."""
    columns = [
        Column(title="Still live", right=True),
        Column(title=""),
        Column(title="Count", right=True),
        *([Column(title="GPU", right=True)] if devices else []),
        Column(title="Where", gives=True, middle=True, least=24),
        Column(title="Library", gives=True, least=8),
        Column(title="Kind", gives=True, least=8),
    ]
    largest = max((row.live_bytes for row in rows), default=0)
    cells = [
        [
            format_size(row.live_bytes),
            bar(row.live_bytes, largest, 6),
            format_count(row.live_count),
            *([_device(row)] if devices else []),
            row.where + _remark(row, failures=False),
            row.library,
            row.kind,
        ]
        for row in rows[:MOST_ROWS]
    ]
    return table(columns, cells, width=width, indent="  ") + _left_out(rows)


def _remark(row: Allocator, *, failures: bool = True) -> str:
    remarks = [f"{format_count(row.failed_count)} failed"] if row.failed_count and failures else []
    remarks += ["background"] if row.background else []
    return f" [{', '.join(remarks)}]" if remarks else ""


def _peak(row: Allocator) -> str:
    return f"{'≤ ' if row.peak_is_bound else ''}{format_size(row.peak_bytes)}"


def _device(row: Allocator) -> str:
    return "host" if row.device == NO_DEVICE else str(row.device)


def _left_out(rows: Sequence[Allocator]) -> str:
    return f"\n  … and {format_count(len(rows) - MOST_ROWS)} more rows" if len(rows) > MOST_ROWS else ""


# HTML


def allocators_html(rows: Sequence[Allocator], *, devices: bool = False) -> Html:
    """Who allocated; a row opens to its stack."""
    titles = [
        ("Where", "wide"),
        *([("GPU", "num")] if devices else []),
        ("Library", "wrap"),
        ("Kind", "wrap"),
        ("Count", "num"),
        ("Allocated", "num"),
        ("Peak", "num"),
        ("Still live", "num bars"),
    ]
    largest = max((row.live_bytes for row in rows), default=0)
    cells = [
        [
            where_html(row),
            *([_device(row)] if devices else []),
            row.library or _unknown(),
            row.kind,
            format_count(row.count),
            format_size(row.allocated_bytes),
            _peak(row),
            measure(format_size(row.live_bytes), row.live_bytes, largest, "held"),
        ]
        for row in rows[:MOST_ROWS]
    ]
    return joined([data_table(titles, cells, caption="Who allocated"), _left_out_html(rows)])


def stays_html(rows: Sequence[Allocator], *, devices: bool = False) -> Html:
    """What is still live; a row opens to its stack."""
    titles = [
        ("Where", "wide"),
        *([("GPU", "num")] if devices else []),
        ("Library", "wrap"),
        ("Kind", "wrap"),
        ("Count", "num"),
        ("Still live", "num bars"),
    ]
    largest = max((row.live_bytes for row in rows), default=0)
    cells = [
        [
            where_html(row, failures=False),
            *([_device(row)] if devices else []),
            row.library or _unknown(),
            row.kind,
            format_count(row.live_count),
            measure(format_size(row.live_bytes), row.live_bytes, largest, "held"),
        ]
        for row in rows[:MOST_ROWS]
    ]
    return joined([data_table(titles, cells, caption="What stays"), _left_out_html(rows)])


def where_html(row: Allocator, *, failures: bool = True) -> Html:
    """The place, with marks, and the stack behind it on request."""
    marks = [
        badge(f"{format_count(row.failed_count)} failed", "error", "calls that the driver refused")
        if row.failed_count and failures
        else None,
        badge("background", "info", "made by another thread than the one that ran the cell")
        if row.background
        else None,
    ]
    place = joined(
        [tag("span", breakable(row.where), class_="gm-code"), *(joined([" ", mark]) for mark in marks if mark)]
    )
    if not row.stack:
        return place
    frames = [
        tag("li", tag("span", breakable(label), class_="gm-code"), title=f"{short_path(frame.filename)}:{frame.line}")
        for label, frame in zip(row.frames, row.stack, strict=True)
    ]
    return tag("details", tag("summary", place), tag("ol", *frames))


def _unknown() -> Html:
    return tag("span", "unknown", class_="gm-sub")


def _left_out_html(rows: Sequence[Allocator]) -> Html | None:
    text = _left_out(rows).strip()
    return tag("p", text, class_="gm-quiet") if text else None
