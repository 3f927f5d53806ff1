"""What ``%gpumem`` leaves in a saved notebook, and ``%gpumem timeline``: the GPUs' memory as a still picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.device_history import decimated
from gpumem_magic.analysis.frames import short_path
from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.allocators import where_html
from gpumem_magic.views.cell_report import heading
from gpumem_magic.views.cell_table import runs_html
from gpumem_magic.views.html import Html, answer, badge, data_table, measure, next_steps, note, spaced, tag
from gpumem_magic.views.overview_text import overview_text, timeline_text
from gpumem_magic.views.overview_words import (
    LONGEST,
    NEXT,
    NO_GPU,
    NOTHING_YET,
    device_facts,
    device_title,
    hidden_sites,
    is_spiky,
    legend,
    notes,
    short,
    source,
    when,
)
from gpumem_magic.views.stacked_chart import device_chart, host_chart
from gpumem_magic.views.stacked_svg import busy_svg, stacked_svg
from gpumem_magic.views.text import WIDTH, without_middle

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumem_magic.analysis.allocators import Allocator
    from gpumem_magic.analysis.overview import DeviceOverview, Overview
    from gpumem_magic.model.snapshot import Cell
    from gpumem_magic.views.stacked_chart import StackedChart

MOST_CHARACTERS = 140_000
"""A saved notebook has to stay light."""
MOST_DEVICES = 16
"""Pictures in one answer; the devices that are left out are named."""
_HEIGHTS = ((1, 168), (2, 140), (4, 104), (MOST_DEVICES, 72))
_TIMELINE_HEIGHTS = ((1, 260), (2, 200), (4, 140), (MOST_DEVICES, 96))
"""Height of a device's plot, by how many there are."""
_HOST_HEIGHT = 56
_AXES_UP_TO = 2  # devices; of more, only the last one has an axis
_BUSY_UP_TO = 4
_LATEST_CELLS = 8
_DETAILS = ((12, 1200), (6, 480), (3, 240), (0, 80))  # frames of a stack and rows of a picture, from fine to coarse
_LONGEST_FRAME = 56
_FLAGS_SAID = 3


def render_overview(overview: Overview, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": overview_text(overview, width=width), "text/html": overview_html(overview)}


def render_timeline(overview: Overview, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle of the pictures over time alone, larger."""
    return {"text/plain": timeline_text(overview, width=width), "text/html": timeline_html(overview)}


def overview_html(overview: Overview) -> str:
    """The dashboard as a fragment of HTML that needs nothing else; with less detail where it would be too large."""
    return _light_enough(overview, _overview_html)


def _overview_html(overview: Overview, frames: int) -> str:
    return answer(
        *_top_html(overview, "GPU memory"),
        *_pictures_html(overview, _HEIGHTS),
        *_sites_html(overview, frames),
        *_cells_html(overview),
        _meanings_html(overview),
        next_steps(NEXT),
        label="GPU memory",
    )


def timeline_html(overview: Overview) -> str:
    """The pictures over time as a fragment of HTML."""
    return _light_enough(overview, _timeline_html)


def _light_enough(overview: Overview, render: Callable[[Overview, int], str]) -> str:
    """What ``render`` makes of the overview and a depth of stacks, with as much detail as the size of a page allows."""
    made = ""
    for frames, points in _DETAILS:
        made = render(_thinned(overview, points), frames)
        if len(made) <= MOST_CHARACTERS:
            break
    return made


def _thinned(overview: Overview, points: int) -> Overview:
    devices = tuple(
        dataclasses.replace(each, bands=None if each.bands is None else decimated(each.bands, points))
        for each in overview.devices
    )
    return dataclasses.replace(overview, devices=devices)


def _timeline_html(overview: Overview, _frames: int) -> str:
    return answer(
        *_top_html(overview, "GPU memory over time"),
        *_pictures_html(overview, _TIMELINE_HEIGHTS),
        _meanings_html(overview),
        next_steps(NEXT[1:]),
        label="GPU memory over time",
    )


# Head


def _top_html(overview: Overview, title: str) -> list[Html]:
    if not overview.devices:
        return [_head_html(overview, title), *_notes_html(overview), tag("p", NO_GPU, class_="gm-quiet")]
    return [_head_html(overview, title), _legend_html(overview), *_notes_html(overview)]


def _head_html(overview: Overview, title: str) -> Html:
    process = overview.process
    parts = spaced(
        tag("span", title, class_="gm-label"),
        tag("span", source(overview), class_="gm-source"),
        badge("SIMULATED", "warning", "not a real GPU") if process.simulated else None,
        badge("DEGRADED", "warning", short(process.degraded)) if process.degraded else None,
        badge("PAUSED", "warning", short(overview.paused)) if overview.paused and not process.degraded else None,
        tag("span", when(overview), class_="gm-meta"),
    )
    return tag("div", parts, class_="gm-head")


def _legend_html(overview: Overview) -> Html:
    """What the colours stand for, each with its sum over the devices now, and how full they are."""
    items = [_item(name, label, size, hint) for name, label, size, hint in legend(overview)]
    return tag("div", *items, class_="gm-legend", role="group", aria_label="Memory now, by what it is")


def _item(name: str, label: str, size: int, hint: str) -> Html:
    swatch = tag("span", class_=f"gm-swatch gm-sw-{name}", aria_hidden="true")
    return tag(
        "div",
        spaced(tag("span", spaced(swatch, label), class_="gm-name"), tag("b", format_size(size))),
        class_="gm-item",
        title=hint,
    )


def _meanings_html(overview: Overview) -> Html | None:
    """What the bands are, in sentences: for those who have no pointer to rest on the legend."""
    meanings = [tag("li", tag("b", label), f": {hint}.") for _, label, _, hint in legend(overview)]
    if not overview.devices:
        return None
    if is_spiky(overview):
        meanings.append(tag("li", tag("b", "pale, above them"), ": how high it went between two samples."))
    return tag("details", tag("summary", "What the colours stand for"), tag("ol", *meanings), class_="gm-meanings")


def _notes_html(overview: Overview) -> list[Html]:
    return [note(short(text), severity) for text, severity in notes(overview)]


# Pictures


def _pictures_html(overview: Overview, heights: tuple[tuple[int, int], ...]) -> list[Html]:
    shown = overview.devices[:MOST_DEVICES]
    height = next((height for most, height in heights if len(shown) <= most), heights[-1][1])
    made = [_device_html(each, overview, height, axis=len(shown) <= _AXES_UP_TO or each is shown[-1]) for each in shown]
    left_out = overview.devices[MOST_DEVICES:]
    if left_out:
        names = ", ".join(str(each.device.ordinal) for each in left_out)
        made.append(tag("p", f"Not shown: GPU {names}. %gpumem timeline --devices shows them.", class_="gm-quiet"))
    return [*made, *_host_html(overview)]


def _device_html(each: DeviceOverview, overview: Overview, height: int, *, axis: bool) -> Html:
    title = device_title(each)
    facts = device_facts(each)
    caption = tag("figcaption", spaced(tag("b", title), *(tag("span", fact) for fact in facts)))
    chart = device_chart(each, overview, height=height, axis=axis)
    if chart is None:
        return tag("figure", caption, tag("p", NOTHING_YET, class_="gm-quiet"))
    picture = stacked_svg(chart, title=f"Memory of {title}", description=_description(each, overview, chart))
    return tag("figure", caption, _busy_html(each, chart.x, title, len(overview.devices)), picture, class_="gm-device")


def _description(each: DeviceOverview, overview: Overview, chart: StackedChart) -> str:
    """The picture in words, for those who do not see it."""
    said = [
        f"The last {format_duration(overview.duration_s)}",
        f"now {', '.join(device_facts(each))}",
        f"highest {format_size(each.highest_bytes)}",
        *(flag.hint for flag in chart.flags[-_FLAGS_SAID:] if len(overview.devices) <= _AXES_UP_TO),
    ]
    return f"{'; '.join(said)}."


def _busy_html(each: DeviceOverview, x: np.ndarray, title: str, devices: int) -> Html | None:
    if each.bands is None or devices > _BUSY_UP_TO or np.isnan(each.bands.utilization).all():
        return None
    now = "unknown" if each.utilization is None else f"{each.utilization:.0f} %"
    return busy_svg(x, each.bands.utilization / 100, label=f"Share of time in which {title} ran kernels, now {now}")


def _host_html(overview: Overview) -> list[Html]:
    host = overview.host
    if host is None:
        return []
    facts = [f"{format_size(host.now_bytes)} resident"]
    if host.anonymous_bytes is not None:
        facts.append(f"{format_size(host.anonymous_bytes)} of it heaps of Python and native code")
    facts.append(f"at most {format_size(int(host.highest.max()))}")
    caption = tag("figcaption", spaced(tag("b", "Host memory of this process"), *(tag("span", fact) for fact in facts)))
    chart = host_chart(host, overview, height=_HOST_HEIGHT)
    picture = stacked_svg(chart, title="Host memory of this process", description=f"{', '.join(facts)}.")
    return [tag("figure", caption, picture, class_="gm-host")]


# Tables


def _sites_html(overview: Overview, frames: int) -> list[Html]:
    if not overview.devices:
        return []
    title = heading("Who holds it", "live allocations by the line that made them; open a row for its stack")
    if not overview.sites:
        return [title, tag("p", "Nothing that was seen to be allocated is live.", class_="gm-quiet")]
    several = len(overview.devices) > 1
    titles = [
        ("Where", "wide"),
        *([("GPU", "num")] if several else []),
        ("Library", "wrap"),
        ("Count", "num"),
        ("Live", "num bars"),
    ]
    largest = overview.sites[0].live_bytes
    rows = [
        [
            where_html(_trimmed(row, frames), failures=False),
            *([str(row.device)] if several else []),
            short(row.library) or tag("span", "unknown", class_="gm-sub"),
            format_count(row.live_count),
            measure(format_size(row.live_bytes), row.live_bytes, largest),
        ]
        for row in overview.sites
    ]
    table = data_table(titles, rows, caption="Who holds device memory")
    return [title, table, *([tag("p", hidden_sites(overview), class_="gm-quiet")] if overview.hidden_sites else [])]


def _trimmed(row: Allocator, frames: int) -> Allocator:
    """``row`` with names and a stack of a length that a page can take."""
    stack = row.stack[:frames]
    return dataclasses.replace(
        row,
        where=without_middle(row.where, LONGEST),
        frames=tuple(without_middle(label, _LONGEST_FRAME) for label in row.frames[:frames]),
        stack=tuple(
            dataclasses.replace(frame, filename=without_middle(short_path(frame.filename), _LONGEST_FRAME))
            for frame in stack
        ),
    )


def _cells_html(overview: Overview) -> list[Html]:
    runs = overview.cells.runs
    if not runs:
        return []
    latest = [dataclasses.replace(run, cell=_trimmed_cell(run.cell)) for run in runs[-_LATEST_CELLS:]]
    earlier = len(runs) - len(latest)
    return [
        heading("Latest cells", "delta: at the end minus at the start; held: allocated inside and still live"),
        runs_html(dataclasses.replace(overview.cells, runs=tuple(latest))),
        *([tag("p", f"… and {format_count(earlier)} before them", class_="gm-quiet")] if earlier else []),
    ]


def _trimmed_cell(cell: Cell) -> Cell:
    return dataclasses.replace(
        cell, label=short(cell.label), first_line=short(cell.first_line), error=short(cell.error)
    )
