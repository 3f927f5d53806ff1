"""The geometry of a timeline picture, in fractions of its plot: shared by SVG and PNG."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from gpumem_magic.analysis.cell_report import SpanMark
    from gpumem_magic.analysis.timelines import Timeline

PLOT_HEIGHT = 132
_BYTE_STEPS = (0.1, 0.2, 0.25, 0.5, 1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 200, 250, 256)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_CLOSE_TO_CAPACITY = 0.6
"""From this share of the device on the picture reaches up to its capacity; below, it would flatten the curve."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A place on an axis, 0 to 1, and what it says."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A named stretch of the time axis."""

    begin: float
    end: float
    label: str
    short: str = ""  # stands for the label where there is little room
    hint: str = ""  # what a pointer that rests on it is told; the label when empty


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What every picture has around what it shows; x and y from 0 to 1 (y upwards)."""

    height: int = PLOT_HEIGHT  # of the plot itself, in pixels
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    peak: Tick  # where the peak is in time
    peak_y: float
    capacity_y: float | None  # None when the capacity is not in the picture
    spans: tuple[Band, ...]
    gaps: tuple[Band, ...]
    gap_words_y: float = 0.0  # how far up a gap says that it is one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chart(Plot):
    """One step function."""

    x: np.ndarray  # of the step function's points
    y: np.ndarray


def chart(
    line: Timeline,
    *,
    capacity_bytes: int | None = None,
    spans: Sequence[SpanMark] = (),
    gaps: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Lay out ``line``.

    Args:
        line: the step function.
        capacity_bytes: of the device; shown when the peak comes near it.
        spans: named stretches to mark below the curve.
        gaps: (begin, end) in seconds of stretches in which calls were not seen.
    """
    top, near = reach(line.peak_bytes, capacity_bytes)
    duration = max(line.duration_s, 1e-9)
    return Chart(
        x=line.seconds / duration,
        y=line.live_bytes / top,
        x_ticks=time_ticks(0.0, duration),
        y_ticks=byte_ticks(top),
        peak=Tick(
            at=line.peak_s / duration,
            label=f"peak {format_size(line.peak_bytes)} at {format_duration(line.peak_s)}",
        ),
        peak_y=line.peak_bytes / top,
        capacity_y=capacity_bytes / top if near and capacity_bytes else None,
        spans=tuple(_band(mark.begin_s, mark.end_s, mark.label, duration) for mark in spans),
        gaps=tuple(_band(begin, end, "gap", duration) for begin, end in gaps),
    )


def reach(peak_bytes: int, capacity_bytes: int | None) -> tuple[float, bool]:
    """How many bytes a picture reaches up to, at least 1, and whether the capacity is in it."""
    near = bool(capacity_bytes) and peak_bytes >= _CLOSE_TO_CAPACITY * (capacity_bytes or 0)
    return max(max(peak_bytes, capacity_bytes or 0) * 1.02 if near else peak_bytes * 1.12, 1.0), near


def _band(begin: float, end: float, label: str, duration: float) -> Band:
    return Band(begin=min(max(begin / duration, 0), 1), end=min(max(end / duration, 0), 1), label=label)


def time_ticks(begin: float, end: float, most: int = 6) -> tuple[Tick, ...]:
    """At most ``most`` + 1 round times from ``begin`` to ``end`` (seconds)."""
    duration = end - begin
    step = nice_step(duration / most)
    first, last = math.ceil(begin / step - 1e-6), int(end / step + 1e-6)
    return tuple(
        Tick(at=min(max((n * step - begin) / duration, 0.0), 1.0), label=_round_time(n * step) if n else "0")
        for n in range(first, last + 1)
    )


def _round_time(seconds: float) -> str:
    """``2 min`` rather than ``2 min 0 s``."""
    return format_duration(seconds).removesuffix(" 0 s").removesuffix(" 0 min")


_LONG_STEPS = (10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``; above 10 s parts of minutes and days."""
    for step in _LONG_STEPS if least > _LONG_STEPS[0] else ():
        if step >= least:
            return float(step)
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def byte_ticks(top: float, most: int = 4) -> tuple[Tick, ...]:
    """At most ``most`` round numbers above 0, all in the same unit."""
    unit = min(max(math.floor(math.log(max(top, 1.0), 1024)), 0), len(_UNITS) - 1)
    scaled = top / 1024.0**unit
    steps = [step for step in _BYTE_STEPS if scaled / step < most + 1 and (unit or step >= 1)]
    step = steps[0] if steps else 2.0 ** math.ceil(math.log2(scaled / most))
    return tuple(
        Tick(at=n * step / scaled, label=f"{n * step:g} {_UNITS[unit]}" if n else "0")
        for n in range(int(scaled / step) + 1)
    )
