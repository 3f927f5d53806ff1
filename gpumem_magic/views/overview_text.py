"""The dashboard for a terminal: a panel of a given size, and the picture over time in blocks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.bands import BAND_NAMES
from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.overview_words import (
    NEXT,
    NO_GPU,
    NOTHING_YET,
    device_facts,
    device_title,
    is_spiky,
    legend,
    notes,
    since_begin,
    source,
)
from gpumem_magic.views.stacked_chart import device_chart
from gpumem_magic.views.text import (
    WIDTH,
    Column,
    bar,
    levels,
    one_line,
    paragraph,
    shortened,
    side_by_side,
    stacked_bar,
    table,
    text_width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.bands import Bands
    from gpumem_magic.analysis.cell_table import CellRun
    from gpumem_magic.analysis.overview import DeviceOverview, Overview
    from gpumem_magic.views.stacked_chart import StackedChart

HEIGHT = 24
SIGNS = {"other": "░", "base": "▒", "unexplained": "╱", "live": "█", "cached": "▓", "free": "·"}  # noqa: RUF001
"""Each band's sign in a bar, in the order in which they stand."""
_SHORT_LABELS = {"other": "other processes", "base": "base", "unexplained": "not explained", "cached": "cached"}
_SPIKE = "│"
_FULL_UP_TO = 2  # devices that get three lines; of more, each gets one
_ROOM_FOR_LIVE = 96
_MOST_SITES = 5
_MOST_CELLS = 3


def overview_text(overview: Overview, *, width: int = WIDTH) -> str:
    """The panel, and the commands that go on from here."""
    return f"{panel(overview, width, HEIGHT)}\n\nNext: {' · '.join(command for command, _ in NEXT)}\n"


def panel(overview: Overview, width: int, height: int) -> str:
    """The GPUs' memory in at most ``height`` lines of at most ``width`` cells; what matters least is left out first.

    Some ten lines are the least that says anything; a device's line is never left out for a table's.
    """
    head = [_title(overview, width), "─" * width]
    if not overview.devices:
        return "\n".join([*head, *paragraph(NO_GPU, width=width).splitlines()])
    foot = [*_legend(overview, width), *_host(overview, width), *_state(overview, width)]
    devices = _devices(overview, width, max(height - len(head) - len(foot), 1))
    room = height - len(head) - len(foot) - len(devices)
    sites = _sites(overview, width, min(_MOST_SITES, room - 1))
    cells = _cells(overview, width, min(_MOST_CELLS, room - len(sites) - 1))
    return "\n".join(shortened(line.rstrip(), width) for line in [*head, *devices, *foot, *sites, *cells])


def _title(overview: Overview, width: int) -> str:
    process = overview.process
    marks = ["SIMULATED"] if process.simulated else []
    marks += ["DEGRADED"] if process.degraded else ["PAUSED"] if overview.paused else []
    right = "  ".join([*(f"[{mark}]" for mark in marks), since_begin(overview)])
    return side_by_side(f"GPU memory  {source(overview)}", right, width)


# Devices


def _devices(overview: Overview, width: int, room: int) -> list[str]:
    shown = overview.devices
    if len(shown) <= _FULL_UP_TO and 3 * len(shown) <= room:
        return [line for each in shown for line in _full(each, width)]
    hidden = len(shown) - room
    kept = shown if hidden <= 0 else shown[: room - 1]
    more = [f"… and {len(shown) - len(kept)} more GPUs"] if hidden > 0 else []
    return [*_compact(kept, width), *more]


def _full(each: DeviceOverview, width: int) -> list[str]:
    """Name and numbers, what fills it, and how that came about."""
    lines = [_device_title(each, width)]
    if each.bands is None:
        return [*lines, shortened(f"  {NOTHING_YET}", width)]
    cells = width - 4
    window = highest(each.bands, cells)
    drawn = [_bar(each, cells), levels(window, max(*window, 1))]
    return [*lines, *(f"  {line}" for line in drawn if line.strip())]


def _device_title(each: DeviceOverview, width: int) -> str:
    """Its name, and as many of its numbers as have room beside it, the first ones first."""
    facts = device_facts(each)
    while len(facts) > 1 and text_width(", ".join(facts)) > width * 2 // 3:
        facts.pop()
    return side_by_side(device_title(each), ", ".join(facts), width)


def _compact(devices: Sequence[DeviceOverview], width: int) -> list[str]:
    """One line per device: what fills it, numbers, and how that came about."""
    bars, line = width // 5, width // 6
    columns = [
        Column(title="", right=True),
        Column(title=""),
        Column(title="", right=True),
        *([Column(title="", right=True)] if width >= _ROOM_FOR_LIVE else []),
        Column(title="", right=True),
        Column(title=""),
    ]
    rows = []
    for each in devices:
        window = [] if each.bands is None else highest(each.bands, line)
        rows.append(
            [
                str(each.device.ordinal),
                _bar(each, bars),
                _of_total(each),
                *([f"{format_size(each.live_bytes)} live"] if width >= _ROOM_FOR_LIVE else []),
                "" if each.utilization is None else f"{each.utilization:.0f} % busy",
                levels(window, max(window, default=1) or 1),
            ],
        )
    return table(columns, rows, width=width).splitlines()[2:]


def _of_total(each: DeviceOverview) -> str:
    used = each.tracked_bytes if each.used_bytes is None else each.used_bytes
    return (
        f"{format_size(used)} of {format_size(each.device.total_bytes)}"
        if each.device.total_bytes
        else format_size(used)
    )


def _bar(each: DeviceOverview, cells: int) -> str:
    """What fills the device, as parts of its capacity, or of what is known where that is not."""
    parts = [(SIGNS[name], size) for name, size in _parts(each)]
    return stacked_bar(parts, each.device.total_bytes or sum(size for _, size in parts), cells)


def _parts(each: DeviceOverview) -> list[tuple[str, int]]:
    if each.bands is None:
        return [("free", each.device.total_bytes or 0)]
    parts = [(name, int(getattr(each.bands, name)[-1])) for name in BAND_NAMES]
    return [*parts, ("free", max((each.device.total_bytes or 0) - sum(size for _, size in parts), 0))]


def highest(bands: Bands, columns: int) -> list[int]:
    """The highest within each of ``columns`` equal stretches of the bands' time."""
    tops = bands.floor + bands.high
    return [int(tops[rows].max()) for rows in _rows_of_columns(_times(bands), columns)]


def _times(bands: Bands) -> np.ndarray:
    return np.append(bands.begin_ns, bands.end_ns[-1:]).astype(np.float64)


def _rows_of_columns(edges: np.ndarray, columns: int) -> list[slice]:
    """Per column the rows that reach into it, at least one; row i reaches from edges[i] to edges[i + 1]."""
    cuts = np.linspace(edges[0], edges[-1], columns + 1)
    first = np.clip(np.searchsorted(edges, cuts[:-1], side="right") - 1, 0, len(edges) - 2)
    past = np.maximum(np.searchsorted(edges[:-1], cuts[1:], side="left"), first + 1)
    past[-1] = len(edges) - 1
    return [slice(low, high) for low, high in zip(first.tolist(), past.tolist(), strict=True)]


# What is below the devices


def _legend(overview: Overview, width: int) -> list[str]:
    """The signs with their sums, in as many lines as it takes; a sign and its number stay together."""
    items = [
        f"{SIGNS[name]} {_SHORT_LABELS.get(name, label)} {format_size(size)}"
        for name, label, size, _ in legend(overview)
    ]
    lines = [""]
    for item in items:
        if lines[-1] and text_width(lines[-1]) + text_width(item) + 3 > width:
            lines.append("")
        lines[-1] += f"{'   ' if lines[-1] else ''}{item}"
    return lines


def _host(overview: Overview, width: int) -> list[str]:
    host = overview.host
    if host is None:
        return []
    heaps = "" if host.anonymous_bytes is None else f", heaps {format_size(host.anonymous_bytes)}"
    facts = f"Host memory {format_size(host.now_bytes)} resident{heaps}  "
    edges = np.append(host.begin_ns, host.end_ns[-1:]).astype(np.float64)
    columns = max(min(width - text_width(facts), width // 3), 1)
    values = [int(host.highest[rows].max()) for rows in _rows_of_columns(edges, columns)]
    return [side_by_side(facts, levels(values, max(*values, 1)), width)]


def _state(overview: Overview, width: int, most: int = 3) -> list[str]:
    """What a reader must know, the gravest first, a line each."""
    return [
        shortened(one_line(f"{'i' if grade == 'info' else '!'} {text}"), width)
        for text, grade in notes(overview)[:most]
    ]


def _sites(overview: Overview, width: int, most: int) -> list[str]:
    if most < 1 or not overview.sites:
        return []
    several = len(overview.devices) > 1
    rows = overview.sites[:most]
    largest = rows[0].live_bytes
    columns = [
        Column(title="", right=True),
        Column(title=""),
        Column(title="", right=True),
        *([Column(title="")] if several else []),
        Column(title="", gives=True, middle=True, least=16),
        Column(title="", gives=True, least=6),
    ]
    cells = [
        [
            format_size(row.live_bytes),
            bar(row.live_bytes, largest, 6),
            f"{format_count(row.live_count)} ×",  # noqa: RUF001  (the sign that is meant)
            *([f"GPU {row.device}"] if several else []),
            row.where,
            row.library,
        ]
        for row in rows
    ]
    return [_sites_title(overview, len(rows)), *table(columns, cells, width=width, indent="  ").splitlines()[2:]]


def _sites_title(overview: Overview, shown: int) -> str:
    """Of how many rows these are the largest."""
    in_all = len(overview.sites) + overview.hidden_sites
    return "Who holds it" if shown == in_all else f"Who holds it, the largest {shown} of {format_count(in_all)}"


def _cells(overview: Overview, width: int, most: int) -> list[str]:
    runs = overview.cells.runs
    if most < 1 or not runs:
        return []
    columns = [
        Column(title=""),
        Column(title="", gives=True, least=10),
        *(Column(title="", right=True) for _ in range(4)),
        Column(title="", gives=True, least=6),
    ]
    rows = [_run(run) for run in runs[-most:]]
    title = "Cells" if len(runs) <= most else f"Cells, the latest {most} of {format_count(len(runs))}"
    return [title, *table(columns, rows, width=width, indent="  ").splitlines()[2:]]


def _run(run: CellRun) -> list[str]:
    return [
        run.cell.label,
        run.cell.first_line,
        format_duration(run.duration_s),
        format_size(run.delta_bytes, signed=True),
        f"peak {format_size(run.peak_bytes)}",
        f"held {format_size(run.held_bytes)}",
        run.cell.error or ("running" if run.cell.is_running else ""),
    ]


# The picture over time

_LEFT = 10  # room for the numbers of the vertical axis
_CHART_HEIGHTS = ((1, 14), (2, 10), (4, 7), (255, 5))


def timeline_text(overview: Overview, *, width: int = WIDTH) -> str:
    """Every device's picture in blocks, on one clock."""
    parts = [f"{_title(overview, width)}\n{'─' * width}"]
    if not overview.devices:
        parts.append(paragraph(NO_GPU, width=width))
    height = next(height for most, height in _CHART_HEIGHTS if len(overview.devices) <= most)
    parts += [
        _device_chart(
            each, overview, width, height, axis=len(overview.devices) <= _FULL_UP_TO or each is overview.devices[-1]
        )
        for each in overview.devices
    ]
    if overview.devices:
        parts.append("\n".join([*_legend(overview, width), *_spike_legend(overview), *_host(overview, width)]))
    parts.append("\n".join(_notes(overview, width)))
    parts.append(f"Next: {' · '.join(command for command, _ in NEXT[1:])}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _notes(overview: Overview, width: int) -> list[str]:
    return [
        paragraph(text, width=width, first="i " if grade == "info" else "! ", rest="  ")
        for text, grade in notes(overview)
    ]


def _spike_legend(overview: Overview) -> list[str]:
    return [f"{_SPIKE} highest between two samples"] if is_spiky(overview) else []


def _device_chart(each: DeviceOverview, overview: Overview, width: int, height: int, *, axis: bool) -> str:
    title = _device_title(each, width)
    chart = device_chart(each, overview, height=height, axis=axis)
    if chart is None:
        return f"{title}\n{shortened(f'  {NOTHING_YET}', width)}"
    columns = max(width - _LEFT - 2, 10)
    rows = [_flags(chart, columns)] if chart.flags else []
    rows += block_chart(chart, columns, height)
    rows += _time_axis(chart, columns)[: None if axis else 1]
    return "\n".join(shortened(line.rstrip(), width) for line in [title, *rows])


def block_chart(chart: StackedChart, columns: int, height: int) -> list[str]:
    """The bands in ``height`` lines of ``columns`` cells, the vertical axis to their left."""
    cuts = np.linspace(0, 1, columns + 1)
    drawn = [_column(chart, low, high, height) for low, high in itertools.pairwise(cuts.tolist())]
    labels = {min(int(tick.at * height), height - 1): tick.label for tick in chart.y_ticks}
    lines = []
    for level in range(height - 1, -1, -1):
        label = labels.get(level, "")
        lines.append(f"{label:>{_LEFT}} {'┤' if label else '│'}{''.join(column[level] for column in drawn)}")
    return lines


def _column(chart: StackedChart, low: float, high: float, height: int) -> list[str]:
    """The signs of one column, from the bottom up: the row that reaches highest in it."""
    first = int(np.searchsorted(chart.x, low, side="right")) - 1
    past = int(np.searchsorted(chart.x, high, side="left"))
    first, past = max(first, 0), min(past, len(chart.x) - 1)
    if past <= first or not chart.layers:
        return [" "] * height  # before its first sample, or nothing at all on the device
    tops = np.array([layer.top[first:past] for layer in chart.layers])
    peaks = tops[-1] if chart.high is None else chart.high[first:past]
    row = int(np.argmax(peaks))
    return _signs(chart, tops[:, row] * height, float(peaks[row]) * height, height)


def _signs(chart: StackedChart, tops: np.ndarray, peak: float, height: int) -> list[str]:
    signs = []
    for level in range(height):
        place = int(np.searchsorted(tops, level + 0.5, side="right"))
        if place < len(tops):
            signs.append(SIGNS[chart.layers[place].name])
        elif level == 0 and tops[-1] > 0:
            signs.append(levels([float(tops[-1])], 1.0))
        else:
            signs.append(_SPIKE if peak >= level + 0.5 else " ")
    return signs


def _flags(chart: StackedChart, columns: int) -> str:
    line = [" "] * columns
    for flag in chart.flags:
        sign = "◆" if flag.is_mark else "×"  # noqa: RUF001  (the sign that is meant)
        line[min(int(flag.at * columns), columns - 1)] = sign
    return " " * (_LEFT + 2) + "".join(line)


def _time_axis(chart: StackedChart, columns: int) -> list[str]:
    """The axis, its times, and the cells where they ran; a gap is a line of question marks."""
    axis, times, cells = ["─"] * columns, [" "] * columns, [" "] * columns
    for tick in chart.x_ticks:
        at = min(round(tick.at * columns), columns - 1)
        axis[at] = "┴"
        _write(times, min(max(at - len(tick.label) // 2, 0), columns - len(tick.label)), tick.label)
    for gap in chart.gaps:
        for at in range(int(gap.begin * columns), max(int(gap.end * columns), int(gap.begin * columns) + 1)):
            axis[min(at, columns - 1)] = "?"
    for span in chart.spans:
        begin, end = int(span.begin * columns), int(span.end * columns)
        for at in range(begin, min(end, columns)):
            cells[at] = "═" if at > begin else "╞"
        shown = next((text for text in (span.label, span.short) if len(one_line(text)) <= end - begin - 2), "")
        _write(cells, begin + 1, one_line(shown))
    found = [" " * _LEFT + " └" + "".join(axis), " " * (_LEFT + 2) + "".join(times)]
    return [*found, " " * (_LEFT + 2) + "".join(cells)] if chart.spans else found


def _write(line: list[str], at: int, text: str) -> None:
    """Put ``text`` into ``line`` where it has room and nothing else is said."""
    end = at + len(text)
    if end <= len(line) and not any(char.isalnum() for char in line[max(at - 1, 0) : end + 1]):
        line[at:end] = text
