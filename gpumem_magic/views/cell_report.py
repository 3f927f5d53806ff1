"""What is shown under a ``%%gpumem`` cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.allocators import allocators_html, allocators_text, stays_html, stays_text
from gpumem_magic.views.byte_ledger import device_details, device_line
from gpumem_magic.views.cell_holders import cell_holders_html, cell_holders_text
from gpumem_magic.views.chart import Chart, chart
from gpumem_magic.views.growth import growth_html, growth_text
from gpumem_magic.views.html import Html, answer, badge, next_steps, note, spaced, tag
from gpumem_magic.views.svg import timeline_svg
from gpumem_magic.views.tensor_sites import tensors_html, tensors_text
from gpumem_magic.views.text import WIDTH, one_line, paragraph, side_by_side, sparkline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpumem_magic.analysis.byte_ledger import DeviceLedger
    from gpumem_magic.analysis.cell_report import CellReport, DeviceChange
    from gpumem_magic.model.snapshot import Gap

NEXT = (
    ("%gpumem cells", "every cell run"),
    ("%gpumem who", "who holds what is live"),
    ("%gpumem free all-safe --dry-run", "what could go at once"),
)
NOTHING = "No CUDA allocation and no free was seen while this ran."


def render_cell_report(report: CellReport, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``. ``views.png`` makes a picture of it on request."""
    return {"text/plain": cell_report_text(report, width=width), "text/html": cell_report_html(report)}


# Text


def cell_report_text(report: CellReport, *, width: int = WIDTH) -> str:
    """The report for a terminal, in lines of at most ``width`` where its numbers allow."""
    parts = [_title_text(report, width), _numbers_text(report), *(_notes_text(report, width))]
    if not report.touched_memory:
        parts.append(f"  {_nothing(report)}")
        parts += [_stays_text(report, width)] if report.holders is not None else []
    else:
        parts += [_device_text(each, report, width) for each in report.devices]
        parts += _tables_text(report, width)
    parts += [paragraph(device_line(each), width=width, rest="  ") for each in _ledgers(report)]
    if report.tensors is not None:
        parts.append(tensors_text(report.tensors, width=width))
    parts.append(f"Next: {' · '.join(command for command, _ in NEXT)}")
    return "\n\n".join(parts) + "\n"


def _title_text(report: CellReport, width: int) -> str:
    cell = report.cell
    marks = ["SIMULATED"] if report.process.simulated else []
    marks += [cell.error] if cell.error else []
    marks += ["running"] if cell.is_running else []
    right = "  ".join([*(f"[{one_line(mark)}]" for mark in marks), format_duration(report.duration_s)])
    left = f"{cell.label}  {cell.first_line}".rstrip()
    return side_by_side(left, right, width) + "\n" + "─" * width


def _numbers_text(report: CellReport) -> str:
    return "\n".join(f"  {name:<6}{value:>11}   {hint}" for name, value, hint in numbers(report))


def numbers(report: CellReport) -> tuple[tuple[str, str, str], ...]:
    """The three numbers: name, value and what it means."""
    several = len(report.devices) > 1
    return (
        ("delta", format_size(report.delta_bytes, signed=True), "live at the end minus at the start"),
        ("peak", format_size(report.peak_bytes), "sum of the GPUs' peaks" if several else "highest at any moment"),
        ("held", "unknown", "calls were not seen")
        if _is_blind(report)
        else ("held", format_size(report.held_bytes), "allocated in here and still live"),
    )


def _notes_text(report: CellReport, width: int) -> list[str]:
    lines = [
        paragraph(text, width=width, first="  ! " if severity != "info" else "  i ", rest="    ")
        for text, severity in notes(report)
    ]
    return ["\n".join(lines)] if lines else []


def notes(report: CellReport) -> list[tuple[str, str]]:
    """What a reader must know before trusting a number: sentence and severity."""
    found = []
    if report.process.simulated:
        found.append(("A simulated GPU: nothing here was allocated on real hardware.", "info"))
    if report.process.degraded:
        found.append((f"Not every call was seen: {report.process.degraded}.", "warning"))
    if report.gaps:
        found.append((_gaps_sentence(report), "warning"))
    if report.failures:
        found.append((_failures_sentence(report.failures), "error"))
    return found + [(text, "info") for text in report.notes]


def _gaps_sentence(report: CellReport) -> str:
    end = report.cell.begin_ns + round(report.duration_s * 1e9)
    missed = sum(min(gap.end_ns or end, end) - max(gap.begin_ns, report.cell.begin_ns) for gap in report.gaps)
    reasons = ", ".join(dict.fromkeys(gap.reason for gap in report.gaps if gap.reason))
    return f"Calls were not seen for {format_duration(max(missed, 0) / 1e9)}: {reasons or 'reason unknown'}."


def _failures_sentence(failures: int) -> str:
    calls = "One driver call" if failures == 1 else f"{format_count(failures)} driver calls"
    return f"{calls} failed. The rows marked “failed” say where."


def _device_text(change: DeviceChange, report: CellReport, width: int) -> str:
    lines = [f"  {one_line(device_title(change))}"]
    facts = (
        f"{format_size(change.begin_bytes)} → {format_size(change.end_bytes)}, peak {format_size(change.peak_bytes)}"
    )
    if change.timeline is not None:
        facts += f" at {format_duration(change.timeline.peak_s)}"
    lines.append(f"  {facts}{_share_of_capacity(change)}")
    if change.timeline is not None:
        line = sparkline(change.timeline, min(width - 4, 72))
        lines += [f"  {line}", f"  0{format_duration(report.duration_s):>{len(line) - 1}}"]
    return "\n".join(lines)


def device_title(change: DeviceChange) -> str:
    """``GPU 0  NVIDIA H200``."""
    return f"GPU {change.device.ordinal}  {change.device.name}"


def _share_of_capacity(change: DeviceChange) -> str:
    total = change.device.total_bytes
    if not total:
        return ""
    share = change.peak_bytes / total
    shown = "less than 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")  # noqa: PLR2004
    return f" ({shown} of {format_size(total)})"


def _tables_text(report: CellReport, width: int) -> list[str]:
    several = len(report.devices) > 1
    parts = []
    if report.allocators:
        rows = allocators_text(report.allocators, width=width, devices=several)
        parts.append(f"Who allocated\n{rows}{_hidden(report, indent='  ')}")
    elif report.hidden_allocators:
        parts.append(f"Who allocated{_hidden(report, indent='  ')}")
    parts.append(_stays_text(report, width))
    other = [paragraph(line, width=width, first="  ", rest="    ") for line in _other_layers(report)]
    return parts + (["\n".join(other)] if other else [])


def _stays_text(report: CellReport, width: int) -> str:
    """Who holds what stays, then who allocated it."""
    parts = [] if report.holders is None else [cell_holders_text(report.holders, width=width)]
    parts += [growth_text([report.growth], width=width, indent="  ")] if report.growth is not None else []
    parts += [stays_text(report.stays, width=width, devices=len(report.devices) > 1)] if report.stays else []
    return "What stays\n" + "\n\n".join(parts or [f"  {_nothing_stays(report)}"])


def _nothing(report: CellReport) -> str:
    """What to say of a cell in which nothing was seen."""
    return "No change was seen in the samples taken while this ran." if _is_blind(report) else NOTHING


def _is_blind(report: CellReport) -> bool:
    """Whether no call was seen at all, so that only samples speak."""
    return bool(report.process.degraded) and not report.allocators and not report.hidden_allocators


def _hidden(report: CellReport, indent: str = "") -> str:
    if not report.hidden_allocators:
        return ""
    rows = (
        "1 smaller row" if report.hidden_allocators == 1 else f"{format_count(report.hidden_allocators)} smaller rows"
    )
    return f"\n{indent}{rows} not shown, {format_size(report.hidden_bytes)} allocated"


def _nothing_stays(report: CellReport) -> str:
    if _is_blind(report):
        return "Unknown: calls were not seen, only samples taken."
    if report.allocators or report.hidden_allocators:
        return "Nothing: all that was allocated in here has been freed."
    return "Nothing was allocated in here."


def _other_layers(report: CellReport) -> list[str]:
    return [
        f"{name} memory: {format_size(delta, signed=True)}, at most {format_size(peak)} above the start"
        " (not part of the numbers above)"
        for name, delta, peak in report.other_layers
    ]


def _ledgers(report: CellReport) -> tuple[DeviceLedger, ...]:
    return () if report.ledger is None else report.ledger.devices


# HTML


def cell_report_html(report: CellReport) -> str:
    """The report as a fragment of HTML that needs nothing else."""
    several = len(report.devices) > 1
    return answer(
        _head_html(report),
        numbers_html(numbers(report)),
        *(note(text, severity) for text, severity in notes(report)),
        *(_body_html(report, devices=several) if report.touched_memory else _untouched_html(report)),
        *(device_details(each) for each in _ledgers(report)),
        tensors_html(report.tensors) if report.tensors is not None else None,
        next_steps(NEXT),
        label=f"GPU memory report of {report.cell.label}",
    )


def _head_html(report: CellReport) -> Html:
    cell = report.cell
    parts = spaced(
        tag("span", cell.label, class_="gm-label gm-code"),
        tag("span", cell.first_line, class_="gm-source gm-code", title=cell.first_line),
        badge("SIMULATED", "warning", "not a real GPU") if report.process.simulated else None,
        badge("DEGRADED", "warning", report.process.degraded) if report.process.degraded else None,
        badge(cell.error, "error", "the exception that ended the cell") if cell.error else None,
        badge("running", "info") if cell.is_running else None,
        tag("span", format_duration(report.duration_s), class_="gm-meta", title="how long the cell ran"),
    )
    return tag("div", parts, class_="gm-head")


def numbers_html(three: Sequence[tuple[str, str, str]]) -> Html:
    """Numbers side by side, large: name, value, what it means."""
    names = tag("tr", *(tag("th", name, scope="col", class_=f"gm-s-{name}") for name, _, _ in three))
    values = tag("tr", *(tag("td", value, class_=f"gm-s-{name}") for name, value, _ in three), class_="gm-big")
    hints = tag("tr", *(tag("td", hint, class_=f"gm-s-{name}") for name, _, hint in three), class_="gm-hint")
    return tag("table", tag("thead", names), tag("tbody", values, hints), class_="gm-stats")


def _body_html(report: CellReport, *, devices: bool) -> list[Html]:
    parts = [_device_html(change, report) for change in report.devices]
    if report.allocators or report.hidden_allocators:
        parts.append(heading("Who allocated", "in this cell; open a row for its stack"))
        parts.append(allocators_html(report.allocators, devices=devices))
        parts.append(tag("p", _hidden(report).strip(), class_="gm-quiet"))
    parts += _stays_html(report)
    return parts + [tag("p", line, class_="gm-quiet") for line in _other_layers(report)]


def _untouched_html(report: CellReport) -> list[Html]:
    """What there is to say where the driver was not called: blocks may have been handed out even so."""
    nothing = tag("p", _nothing(report), class_="gm-quiet")
    return [nothing] if report.holders is None else [nothing, *_stays_html(report)]


def _stays_html(report: CellReport) -> list[Html]:
    """Who holds what stays, then who allocated it."""
    several = len(report.devices) > 1
    parts = [] if report.holders is None else [cell_holders_html(report.holders)]
    grows = growth_html([report.growth]) if report.growth is not None else None
    parts += [grows] if grows else []
    parts += [stays_html(report.stays, devices=several)] if report.stays else []
    title = heading("What stays", "allocated in here and still live")
    return [title, *(parts or [tag("p", _nothing_stays(report), class_="gm-quiet")])]


def heading(title: str, hint: str = "") -> Html:
    """A heading with a short explanation beside it."""
    return tag("h3", spaced(title, tag("small", hint) if hint else None))


def _device_html(change: DeviceChange, report: CellReport) -> Html:
    facts = spaced(
        tag("b", device_title(change)),
        tag("span", f"{format_size(change.begin_bytes)} → {format_size(change.end_bytes)}"),
        tag("span", f"peak {format_size(change.peak_bytes)}{_share_of_capacity(change)}"),
    )
    caption = tag("figcaption", facts)
    drawn = cell_chart(change, report)
    if drawn is None:
        return tag("figure", caption)
    title = f"Live memory of GPU {change.device.ordinal} while {report.cell.label} ran"
    return tag("figure", caption, timeline_svg(drawn, title=title, description=_description(change, report)))


def cell_chart(change: DeviceChange, report: CellReport) -> Chart | None:
    """The layout of one device's picture; None when there is no timeline."""
    if change.timeline is None:
        return None
    return chart(
        change.timeline,
        capacity_bytes=change.device.total_bytes,
        spans=report.marks,
        gaps=gap_seconds(report.gaps, report.cell.begin_ns, report.duration_s),
    )


def gap_seconds(gaps: Iterable[Gap], begin_ns: int, duration_s: float) -> list[tuple[float, float]]:
    """Gaps as seconds since ``begin_ns``; one that lasts ends with the picture."""
    return [
        ((gap.begin_ns - begin_ns) / 1e9, (gap.end_ns - begin_ns) / 1e9 if gap.end_ns else duration_s) for gap in gaps
    ]


def _description(change: DeviceChange, report: CellReport) -> str:
    peak = "" if change.timeline is None else f" at {format_duration(change.timeline.peak_s)}"
    return (
        f"From {format_size(change.begin_bytes)} at the begin to {format_size(change.end_bytes)} after "
        f"{format_duration(report.duration_s)}, with a peak of {format_size(change.peak_bytes)}{peak}."
    )
