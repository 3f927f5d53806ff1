"""The sentence on a cell that leaves more behind with every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.holders import HELD_BY_LABELS, HeldBy
from gpumem_magic.model.units import format_size
from gpumem_magic.views.html import Html, joined, note, tag
from gpumem_magic.views.text import WIDTH, one_line, paragraph, without_middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.growth import Growth

LONGEST_NAME = 60
_ALIKE = 0.1  # runs that differ by no more than that of the largest are told as one number


def growth_text(growth: Sequence[Growth], *, width: int = WIDTH, indent: str = "") -> str:
    """A sentence per cell, marked as one that a reader must not miss."""
    lines = [f"{_amount(each)}{_holder(each, f'`{_name(each)}`')}" for each in growth]
    return "\n".join(paragraph(line, width=width, first=f"{indent}! ", rest=f"{indent}  ") for line in lines)


def growth_html(growth: Sequence[Growth]) -> Html | None:
    """The same as notes; None when no cell grows."""
    notes = []
    for each in growth:
        before, name, after = _holder(each, "\0").partition("\0")
        shown = tag("code", _name(each), title=each.holder) if name else None
        notes.append(note(joined([_amount(each), before, shown, after]), "warning"))
    return joined(notes) if notes else None


def _amount(growth: Growth) -> str:
    """``In [12], runs 1-5: +1.20 GiB each``."""
    least, most = min(growth.added_bytes), max(growth.added_bytes)
    mean = round(sum(growth.added_bytes) / len(growth.added_bytes))
    amount = (
        f"+{format_size(mean)}" if most - least <= _ALIKE * most else f"+{format_size(least)} to +{format_size(most)}"
    )
    return f"{one_line(growth.label)}, runs {growth.first_run}-{growth.last_run}: {amount} each"


def _holder(growth: Growth, name: str) -> str:
    """``, held by NAME``; "" where nobody searched."""
    if not growth.is_searched:
        return ""
    if growth.held_by in (None, HeldBy.LOST):
        return ", held by nobody that Python knows"
    how = _HOW.get(growth.held_by, "")
    if growth.holder:
        return f", held by {how} of {name}" if how else f", held by {name}"
    return f", held by {how}" if how else f", {HELD_BY_LABELS[growth.held_by]}"


_HOW = {
    HeldBy.AUTOGRAD: "the autograd graph",
    HeldBy.GARBAGE: "a garbage cycle",
    HeldBy.OPAQUE: "native code",
}


def _name(growth: Growth) -> str:
    return without_middle(one_line(growth.holder), LONGEST_NAME)
