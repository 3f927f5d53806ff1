"""A whole recording on one page: the notebook's own, one of a kernel that died, or a script's."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.allocators import stays_html, stays_text, where_html
from gpumem_magic.views.cell_report import gap_seconds, heading, numbers_html
from gpumem_magic.views.cell_table import runs_html, runs_text, series_html, series_text
from gpumem_magic.views.chart import Chart, chart
from gpumem_magic.views.html import Html, answer, badge, data_table, joined, next_steps, note, spaced, tag
from gpumem_magic.views.svg import timeline_svg
from gpumem_magic.views.text import WIDTH, Column, one_line, paragraph, side_by_side, sparkline, table

if TYPE_CHECKING:
    from gpumem_magic.analysis.recording_report import DeviceTotal, RecordingReport

NEXT = (("%gpumem cells", "every cell run"), ("%gpumem status", "what is tracked, and since when"))


def render_recording_report(report: RecordingReport, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": recording_report_text(report, width=width), "text/html": recording_report_html(report)}


# What both say


def numbers(report: RecordingReport) -> tuple[tuple[str, str, str], ...]:
    """The three numbers: name, value and what it means."""
    several = len(report.devices) > 1
    return (
        ("live", format_size(report.live_bytes), "tracked and live at the end"),
        ("peak", format_size(report.peak_bytes), "sum of the GPUs' peaks" if several else "highest at any moment"),
        ("events", format_count(report.events), "driver calls and marks recorded"),
    )


def _who(report: RecordingReport) -> str:
    """``process 4242 on node7, rank 3, Python 3.12.3, CUDA driver 13.0``."""
    process = report.process
    parts = [f"process {process.pid} on {process.host}"]
    parts += [f"rank {process.rank}"] if process.rank >= 0 else []
    parts += [f"Python {process.python}"] if process.python else []
    parts += [f"CUDA driver {process.driver}"] if process.driver else []
    return ", ".join(parts)


def _when(report: RecordingReport) -> str:
    """When the recording began, in UTC, so that the answer does not depend on where it is read."""
    if not report.process.started_unix_ns:
        return ""
    began = dt.datetime.fromtimestamp(report.process.started_unix_ns // 10**9, tz=dt.UTC)
    return f"{began:%Y-%m-%d %H:%M:%S} UTC"


def _notes(report: RecordingReport) -> list[tuple[str, str]]:
    found = []
    if report.process.simulated:
        found.append(("A simulated GPU: nothing here was allocated on real hardware.", "info"))
    if report.process.degraded:
        found.append((f"Not every call was seen: {report.process.degraded}.", "warning"))
    found += [(text, "warning") for text in report.warnings]
    found += [(_gap(report, begin, end, reason), "warning") for begin, end, reason in _gaps(report)]
    found += [(f"{format_count(count)} {text}.", "info") for text, count in report.oddities]
    return found


def _gaps(report: RecordingReport, most: int = 5) -> list[tuple[float, float, str]]:
    seconds = gap_seconds(report.gaps, report.begin_ns, report.duration_s)
    return [(begin, end, gap.reason) for (begin, end), gap in zip(seconds, report.gaps, strict=True)][:most]


def _gap(report: RecordingReport, begin: float, end: float, reason: str) -> str:
    more = f" ({format_count(len(report.gaps))} gaps in all)" if len(report.gaps) > 1 else ""
    since = f"{format_duration(begin)} after the begin"
    return f"Calls were not seen for {format_duration(end - begin)}, {since}: {reason or 'reason unknown'}.{more}"


def _hidden(report: RecordingReport) -> str:
    if not report.hidden_stays:
        return ""
    return f"… and {format_count(report.hidden_stays)} more rows with {format_size(report.hidden_bytes)}"


def _other_layers(report: RecordingReport) -> list[str]:
    return [
        f"{name} memory: {format_size(live)} live, at most {format_size(peak)} (not part of the numbers above)"
        for name, live, peak in report.other_layers
    ]


def _device_facts(total: DeviceTotal) -> str:
    capacity = f" of {format_size(total.device.total_bytes)}" if total.device.total_bytes else ""
    return (
        f"{format_size(total.live_bytes)} live in {format_count(total.live_count)} allocations, "
        f"peak {format_size(total.peak_bytes)}{capacity}"
        f"{f' at {format_duration(total.peak_s)}' if total.peak_bytes else ''}, "
        f"{format_size(total.allocated_bytes)} allocated in all"
    )


# Text


def recording_report_text(report: RecordingReport, *, width: int = WIDTH) -> str:
    """The page for a terminal."""
    several = len(report.devices) > 1
    parts = [
        _title_text(report, width),
        "\n".join(f"  {name:<6}{value:>11}   {hint}" for name, value, hint in numbers(report)),
        "\n".join(paragraph(text, width=width, first=_sign(grade), rest="    ") for text, grade in _notes(report)),
        *(_device_text(total, width) for total in report.devices),
        f"Cells\n{_indented(runs_text(report.cells, width=width - 2))}",
        _indented(series_text(report.cells.series, width=width - 2)) if report.cells.series else "",
        f"Still live\n{_stays_text(report, width, devices=several)}",
        "\n".join(paragraph(line, width=width, first="  ", rest="    ") for line in _other_layers(report)),
        _failed_text(report, width),
        f"Next: {' · '.join(command for command, _ in NEXT)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title_text(report: RecordingReport, width: int) -> str:
    title = side_by_side(f"Recording {report.name}".rstrip(), format_duration(report.duration_s), width)
    who = ", ".join(part for part in (_who(report), _when(report)) if part)
    return f"{title}\n{one_line(who)}\n{'─' * width}"


def _sign(severity: str) -> str:
    return "  i " if severity == "info" else "  ! "


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _device_text(total: DeviceTotal, width: int) -> str:
    title = one_line(f"GPU {total.device.ordinal}  {total.device.name}")
    lines = [f"  {title}", paragraph(_device_facts(total), width=width, first="  ", rest="  ")]
    if total.timeline is not None:
        line = sparkline(total.timeline, min(width - 4, 72))
        lines += [f"  {line}", f"  0{format_duration(total.timeline.duration_s):>{len(line) - 1}}"]
    return "\n".join(lines)


def _stays_text(report: RecordingReport, width: int, *, devices: bool) -> str:
    if not report.stays:
        return "  Nothing: all that was allocated has been freed."
    hidden = _hidden(report)
    return stays_text(report.stays, width=width, devices=devices) + (f"\n  {hidden}" if hidden else "")


def _failed_text(report: RecordingReport, width: int) -> str:
    if not report.failed:
        return ""
    columns = [
        Column(title="Failed", right=True),
        Column(title="Where", gives=True, middle=True, least=24),
        Column(title="Library"),
        Column(title="Kind"),
    ]
    rows = [[format_count(row.failed_count), row.where, row.library, row.kind] for row in report.failed]
    return f"Calls that failed\n{table(columns, rows, width=width, indent='  ')}"


# HTML


def recording_report_html(report: RecordingReport) -> str:
    """The page as a fragment of HTML that needs nothing else."""
    several = len(report.devices) > 1
    stays = stays_html(report.stays, devices=several) if report.stays else None
    return answer(
        _head_html(report),
        tag("p", ", ".join(part for part in (_who(report), _when(report)) if part), class_="gm-quiet gm-who"),
        numbers_html(numbers(report)),
        *(note(text, severity) for text, severity in _notes(report)),
        *(_device_html(total, report) for total in report.devices),
        heading("Cells", "delta: at the end minus at the start; held: allocated inside and still live"),
        runs_html(report.cells),
        series_html(report.cells.series),
        heading("Still live", "largest first; open a row for its stack"),
        stays or tag("p", "Nothing: all that was allocated has been freed.", class_="gm-quiet"),
        tag("p", _hidden(report), class_="gm-quiet") if report.hidden_stays else None,
        *(tag("p", line, class_="gm-quiet") for line in _other_layers(report)),
        _failed_html(report),
        next_steps(NEXT),
        label=f"GPU memory recording {report.name}",
    )


def _head_html(report: RecordingReport) -> Html:
    parts = spaced(
        tag("span", "Recording", class_="gm-label"),
        tag("span", report.name, class_="gm-source gm-code"),
        badge("SIMULATED", "warning", "not a real GPU") if report.process.simulated else None,
        badge("DEGRADED", "warning", report.process.degraded) if report.process.degraded else None,
        tag("span", format_duration(report.duration_s), class_="gm-meta", title="from its begin to now, or its end"),
    )
    return tag("div", parts, class_="gm-head")


def _device_html(total: DeviceTotal, report: RecordingReport) -> Html:
    name = f"GPU {total.device.ordinal}  {total.device.name}"
    caption = tag("figcaption", spaced(tag("b", name), tag("span", _device_facts(total))))
    drawn = recording_chart(total, report)
    picture = drawn and timeline_svg(drawn, title=f"Live memory of {name}", description=_device_facts(total))
    return tag("figure", caption, picture or None)


def recording_chart(total: DeviceTotal, report: RecordingReport) -> Chart | None:
    """The layout of one device's picture; None when there is no timeline."""
    if total.timeline is None:
        return None
    return chart(
        total.timeline,
        capacity_bytes=total.device.total_bytes,
        spans=report.marks,
        gaps=gap_seconds(report.gaps, report.begin_ns, report.duration_s),
    )


def _failed_html(report: RecordingReport) -> Html | None:
    if not report.failed:
        return None
    titles = [("Where", "wide"), ("Library", "wrap"), ("Kind", ""), ("Failed", "num")]
    rows = [
        [where_html(row, failures=False), row.library, row.kind, format_count(row.failed_count)]
        for row in report.failed
    ]
    made = data_table(titles, rows, caption="Calls that failed")
    return joined([heading("Calls that failed", "the driver refused them"), made])
