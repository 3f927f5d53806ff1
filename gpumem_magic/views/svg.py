"""Timelines as SVG that fits any width: positions are percentages, so text keeps its size in a narrow page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.views.html import Html, joined, tag
from gpumem_magic.views.theme import LIGHT

if TYPE_CHECKING:
    import numpy as np

    from gpumem_magic.views.chart import Band, Chart, Tick

PLOT_HEIGHT = 132
_HEAD = 18  # room for the peak's label
_BAND = 17  # room for one row of named stretches
_FOOT = 20  # room for the time axis


def timeline_svg(chart: Chart, *, title: str, description: str) -> Html:
    """A picture of ``chart``.

    Colours are classes of the style sheet, with light ones as attributes for where there is no style sheet.
    """
    bands = _BAND if chart.spans else 0
    height = _HEAD + PLOT_HEIGHT + bands + _FOOT
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *(_y_tick(tick) for tick in chart.y_ticks),
        _curve(chart),
        *_gaps(chart.gaps),
        *_capacity(chart),
        *_spans(chart.spans),
        *_x_axis(chart.x_ticks, _HEAD + PLOT_HEIGHT + bands),
        *_peak(chart),
        class_="gm-plot",
        role="img",
        width="100%",
        height=height,
        aria_label=f"{title}. {description}",
        xmlns="http://www.w3.org/2000/svg",
    )


def _percent(at: float) -> str:
    return f"{100 * at:.3f}".rstrip("0").rstrip(".") + "%"


def _y(value: float) -> float:
    return round(_HEAD + PLOT_HEIGHT * (1 - value), 2)


def _line(x: tuple[float, float], y: tuple[float, float], class_: str, colour: str, **more: object) -> Html:
    return tag(
        "line",
        x1=_percent(x[0]),
        x2=_percent(x[1]),
        y1=y[0],
        y2=y[1],
        class_=class_,
        stroke=LIGHT[colour],
        shape_rendering="crispEdges",
        **more,
    )


def _text(text: str, x: str, y: float, **more: object) -> Html:
    return tag("text", text, x=x, y=y, **{"fill": LIGHT["muted"], "font_size": 11} | more)


def _y_tick(tick: Tick) -> Html:
    grid = _line((0, 1), (_y(tick.at), _y(tick.at)), "gm-axis" if tick.at == 0 else "gm-grid", "line")
    return joined([grid, _text(tick.label, "-8", _y(tick.at) + 4, text_anchor="end")])


def _x_axis(ticks: tuple[Tick, ...], bottom: float) -> list[Html]:
    made = []
    for tick in ticks:
        made.append(_line((tick.at, tick.at), (bottom, bottom + 4), "gm-axis", "muted"))
        made.append(_text(tick.label, _percent(tick.at), bottom + 16, text_anchor="middle"))
    return made


def _curve(chart: Chart) -> Html:
    """The step and the area under it, drawn in thousandths of the plot and stretched to its width."""
    path = _step_path(chart.x, chart.y)
    return tag(
        "svg",
        tag("path", d=f"{path}V{_units(0)}H{_thousandths(chart.x[0])}Z", class_="gm-area", fill=LIGHT["live-soft"]),
        tag(
            "path",
            d=path,
            class_="gm-step",
            fill="none",
            stroke=LIGHT["live"],
            stroke_width=1.5,
            vector_effect="non-scaling-stroke",
            stroke_linejoin="round",
        ),
        x="0",
        y=_HEAD,
        width="100%",
        height=PLOT_HEIGHT,
        viewBox=f"0 0 1000 {PLOT_HEIGHT}",
        preserveAspectRatio="none",
        overflow="visible",
    )


def _step_path(x: np.ndarray, y: np.ndarray) -> str:
    """``M x y`` and then a horizontal and a vertical line per point; what cannot be seen is left out."""
    parts = [f"M{_thousandths(x[0])} {_units(y[0])}"]
    last_x, last_y = _thousandths(x[0]), _units(y[0])
    for point_x, point_y in zip(x[1:].tolist(), y[1:].tolist(), strict=True):
        new_x, new_y = _thousandths(point_x), _units(point_y)
        if new_x != last_x:
            parts.append(f"H{new_x}")
        if new_y != last_y:
            parts.append(f"V{new_y}")
        last_x, last_y = new_x, new_y
    return "".join(parts)


def _thousandths(value: float) -> str:
    return f"{1000 * value:.1f}".removesuffix(".0")


def _units(value: float) -> str:
    return f"{PLOT_HEIGHT * (1 - value):.1f}".removesuffix(".0")


def _peak(chart: Chart) -> list[Html]:
    at = chart.peak.at
    anchor = "start" if at < 0.2 else "end" if at > 0.8 else "middle"  # noqa: PLR2004  (keeps the label inside)
    shift = {"start": 6, "end": 4, "middle": 0}[anchor]
    return [
        tag("circle", cx=_percent(at), cy=_y(chart.peak_y), r=3.5, class_="gm-peak", fill=LIGHT["peak"]),
        _text(
            chart.peak.label,
            _percent(at),
            _peak_label_y(chart),
            text_anchor=anchor,
            dx=shift,
            class_="gm-peaktext",
            fill=LIGHT["peak"],
        ),
    ]


def _peak_label_y(chart: Chart) -> float:
    """Above the peak, or above the line of the capacity where that would cross it."""
    above = _y(chart.peak_y) - 8
    crossed = chart.capacity_y is not None and above - 14 < _y(chart.capacity_y) < _y(chart.peak_y)
    return _y(chart.capacity_y) - 5 if crossed and chart.capacity_y is not None else above


def _capacity(chart: Chart) -> list[Html]:
    if chart.capacity_y is None:
        return []
    y = _y(chart.capacity_y)
    left = chart.peak.at > 0.5  # noqa: PLR2004  (on the side that the peak's label leaves free)
    return [
        _line((0, 1), (y, y), "gm-capacity", "peak", stroke_dasharray="5 4"),
        _text("capacity", "0%" if left else "100%", y - 5, text_anchor="start" if left else "end"),
    ]


def _gaps(gaps: tuple[Band, ...]) -> list[Html]:
    made = []
    for gap in gaps:
        width = max(gap.end - gap.begin, 0.002)
        made.append(
            tag(
                "rect",
                tag("title", "calls were not seen here"),
                x=_percent(gap.begin),
                y=_HEAD,
                width=_percent(width),
                height=PLOT_HEIGHT,
                class_="gm-gap",
                fill=LIGHT["warning-bg"],
            ),
        )
        if width > 0.09:  # noqa: PLR2004  (room for the words)
            made.append(_text("not seen", _percent(gap.begin), _y(0) - 6, dx=5))
    return made


def _spans(spans: tuple[Band, ...]) -> list[Html]:
    """Named stretches under the curve; a label is shown where its stretch is wide enough for it."""
    made = []
    for span in spans:
        width = max(span.end - span.begin, 0.002)
        made.append(
            tag(
                "rect",
                tag("title", span.label),
                x=_percent(span.begin),
                y=_y(0) + 4,
                width=_percent(width),
                height=_BAND - 3,
                rx=2,
                class_="gm-span",
                fill=LIGHT["line"],
            ),
        )
        made.append(_line((span.begin, span.begin), (_y(0) + 4, _y(0) + _BAND + 1), "gm-axis", "muted"))
        if width > 0.013 * (len(span.label) + 2):  # some 7 px a letter in a plot of 540 px
            made.append(_text(span.label, _percent(span.begin), _y(0) + 15, dx=4))
    return made
