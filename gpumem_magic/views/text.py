"""Building blocks of plain text: aligned tables, bars and sparklines that keep to a width."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpumem_magic.analysis.timelines import Timeline

WIDTH = 100
_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_GAP = "  "


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table. One that ``gives`` is cut short when the table is too wide, down to ``least``.

    With ``middle`` the middle is cut out instead of the end.
    """

    title: str
    right: bool = False
    gives: bool = False
    middle: bool = False
    least: int = 10


def text_width(text: str) -> int:
    """How many cells of a terminal ``text`` takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters, which could redraw a terminal."""
    return "".join(char if char.isprintable() else "�" if char not in "\t\r\n" else " " for char in text)


def shortened(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells: the end gives way to an ellipsis."""
    if text_width(text) <= width:
        return text
    taken = itertools.accumulate(text_width(char) for char in text)
    kept = sum(1 for _ in itertools.takewhile(lambda cells: cells <= max(width - 1, 0), taken))
    return text[:kept].rstrip() + "…" if width > 0 else ""


def without_middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells: the middle gives way to an ellipsis."""
    if text_width(text) <= width:
        return text
    tail = text[-(width // 2) :]
    while text_width(tail) > width // 2:
        tail = tail[1:]
    head = shortened(text, width - text_width(tail))
    return f"{head.removesuffix('…').rstrip()}…{tail.lstrip()}"


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, width: int = WIDTH, indent: str = "") -> str:
    """An aligned table with a rule under its titles.

    Columns that give share what is missing, those with most to spare first. When even that is not enough, lines
    are longer than ``width``.
    """
    cells = [[column.title for column in columns], *([one_line(cell) for cell in row] for row in rows)]
    widths = _fitted(columns, cells, width - len(indent))
    lines = [_line(columns, row, widths) for row in cells]
    rule = _GAP.join("─" * each for each in widths)
    return "\n".join(f"{indent}{line}".rstrip() for line in [lines[0], rule, *lines[1:]])


def _fitted(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = [max(text_width(row[place]) for row in cells) for place in range(len(columns))]
    spare = width - len(_GAP) * (len(columns) - 1)
    giving = [place for place, column in enumerate(columns) if column.gives and widths[place] > column.least]
    while sum(widths) > spare and giving:
        widest = max(giving, key=lambda place: widths[place] - columns[place].least)
        widths[widest] -= 1
        giving = [place for place in giving if widths[place] > columns[place].least]
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        shown = without_middle(cell, width) if column.middle else shortened(cell, width)
        fill = " " * (width - text_width(shown))
        padded.append(fill + shown if column.right else shown + fill)
    return _GAP.join(padded)


def bar(part: float, whole: float, cells: int = 8) -> str:
    """A bar of block characters, ``cells`` wide at most; something nonzero is always seen."""
    if part <= 0 or whole <= 0:
        return ""
    eighths = max(round(min(part / whole, 1.0) * cells * 8), 1)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def sparkline(line: Timeline, cells: int = 60) -> str:
    """Highest live bytes per stretch of time, from 0 to the peak."""
    edges = np.linspace(0, max(line.duration_s, 1e-9), cells + 1)
    highest = [_highest(line, low, high) for low, high in itertools.pairwise(edges.tolist())]
    return levels(highest, max(line.peak_bytes, 1))


def levels(values: Sequence[float], top: float) -> str:
    """One block per value, from 0 to ``top``; something nonzero is always seen."""
    return "".join(" " if not value else _LEVELS[min(int(value * len(_LEVELS) / top), 7)] for value in values)


def stacked_bar(parts: Sequence[tuple[str, float]], whole: float, cells: int) -> str:
    """Parts (sign, size) side by side, ``whole`` being ``cells`` wide.

    Every part that is not 0 is seen as long as there are cells for it; the largest gives way.
    """
    scale = cells / whole if whole > 0 else 0
    edges = np.rint(np.cumsum([0.0, *(max(size, 0) for _, size in parts)]) * scale).astype(int)
    widths = np.diff(np.minimum(edges, cells))
    for place, (_, size) in enumerate(parts):
        if size > 0 and not widths[place] and scale:
            widths[place] = 1
            if widths.sum() > min(cells, max(int(edges[-1]), 1)) and widths.max() > 1:
                widths[int(np.argmax(widths))] -= 1
    return "".join(sign * width for (sign, _), width in zip(parts, widths.tolist(), strict=True))[:cells]


def _highest(line: Timeline, low: float, high: float) -> int:
    """The highest value in ``low <= t < high``, the one with which the stretch begins counted in."""
    first, last = np.searchsorted(line.seconds, [low, high])
    if first == len(line.seconds) or line.seconds[first] > low:
        first -= 1  # the level is still the one of the point before
    return int(line.live_bytes[first : max(last, first + 1)].max())


def paragraph(text: str, *, width: int = WIDTH, first: str = "", rest: str = "") -> str:
    """``text`` in lines of at most ``width``, with a hanging indent."""
    return textwrap.fill(one_line(text), width, initial_indent=first, subsequent_indent=rest)


def side_by_side(left: str, right: str, width: int) -> str:
    """``left`` and, at the right margin, ``right``; the left gives way when both do not fit."""
    left = shortened(one_line(left), max(width - text_width(right) - 2, 8))
    return left + " " * max(width - text_width(left) - text_width(right), 2) + right
