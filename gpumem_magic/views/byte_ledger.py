"""The answer of ``%gpumem ledger``: every byte of each device, in text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_count, format_size
from gpumem_magic.views.html import Html, answer, data_table, joined, measure, next_steps, note, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, bar, paragraph, side_by_side, stacked_bar, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.byte_ledger import ByteLedger, DeviceLedger, LedgerRow

NEXT = (("%gpumem who", "who holds it"), ("%gpumem free all-safe --dry-run", "what could go at once"))
EMPTY = "There is no GPU here."
_SIGNS = {
    "other": "░",
    "context": "▒",
    "code": "▒",
    "pages": "▒",
    "unexplained": "╱",  # noqa: RUF001  (a hatch)
    "live": "█",
    "cached": "▓",
}
_BANDS = {"context": "base", "code": "base", "pages": "base"}
"""The colour of a kind, where it is not the one of a band with the same name."""


def render_byte_ledger(ledger: ByteLedger, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": byte_ledger_text(ledger, width=width), "text/html": byte_ledger_html(ledger)}


def _headline(device: DeviceLedger) -> tuple[str, str]:
    name = f"GPU {device.device.ordinal}  {device.device.name}"
    of = f" of {format_size(device.device.total_bytes)}" if device.device.total_bytes else ""
    used = f"{format_size(device.used_bytes)}{of} used" if device.is_measured else "nobody tells how full it is"
    own = f", {format_size(device.process_bytes)} by this process" if device.process_bytes is not None else ""
    return name, used + own


def _share(row: LedgerRow, device: DeviceLedger) -> str:
    return f"{100 * row.bytes / device.used_bytes:.1f} %" if device.used_bytes else ""


def _sum(device: DeviceLedger) -> str:
    return "the device reports" if device.is_measured else "all that is known of"


def _gives_back(device: DeviceLedger) -> bool:
    return any(row.command for row, _ in _lines(device))


def _lines(device: DeviceLedger) -> list[tuple[LedgerRow, int]]:
    """Every row and, behind it, its parts, unless these say no more than the row: (row, depth)."""
    return [line for row in device.rows for line in ((row, 0), *((part, 1) for part in row.parts if _says_more(row)))]


def _says_more(row: LedgerRow) -> bool:
    return len(row.parts) > 1 or any(part.kind != row.kind for part in row.parts)


# Text


def byte_ledger_text(ledger: ByteLedger, *, width: int = WIDTH) -> str:
    """A table per device."""
    parts = [paragraph(text, width=width, first="i ", rest="  ") for text in ledger.notes]
    parts += [_device_text(device, width) for device in ledger.devices] or [EMPTY]
    parts.append(f"Next: {' · '.join(command for command, _ in NEXT)}")
    return "\n\n".join(parts) + "\n"


def _device_text(device: DeviceLedger, width: int) -> str:
    name, used = _headline(device)
    whole = max(device.device.total_bytes or device.used_bytes, 1)
    picture = stacked_bar([(_SIGNS[row.kind], row.bytes) for row in device.rows], whole, width)
    gives = _gives_back(device)
    columns = [
        Column(title="What", gives=True, middle=True, least=24),
        Column(title="Bytes", right=True),
        Column(title="Share", right=True),
        Column(title=""),
        Column(title="Count", right=True),
        *([Column(title="Given back by", gives=True, least=12)] if gives else []),
    ]
    largest = max((row.bytes for row in device.rows), default=0)
    rows = [
        [
            f"{'    ' if depth else _SIGNS[row.kind] + ' '}{row.name}",
            format_size(row.bytes),
            _share(row, device),
            "" if depth else bar(row.bytes, largest, 6),
            format_count(row.count) if row.count else "",
            *([row.command] if gives else []),
        ]
        for row, depth in _lines(device)
    ]
    share = "100.0 %" if device.used_bytes else ""
    total = [f"  {_sum(device)}", format_size(device.used_bytes), share, "", "", *([""] if gives else [])]
    return "\n".join([side_by_side(name, used, width), picture.rstrip(), table(columns, [*rows, total], width=width)])


# HTML


def byte_ledger_html(ledger: ByteLedger) -> Html:
    """A table per device, as a fragment that needs nothing else."""
    return answer(
        tag("div", tag("span", "Every byte", class_="gm-label"), class_="gm-head"),
        *(note(text, "info") for text in ledger.notes),
        *([_device_html(device) for device in ledger.devices] or [tag("p", EMPTY, class_="gm-quiet")]),
        next_steps(NEXT),
        label="GPU memory: every byte",
    )


def _device_html(device: DeviceLedger) -> Html:
    name, used = _headline(device)
    titles = [("What", "wide"), ("Bytes", "num bars"), ("Share", "num"), ("Count", "num")]
    gives = _gives_back(device)
    titles += [("Given back by", "")] if gives else []
    largest = max((row.bytes for row in device.rows), default=0)
    lines = _lines(device)
    rows = [_row_html(row, depth, device, largest)[: len(titles)] for row, depth in lines]
    no_bar = tag("span", class_="gm-bar", style="visibility:hidden")
    total = [_sum(device), joined([tag("span", format_size(device.used_bytes)), no_bar]), *[""] * (len(titles) - 2)]
    classes = ["gm-nested" if depth else "" for _, depth in lines] + ["gm-sum"]
    head = tag("h3", spaced(name, tag("small", used)))
    made = data_table(titles, [*rows, total], caption=f"Every byte of {name}", row_classes=classes)
    return joined([head, _picture(device), made])


def device_line(device: DeviceLedger) -> str:
    """All rows of a device as a sum, for a line of text."""
    rows = " + ".join(f"{row.name} {format_size(row.bytes)}" for row in device.rows if row.bytes)
    unused = _unused(device)
    return f"GPU {device.device.ordinal} after it: {format_size(device.used_bytes)} used = {rows or '0 B'}{unused}"


def _unused(device: DeviceLedger) -> str:
    idle = sum(row.bytes for row in device.leaves() if row.kind == "cached" and row.command)
    return f"; {format_size(idle)} of that are in no use: %gpumem free cache gives them back" if idle else ""


def device_details(device: DeviceLedger) -> Html:
    """The rows of a device behind a fold-out."""
    unused = _unused(device)
    summary = f"Every byte of GPU {device.device.ordinal} after it: {_headline(device)[1]}{unused}"
    return tag("details", tag("summary", summary), _device_html(device), class_="gm-every")


def _picture(device: DeviceLedger) -> Html:
    """All rows side by side, as parts of what the device has."""
    whole = max(device.device.total_bytes or device.used_bytes, 1)
    parts = [
        tag(
            "span",
            class_=f"gm-sw-{_BANDS.get(row.kind, row.kind)}",
            style=f"width:{100 * max(row.bytes, 0) / whole:.2f}%",
            title=f"{row.name}: {format_size(row.bytes)}",
        )
        for row in device.rows
    ]
    words = ", ".join(f"{row.name} {format_size(row.bytes)}" for row in device.rows)
    return tag("div", *parts, class_="gm-ledgerbar", role="img", aria_label=words)


def _row_html(row: LedgerRow, depth: int, device: DeviceLedger, largest: int) -> Sequence[str]:
    swatch = tag("span", class_=f"gm-swatch gm-sw-{_BANDS.get(row.kind, row.kind)}", aria_hidden="true")
    name = tag("span", row.name, class_="gm-code" if depth else None, title=row.hint or None)
    size = format_size(row.bytes)
    return [
        name if depth else spaced(swatch, name),
        tag("span", measure(size, row.bytes, largest, "live"), title=f"{row.bytes:,} bytes"),
        _share(row, device),
        format_count(row.count) if row.count else "",
        tag("code", row.command) if row.command else "",
    ]
