"""The geometry of a stacked picture: what fills a device, or the host, over a window of time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.bands import BAND_NAMES
from gpumem_magic.model.history import UNKNOWN
from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.chart import Band, Plot, Tick, byte_ticks, reach, time_ticks
from gpumem_magic.views.text import shortened

if TYPE_CHECKING:
    from gpumem_magic.analysis.overview import CellMark, DeviceOverview, FailureMark, GapMark, HostOverview, Overview
    from gpumem_magic.model.snapshot import Mark


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One band: how far up it reaches, per row."""

    name: str  # of a band, or "resident" and "anonymous"
    top: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A moment that must not be missed."""

    at: float
    hint: str
    is_mark: bool = False  # set by a person; else a refused call


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StackedChart(Plot):
    """Bands on top of each other. Row i reaches from x[i] to x[i + 1]."""

    x: np.ndarray
    layers: tuple[Layer, ...]  # from the bottom up; those that are nowhere higher than the one below are left out
    high: np.ndarray | None  # how far up it went within a row; None where the bands say so already
    shades: tuple[Band, ...]  # cells, behind everything
    flags: tuple[Flag, ...]


def device_chart(each: DeviceOverview, overview: Overview, *, height: int, axis: bool = True) -> StackedChart | None:
    """The layout of one device's picture; None when nothing is known of it.

    All devices have the same scale, so that they can be compared. ``axis``: with times and the cells' names.
    """
    bands = each.bands
    if bands is None:
        return None
    tops = np.cumsum([getattr(bands, name) for name in BAND_NAMES], axis=0)
    highest = bands.floor + bands.high
    top = max(reach(other.highest_bytes, other.device.total_bytes)[0] for other in overview.devices)
    capacity = (each.device.total_bytes or 0) / top
    at = int(np.argmax(highest))
    x = _edges(bands.begin_ns, bands.end_ns, overview)
    spans = tuple(_cell(mark, overview) for mark in overview.cell_marks)
    return StackedChart(
        height=height,
        x=x,
        layers=_layers(BAND_NAMES, tops, top),
        high=highest / top if (highest > tops[-1]).any() else None,
        x_ticks=_x_ticks(overview) if axis else (),
        y_ticks=byte_ticks(top, most=4 if height > _FEW_TICKS_BELOW else 2),
        peak=Tick(at=float(x[at]), label=_peak(int(highest[at]), int(bands.begin_ns[at]), overview)),
        peak_y=float(highest[at] / top),
        capacity_y=capacity if 0 < capacity <= 1 else None,
        spans=spans if axis else (),
        shades=spans,
        gaps=tuple(_gap(mark, overview) for mark in overview.gaps),
        gap_words_y=1 - 18 / height,  # at the top: below, the bands would be behind them
        flags=_flags(each, overview),
    )


_FEW_TICKS_BELOW = 100
_LONGEST_LABEL = 40
_LONGEST_HINTS = ((2, 56), (255, 20))
"""Characters of names that people chose, by how many devices there are: a page may have hundreds of them."""


def _hint(text: str, overview: Overview) -> str:
    longest = next(longest for most, longest in _LONGEST_HINTS if len(overview.devices) <= most)
    return shortened(text, longest)


def _flags(each: DeviceOverview, overview: Overview) -> tuple[Flag, ...]:
    refused = [Flag(at=_at(mark.begin_ns, overview), hint=failure(mark, overview)) for mark in each.failures]
    marks = [Flag(at=_at(mark.time_ns, overview), hint=_mark(mark, overview), is_mark=True) for mark in overview.marks]
    return tuple(marks + refused)


def host_chart(host: HostOverview, overview: Overview, *, height: int) -> StackedChart:
    """The layout of the host's picture, on the same clock."""
    top, _ = reach(int(host.highest.max()), None)
    anonymous = np.where(host.anonymous == UNKNOWN, 0, host.anonymous)
    return StackedChart(
        height=height,
        x=_edges(host.begin_ns, host.end_ns, overview),
        layers=_layers(("anonymous", "resident"), np.array([anonymous, host.resident]), top),
        high=host.highest / top if (host.highest > host.resident).any() else None,
        x_ticks=_x_ticks(overview),
        y_ticks=byte_ticks(top, most=2),
        peak=Tick(at=0, label=""),
        peak_y=0,
        capacity_y=None,
        spans=(),
        shades=tuple(_cell(mark, overview) for mark in overview.cell_marks),
        gaps=(),
        flags=(),
    )


def _layers(names: tuple[str, ...], tops: np.ndarray, top: float) -> tuple[Layer, ...]:
    below = np.concatenate((np.zeros_like(tops[:1]), tops[:-1]))
    return tuple(
        Layer(name=name, top=mine / top)
        for name, mine, under in zip(names, tops, below, strict=True)
        if (mine > under).any()
    )


def _edges(begin_ns: np.ndarray, end_ns: np.ndarray, overview: Overview) -> np.ndarray:
    times = np.append(begin_ns, end_ns[-1:]).astype(np.int64)
    return np.clip((times - overview.begin_ns) / max(overview.end_ns - overview.begin_ns, 1), 0, 1)


def _at(time_ns: int, overview: Overview) -> float:
    return min(max((time_ns - overview.begin_ns) / max(overview.end_ns - overview.begin_ns, 1), 0.0), 1.0)


def _mark(mark: Mark, overview: Overview) -> str:
    return f"{_hint(mark.name, overview)}, at {_time(mark.time_ns, overview)}"


def _time(time_ns: int, overview: Overview) -> str:
    """Since the recording began."""
    return format_duration(max(overview.seconds(time_ns), 0))


def _x_ticks(overview: Overview) -> tuple[Tick, ...]:
    begin = overview.seconds(overview.begin_ns)
    return time_ticks(begin, begin + max(overview.duration_s, 1e-6))


def _peak(size: int, time_ns: int, overview: Overview) -> str:
    return f"peak {format_size(size)} at {_time(time_ns, overview)}" if size else ""


def _cell(mark: CellMark, overview: Overview) -> Band:
    lasted = format_duration((mark.end_ns - mark.begin_ns) / 1e9)
    what = f"{format_count(mark.count)} cells" if mark.count > 1 else mark.first_line
    return Band(
        begin=_at(mark.begin_ns, overview),
        end=_at(mark.end_ns, overview),
        label=shortened(mark.label, _LONGEST_LABEL),
        short=shortened(mark.number, _LONGEST_LABEL),
        hint=f"{lasted}, {_hint(', '.join(part for part in (mark.label, what) if part), overview)}",
    )


def _gap(mark: GapMark, overview: Overview) -> Band:
    return Band(
        begin=_at(mark.begin_ns, overview),
        end=_at(mark.end_ns, overview),
        label="gap",
        hint=gap(mark, overview, _hint(mark.reason, overview)),
    )


def gap(mark: GapMark, overview: Overview, reason: str) -> str:
    """A gap in words; ``reason`` as far as there is room for it."""
    lasted = format_duration((mark.end_ns - mark.begin_ns) / 1e9)
    times = f" {format_count(mark.count)} times within {lasted}" if mark.count > 1 else f" for {lasted}"
    since = _time(mark.begin_ns, overview)
    return f"calls were not seen{times}, at {since}: {reason or 'reason unknown'}"


def failure(mark: FailureMark, overview: Overview) -> str:
    """A refused call in words."""
    why = ("injected failure" if mark.injected else "out of memory") if mark.out_of_memory else "refused"
    why = "injected failure" if mark.injected else why
    size = f"{format_size(mark.size)} asked for" if mark.size else ""
    calls = f"{format_count(mark.count)} calls, the largest {size}" if mark.count > 1 and size else size
    return ": ".join(part for part in (why, calls) if part) + f", at {_time(mark.begin_ns, overview)}"
