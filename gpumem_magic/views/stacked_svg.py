"""A stacked timeline as SVG. Bands are silhouettes, the highest first, so that each is one short path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.device_history import means
from gpumem_magic.views.html import Html, tag
from gpumem_magic.views.svg import HEAD, percent, picture, pixels, step_path, stretched, thousandths
from gpumem_magic.views.theme import LIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.views.chart import Band
    from gpumem_magic.views.stacked_chart import Flag, StackedChart

_HATCH = 13.0
"""Thousandths of the width from one line of the hatching to the next."""
_HATCH_COLUMNS = 500
_PIXELS_A_THOUSANDTH = 0.8  # in a page of usual width; decides how the hatching slants
_THINNEST_HATCHED = 2.0  # pixels
BUSY_HEIGHT = 16

_COLOURS = {"anonymous": ("held-soft", "held"), "resident": ("line", "muted")}


def stacked_svg(chart: StackedChart, *, title: str, description: str) -> Html:
    """A picture of ``chart``, with classes of the style sheet and light colours where there is none."""
    paths = [_silhouette(chart, layer.name, layer.top) for layer in reversed(chart.layers)]
    if chart.high is not None:
        paths.insert(0, _silhouette(chart, "high", chart.high))
    return picture(
        chart,
        _shades(chart),
        [stretched(chart, *paths, *_hatching(chart)), *(_flag(flag, chart.height) for flag in chart.flags)],
        title=title,
        description=description,
    )


def colours(name: str) -> tuple[str, str]:
    """The colours of a band, as names of the palette: its area and its edge."""
    return _COLOURS.get(name, (f"band-{name}", f"edge-{name}"))


def _silhouette(chart: StackedChart, name: str, top: np.ndarray) -> Html:
    """Everything from the ground up to the top of a band; what lies below is drawn over it."""
    area, edge = colours(name)
    x = [thousandths(each) for each in chart.x.tolist()]
    y = [pixels(each, chart.height) for each in top.tolist()]
    ground = pixels(0, chart.height)
    # A row's value holds from its begin to the next one's.
    path = f"M{x[0]} {ground}L{step_path(x, [*y, y[-1]])[1:]}V{ground}"
    return tag(
        "path",
        d=path,
        class_=f"gm-b-{name}",
        fill=LIGHT[area],
        stroke=LIGHT[edge],
        stroke_width=1,
        vector_effect="non-scaling-stroke",
        stroke_linejoin="round",
    )


def _shades(chart: StackedChart) -> list[Html]:
    """Cells as stretches behind the bands."""
    path = "".join(
        f"M{thousandths(span.begin)} 0H{thousandths(span.end)}V{chart.height}H{thousandths(span.begin)}Z"
        for span in _drawn(chart.shades)
    )
    return [stretched(chart, tag("path", d=path, class_="gm-shade", fill=LIGHT["soft"]))] if path else []


def _drawn(spans: Sequence[Band]) -> list[Band]:
    return [span for span in spans if span.end > span.begin]


def _hatching(chart: StackedChart) -> list[Html]:
    """Slanted lines over what is not explained, for those who do not tell its colour apart."""
    names = [layer.name for layer in chart.layers]
    if "unexplained" not in names:
        return []
    place = names.index("unexplained")
    top = chart.layers[place].top
    bottom = chart.layers[place - 1].top if place else np.zeros_like(top)
    lines = "".join(_hatches(chart, bottom, top))
    if not lines:
        return []
    stroke = {"stroke": LIGHT["edge-unexplained"], "stroke_width": 1, "vector_effect": "non-scaling-stroke"}
    return [tag("path", d=lines, class_="gm-hatch", fill="none", **stroke)]


def _hatches(chart: StackedChart, bottom: np.ndarray, top: np.ndarray) -> list[str]:
    """The pieces of slanted lines that lie between ``bottom`` and ``top``."""
    columns = np.linspace(chart.x[0], chart.x[-1], _HATCH_COLUMNS)
    row = np.clip(np.searchsorted(chart.x, columns, side="right") - 1, 0, len(top) - 1)
    low, high = chart.height * bottom[row], chart.height * top[row]
    high = np.where(high - low >= _THINNEST_HATCHED, high, low)
    across = 1000 * columns
    slant = chart.height / _PIXELS_A_THOUSANDTH  # of a line from the ground to the top
    found = []
    for start in np.arange(across[0] - slant, across[-1], _HATCH).tolist():
        up = (across - start) * _PIXELS_A_THOUSANDTH  # pixels above the ground
        inside = np.concatenate(([False], (up > low) & (up < high), [False]))
        ends = np.flatnonzero(np.diff(inside.astype(np.int8)))
        found += [
            _piece(across[first], across[past - 1], start, chart.height)
            for first, past in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True)
        ]
    return found


def _piece(left: float, right: float, start: float, height: int) -> str:
    y = [height - (x - start) * _PIXELS_A_THOUSANDTH for x in (left, right)]
    return f"M{left:.0f} {y[0]:.1f}L{right:.0f} {y[1]:.1f}"


def _flag(flag: Flag, height: int) -> Html:
    """A line and a sign at its foot, where no label is; both tell more to a pointer that rests on them."""
    x = percent(flag.at)
    if flag.is_mark:
        return tag(
            "g",
            tag("title", flag.hint),
            tag("line", x1=x, x2=x, y1=HEAD, y2=HEAD + height, stroke=LIGHT["fg"]),
            tag("text", "◆", x=x, y=HEAD + 8, text_anchor="middle", fill=LIGHT["fg"], font_size=11),
            class_="gm-mark-flag",
        )
    return tag(
        "g",
        tag("title", flag.hint),
        tag("line", x1=x, x2=x, y1=HEAD, y2=HEAD + height, stroke=LIGHT["error-fg"], stroke_dasharray="2 3"),
        tag("circle", cx=x, cy=HEAD + height - 7, r=6, fill=LIGHT["error-fg"], class_="gm-sign"),
        tag("text", "×", x=x, y=HEAD + height - 3, text_anchor="middle", fill="#ffffff", font_size=11),  # noqa: RUF001
        class_="gm-flag",
    )


def busy_svg(x: np.ndarray, share: np.ndarray, *, label: str) -> Html:
    """A strip that shows how busy a device was: ``share`` from 0 to 1 from x[i] to x[i + 1], NaN where unknown."""
    columns = np.linspace(0, 1, _BUSY_COLUMNS + 1)
    heights = np.clip(np.nan_to_num(means(x, share, columns), nan=0.0), 0, 1)
    ground = str(BUSY_HEIGHT)
    steps = "".join(
        f"V{pixels(height, BUSY_HEIGHT)}H{thousandths(end)}"
        for height, end in zip(heights.tolist(), columns[1:].tolist(), strict=True)
    )
    return tag(
        "svg",
        tag("title", label),
        tag("text", "busy", x="-8", y=BUSY_HEIGHT - 4, text_anchor="end", fill=LIGHT["muted"], font_size=11),
        tag(
            "svg",
            tag("rect", x=0, y=0, width=1000, height=BUSY_HEIGHT, class_="gm-busy-ground", fill=LIGHT["soft"]),
            tag("path", d=f"M0 {ground}{steps}V{ground}Z", class_="gm-busy", fill=LIGHT["muted"]),
            x="0",
            y="0",
            width="100%",
            height=BUSY_HEIGHT,
            viewBox=f"0 0 1000 {BUSY_HEIGHT}",
            preserveAspectRatio="none",
        ),
        class_="gm-plot",
        role="img",
        width="100%",
        height=BUSY_HEIGHT,
        aria_label=label,
        xmlns="http://www.w3.org/2000/svg",
    )


_BUSY_COLUMNS = 160
