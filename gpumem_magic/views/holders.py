"""The answer of ``%gpumem who``: what keeps device memory alive, in text and in HTML."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.holders import HELD_BY_LABELS, HeldBy
from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.html import Html, answer, badge, data_table, joined, measure, next_steps, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, bar, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.holders import Holder, Holders, NameTotal

NEXT = (("%gpumem ledger", "every byte, in use or not"), ("%gpumem cells", "which cell made it"))
MOST_NAMES = 3
MOST_TOTALS = 10
HINTS = {
    HeldBy.NOTEBOOK: "a variable or an output of the notebook",
    HeldBy.EXCEPTION: "kept by the last exception: its traceback has the frames, and these their variables",
    HeldBy.RUNNING: "a variable of a function that is running",
    HeldBy.LIBRARY: "a module's global, or what hangs on it",
    HeldBy.AUTOGRAD: "saved for a backward pass",
    HeldBy.GARBAGE: "no name reaches it: gc.collect() frees it",
    HeldBy.OPAQUE: "held from native code, which nobody can look into",
    HeldBy.LOST: "no Python object knows its address any more: nobody can free it",
}
SEVERITIES = {HeldBy.EXCEPTION: "warning", HeldBy.GARBAGE: "warning", HeldBy.LOST: "error"}


def render_holders(found: Holders, *, title: str, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``. ``title`` says what was asked for."""
    return {
        "text/plain": holders_text(found, title=title, width=width),
        "text/html": holders_html(found, title=title),
    }


def _by_class(found: Holders) -> list[tuple[HeldBy, int]]:
    """Bytes of each class, the largest first."""
    sums = collections.Counter[HeldBy]()
    for holder in found.holders:
        sums[holder.held_by] += holder.bytes
    return sums.most_common()


def _summary(found: Holders) -> str:
    parts = ", ".join(f"{format_size(size)} {HELD_BY_LABELS[held_by]}" for held_by, size in _by_class(found))
    pieces = _counted(len(found.holders), "piece")
    return f"{format_size(sum(each.bytes for each in found.holders))} in {pieces}: {parts}" if parts else NOTHING


def _counted(count: int, noun: str) -> str:
    return f"{format_count(count)} {noun}{'s' * (count != 1)}"


NOTHING = "No device memory that a Python object knows."


def _what(holder: Holder) -> str:
    owner = " + ".join(holder.frameworks)
    kind = holder.type_name or "memory"
    return f"{kind} ({owner or 'raw address'})" if owner or holder.type_name else kind


def _where(holder: Holder) -> str:
    return "host" if holder.device in (NO_DEVICE, -1) else str(holder.device)


def _paths(holder: Holder) -> list[str]:
    """The ways to it that are shown, and how many names there are beside."""
    shown = [name.path for name in holder.names[:MOST_NAMES]]
    more = holder.name_count - len(shown)
    if more > 0 and shown:
        shown.append(f"… and {_counted(more, 'more name')}: it stays until all are gone")
    return shown or [holder.path or f"at {holder.address:#x}"]


def _totals(found: Holders) -> Sequence[NameTotal]:
    return found.totals[:MOST_TOTALS]


# Text


def holders_text(found: Holders, *, title: str, width: int = WIDTH) -> str:
    """The pieces of memory with the ways to them, then what each name alone would free."""
    parts = [title, paragraph(_summary(found), width=width)]
    if found.holders:
        parts.append(_pieces_text(found.holders, width))
    if found.totals:
        parts.append(_totals_text(found, width))
    parts.append(f"Next: {' · '.join(command for command, _ in NEXT)}")
    return "\n\n".join(parts) + "\n"


def _pieces_text(holders: Sequence[Holder], width: int) -> str:
    columns = [
        Column(title="Bytes", right=True),
        Column(title=""),
        Column(title="GPU", right=True),
        Column(title="What", gives=True, least=14),
        Column(title="Held by", gives=True, least=10),
        Column(title="Through", gives=True, middle=True, least=44),
    ]
    largest = max(holder.bytes for holder in holders)
    rows = []
    for holder in holders:
        first, *others = _paths(holder)
        label = HELD_BY_LABELS[holder.held_by].removeprefix("held by ")
        start = [format_size(holder.bytes), bar(holder.bytes, largest, 6), _where(holder), _what(holder), label]
        rows.append([*start, first])
        rows += [[""] * len(start) + [other] for other in others]
    return table(columns, rows, width=width)


def _totals_text(found: Holders, width: int) -> str:
    columns = [
        Column(title="Deleting this alone", gives=True, middle=True, least=20),
        Column(title="frees", right=True),
        Column(title=""),
    ]
    totals = _totals(found)
    rows = [
        [total.name, format_size(total.exclusive_bytes), bar(total.exclusive_bytes, totals[0].exclusive_bytes, 6)]
        for total in totals
    ]
    return table(columns, rows, width=width)


# HTML


def holders_html(found: Holders, *, title: str) -> Html:
    """The same as a fragment of HTML that needs nothing else."""
    return answer(
        tag("div", spaced(tag("span", title, class_="gm-label")), class_="gm-head"),
        tag("p", _summary(found), class_="gm-quiet"),
        _pieces_html(found.holders),
        _totals_html(found),
        next_steps(NEXT),
        label=f"GPU memory: {title}",
    )


def _pieces_html(holders: Sequence[Holder]) -> Html | None:
    if not holders:
        return None
    titles = [("Through", "wide"), ("Held by", ""), ("What", "wrap"), ("GPU", "num"), ("Bytes", "num bars")]
    largest = max(holder.bytes for holder in holders)
    rows = [
        [
            joined([tag("div", path, class_="gm-code") for path in _paths(holder)]),
            badge(
                HELD_BY_LABELS[holder.held_by].removeprefix("held by "),
                SEVERITIES.get(holder.held_by, "info"),
                HINTS[holder.held_by],
            ),
            tag("span", _what(holder), title=f"at {holder.address:#x}"),
            _where(holder),
            tag(
                "span",
                measure(format_size(holder.bytes), holder.bytes, largest, "held"),
                title=f"{holder.bytes:,} bytes",
            ),
        ]
        for holder in holders
    ]
    return data_table(titles, rows, caption="Device memory and what keeps it alive")


def _totals_html(found: Holders) -> Html | None:
    totals = _totals(found)
    if not totals:
        return None
    largest = totals[0].exclusive_bytes
    rows = [
        [
            tag("span", total.name, class_="gm-code"),
            measure(format_size(total.exclusive_bytes), total.exclusive_bytes, largest),
        ]
        for total in totals
    ]
    title = tag("h3", spaced("What each name alone would free", tag("small", "memory that only it keeps")))
    return joined([title, data_table([("Deleting this alone", "wide"), ("frees", "num bars")], rows, caption="Names")])
