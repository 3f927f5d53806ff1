"""The card under a cell that ran out of device memory, in text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.holders import HELD_BY_LABELS, HeldBy
from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.holders import HINTS, SEVERITIES
from gpumem_magic.views.html import Html, answer, badge, data_table, joined, measure, next_steps, note, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, bar, one_line, paragraph, side_by_side, stacked_bar, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.holders import Keeper
    from gpumem_magic.model.out_of_memory import Action, OutOfMemory

NEXT = (("%gpumem who", "who holds each piece"), ("%gpumem ledger", "every byte"))

_SIGNS = {"other": "░", "base": "▒", "live": "█", "cached": "▓", "unexplained": "╱"}  # noqa: RUF001  (a hatch)


def render_out_of_memory(found: OutOfMemory, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": out_of_memory_text(found, width=width), "text/html": out_of_memory_html(found)}


# What is said, in both forms


def headline(found: OutOfMemory) -> str:
    """What was asked for, and what was free."""
    place = f" by {found.where}" if found.where else ""
    asked = (
        "Memory was asked for" if found.requested_bytes is None else f"{format_size(found.requested_bytes)} asked for"
    )
    return f"{asked}{place}; {format_size(found.free_bytes)} of GPU {found.device} were free."


def reasons(found: OutOfMemory) -> list[str]:
    """Why that did not do, and what would, as sentences."""
    return [*_why(found), *_remedy(found)]


def _why(found: OutOfMemory) -> list[str]:
    asked, refusal = found.requested_bytes, found.refusal
    owner = refusal.framework or "the program"
    said = []
    if refusal.limit_bytes is not None:
        said.append(f"The pool of {owner} is limited to {format_size(refusal.limit_bytes)}.")
    if asked is None:
        said.append("The exception does not say how much was asked for.")
    elif _is_hopeless(found):
        said.append(f"That is more than the GPU can ever give to this process: {format_size(_most(found))}.")
    elif asked <= found.free_bytes and refusal.limit_bytes is None:
        said.append(f"That is less than was free on the GPU: a limit that {owner} sets itself refused it.")
    elif found.free_bytes < asked <= found.free_bytes + found.cached_bytes + found.pieces_bytes:
        size = format_size(found.cached_bytes + found.pieces_bytes)
        said.append(f"Enough is free in all, but {size} of it lie in pools of frameworks, in pieces.")
        if found.pieces_bytes:
            said.append(f"The largest piece is {format_size(found.largest_piece_bytes)}.")
        if refusal.framework == "torch":
            said.append("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True keeps such pieces together.")
    if not found.is_at_failure:
        said.append("The sizes are those of the end of the cell: what was freed on the way out of it is gone already.")
    return [*said, found.note] if found.note else said


def _remedy(found: OutOfMemory) -> list[str]:
    asked, missing = found.requested_bytes, found.missing_bytes
    if asked is None or not missing or _is_hopeless(found):
        return []
    safe = found.safe_bytes
    if safe >= missing:
        return [f"{format_size(missing)} are missing: what is marked as safe below gives {format_size(safe)}."]
    gain = f", and what is safe to free gives {format_size(safe)}" if safe else ", and nothing is safe to free"
    remedy = "Something below must go, or the request" if found.actions else "The request"
    return [f"{format_size(missing)} are missing{gain}.", f"{remedy} must be smaller."]


def _most(found: OutOfMemory) -> int:
    """All that a GPU could give if everything of this process but its context and its kernels went."""
    return _whole(found) - found.other_bytes - found.base_bytes


def _is_hopeless(found: OutOfMemory) -> bool:
    asked = found.requested_bytes
    return asked is not None and found.total_bytes is not None and asked > _most(found)


def parts(found: OutOfMemory) -> list[tuple[str, str, int]]:
    """(band, name, bytes) of where the memory of the device was."""
    every = [
        ("other", "other processes, and the driver", found.other_bytes),
        ("base", "context and kernels", found.base_bytes),
        ("live", "in use", found.live_bytes),
        ("cached", "cached, can be given back", found.cached_bytes),
        ("cached", "cached, in pieces", found.pieces_bytes),
        ("unexplained", "rounding, and not explained", found.rest_bytes),
    ]
    return [each for each in every if each[2] > 0]


def _whole(found: OutOfMemory) -> int:
    return found.total_bytes or sum(size for _, _, size in parts(found)) + found.free_bytes or 1


def _title(found: OutOfMemory) -> tuple[str, str]:
    total = f", {format_size(found.total_bytes)}" if found.total_bytes else ""
    return f"Out of memory in {found.cell}", f"GPU {found.device}  {found.device_name}{total}"


def _keeper(keeper: Keeper) -> str:
    """The way to the one piece that a name leads to; the name itself when there are several."""
    more = keeper.pieces - 1
    if keeper.held_by is HeldBy.EXCEPTION:  # the frame says more than the name
        place = keeper.path.rpartition("traceback → ")[2]
        return f"the exception: {place}{f', and {format_count(more)} more' if more else ''}"
    shown = f"{keeper.names[0]} ({format_count(keeper.pieces)} pieces)" if more else keeper.path
    others = len(keeper.names) - 1
    return f"{shown} and {others} more name{'s' * (others > 1)}" if others else shown


# Text


def out_of_memory_text(found: OutOfMemory, *, width: int = WIDTH) -> str:
    """What happened, where the memory was, who keeps it, and what gives it back."""
    title, device = _title(found)
    shown = [
        side_by_side(title, one_line(device), width) + "\n" + "─" * width,
        paragraph(" ".join([headline(found), *reasons(found)]), width=width),
        _picture_text(found, width),
        _keepers_text(found.keepers, width),
        _actions_text(found.actions, width),
        f"Next: {' · '.join(command for command, _ in NEXT)}",
    ]
    return "\n\n".join(part for part in shown if part) + "\n"


def _picture_text(found: OutOfMemory, width: int) -> str:
    whole = _whole(found)
    picture = stacked_bar([(_SIGNS[band], size) for band, _, size in parts(found)], whole, width - 2)
    columns = [Column(title="", gives=True), Column(title="", right=True), Column(title="", right=True)]
    rows = [[f"{_SIGNS[band]} {name}", format_size(size), _share(size, whole)] for band, name, size in parts(found)]
    rows.append(["· free", format_size(found.free_bytes), _share(found.free_bytes, whole)])
    lines = table(columns, rows, width=width).splitlines()[2:]  # the titles are empty
    return "\n".join([f"[{picture:·<{width - 2}}]", *lines])


def _share(size: int, whole: int) -> str:
    return f"{100 * size / whole:.1f} %"


def _keepers_text(keepers: Sequence[Keeper], width: int) -> str:
    if not keepers:
        return ""
    columns = [
        Column(title="Who keeps it", gives=True, middle=True, least=30),
        Column(title="Held by"),
        Column(title="Leads to", right=True),
        Column(title=""),
        Column(title="Frees", right=True),
    ]
    largest = max(keeper.held_bytes for keeper in keepers)
    rows = [
        [
            _keeper(keeper),
            HELD_BY_LABELS[keeper.held_by].removeprefix("held by "),
            format_size(keeper.held_bytes),
            bar(keeper.held_bytes, largest, 6),
            format_size(keeper.freed_bytes),
        ]
        for keeper in keepers
    ]
    return table(columns, rows, width=width)


def _actions_text(actions: Sequence[Action], width: int) -> str:
    if not actions:
        return "Nothing is known that would give memory back."
    columns = [
        Column(title="What gives memory back"),
        Column(title="Predicted", right=True),
        Column(title="Safe"),
        Column(title="", gives=True, least=20),
    ]
    rows = [[each.command, format_size(each.bytes), "✓" if each.is_safe else "", each.purpose] for each in actions]
    return table(columns, rows, width=width)


# HTML


def out_of_memory_html(found: OutOfMemory) -> Html:
    """The same as a fragment that needs nothing else."""
    _, device = _title(found)
    return answer(
        tag(
            "div",
            spaced(badge("out of memory", "error"), tag("span", found.cell, class_="gm-label"), tag("span", device)),
            class_="gm-head gm-apart",
        ),
        note(headline(found), "error"),
        *(tag("p", sentence, class_="gm-quiet") for sentence in reasons(found)),
        _picture_html(found),
        _keepers_html(found.keepers),
        _actions_html(found.actions),
        next_steps(NEXT),
        label="GPU memory: out of memory",
    )


def _picture_html(found: OutOfMemory) -> Html:
    whole = _whole(found)
    filled = [
        tag(
            "span",
            class_=f"gm-sw-{band}",
            style=f"width:{100 * size / whole:.2f}%",
            title=f"{name}: {format_size(size)}",
        )
        for band, name, size in parts(found)
    ]
    legend = [_item(f"gm-swatch gm-sw-{band}", name, size) for band, name, size in parts(found)]
    legend.append(_item("gm-swatch", "free", found.free_bytes))
    words = ", ".join(f"{name} {format_size(size)}" for _, name, size in parts(found))
    picture = tag("div", *filled, class_="gm-ledgerbar", role="img", aria_label=words)
    return joined([picture, tag("div", *legend, class_="gm-legend")])


def _item(swatch: str, name: str, size: int) -> Html:
    title = tag("span", spaced(tag("span", class_=swatch, aria_hidden="true"), name), class_="gm-name")
    return tag("span", title, tag("b", format_size(size), title=f"{size:,} bytes"), class_="gm-item")


def _keepers_html(keepers: Sequence[Keeper]) -> Html | None:
    if not keepers:
        return None
    titles = [("Name", "wide"), ("Held by", ""), ("Leads to", "num bars"), ("Frees", "num")]
    largest = max(keeper.held_bytes for keeper in keepers)
    rows = [
        [
            tag("span", _keeper(keeper), class_="gm-code", title=", ".join(keeper.names)),
            badge(
                HELD_BY_LABELS[keeper.held_by].removeprefix("held by "),
                SEVERITIES.get(keeper.held_by, "info"),
                HINTS[keeper.held_by],
            ),
            tag(
                "span",
                measure(format_size(keeper.held_bytes), keeper.held_bytes, largest, "held"),
                title=f"{keeper.held_bytes:,} bytes",
            ),
            tag("span", format_size(keeper.freed_bytes), title=f"{keeper.freed_bytes:,} bytes"),
        ]
        for keeper in keepers
    ]
    title = tag("h3", spaced("Who keeps it", tag("small", "what each name leads to, and what goes with it")))
    return joined([title, data_table(titles, rows, caption="Names that keep device memory alive")])


def _actions_html(actions: Sequence[Action]) -> Html:
    if not actions:
        return tag("p", "Nothing is known that would give memory back.", class_="gm-quiet")
    largest = max(each.bytes for each in actions)
    titles = [("Command", ""), ("Predicted", "num bars"), ("", "wide wrap")]
    rows = [
        [
            tag("code", each.command, class_="gm-line"),
            tag("span", measure(format_size(each.bytes), each.bytes, largest), title=f"{each.bytes:,} bytes"),
            spaced(
                badge("safe", "info", "no variable or output of the notebook goes with it") if each.is_safe else None,
                each.purpose,
            ),
        ]
        for each in actions
    ]
    title = tag("h3", spaced("What gives memory back", tag("small", "safe: no variable or output goes with it")))
    return joined([title, data_table(titles, rows, caption="What gives memory back")])
