"""Timelines as SVG that fits any width: positions are percentages, so text keeps its size in a narrow page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.views.html import Html, joined, tag
from gpumem_magic.views.theme import LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpumem_magic.views.chart import Band, Chart, Plot, Tick

HEAD = 18
"""Room above the plot for the peak's label, in pixels."""
_LEAST_FOR_WORDS = 100  # pixels; in a lower plot they would be behind the curve or the peak's label
_BAND = 17  # room for one row of named stretches
_FOOT = 20  # room for the time axis


def timeline_svg(chart: Chart, *, title: str, description: str) -> Html:
    """A picture of ``chart``.

    Colours are classes of the style sheet, with light ones as attributes for where there is no style sheet.
    """
    return picture(chart, (), (_curve(chart),), title=title, description=description)


def picture(plot: Plot, under: Iterable[Html], curves: Iterable[Html], *, title: str, description: str) -> Html:
    """``curves`` with all that belongs around them; ``under`` is drawn before everything else."""
    bottom = HEAD + plot.height + (_BAND if plot.spans else 0)
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *under,
        *(_y_tick(plot, tick) for tick in plot.y_ticks),
        *curves,
        *_gaps(plot),
        *_capacity(plot),
        *_spans(plot),
        *_x_axis(plot.x_ticks, bottom),
        *_peak(plot),
        class_="gm-plot",
        role="img",
        width="100%",
        height=bottom + (_FOOT if plot.x_ticks else 0),
        aria_label=f"{title}. {description}",
        xmlns="http://www.w3.org/2000/svg",
    )


def stretched(plot: Plot, *paths: Html) -> Html:
    """Paths in thousandths of the plot's width and pixels of its height, stretched to the width that there is."""
    return tag(
        "svg",
        *paths,
        x="0",
        y=HEAD,
        width="100%",
        height=plot.height,
        viewBox=f"0 0 1000 {plot.height}",
        preserveAspectRatio="none",
        overflow="visible",
    )


def percent(at: float) -> str:
    """A share of the width as SVG has it."""
    return f"{100 * at:.3f}".rstrip("0").rstrip(".") + "%"


def _y(plot: Plot, value: float) -> float:
    return round(HEAD + plot.height * (1 - value), 2)


def _line(x: tuple[float, float], y: tuple[float, float], class_: str, colour: str, **more: object) -> Html:
    return tag(
        "line",
        x1=percent(x[0]),
        x2=percent(x[1]),
        y1=y[0],
        y2=y[1],
        class_=class_,
        stroke=LIGHT[colour],
        shape_rendering="crispEdges",
        **more,
    )


def _text(text: str, x: str, y: float, **more: object) -> Html:
    return tag("text", text, x=x, y=y, **{"fill": LIGHT["muted"], "font_size": 11} | more)


def _y_tick(plot: Plot, tick: Tick) -> Html:
    y = _y(plot, tick.at)
    grid = _line((0, 1), (y, y), "gm-axis" if tick.at == 0 else "gm-grid", "line")
    return joined([grid, _text(tick.label, "-8", y + 4, text_anchor="end")])


def _x_axis(ticks: tuple[Tick, ...], bottom: float) -> list[Html]:
    made = []
    for tick in ticks:
        made.append(_line((tick.at, tick.at), (bottom, bottom + 4), "gm-axis", "muted"))
        made.append(_text(tick.label, percent(tick.at), bottom + 16, text_anchor="middle"))
    return made


def _curve(chart: Chart) -> Html:
    """The step and the area under it, drawn in thousandths of the plot and stretched to its width."""
    path = _step_path(chart)
    area = f"{path}V{chart.height}H{thousandths(chart.x[0])}Z"
    return stretched(
        chart,
        tag("path", d=area, class_="gm-area", fill=LIGHT["live-soft"]),
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
    )


def _step_path(chart: Chart) -> str:
    return step_path([thousandths(x) for x in chart.x.tolist()], [pixels(y, chart.height) for y in chart.y.tolist()])


def step_path(x: Sequence[str], y: Sequence[str]) -> str:
    """``M x y`` and then a horizontal and a vertical line per point; what cannot be seen is left out."""
    parts = [f"M{x[0]} {y[0]}"]
    drawn_x, drawn_y = x[0], y[0]
    for new_x, new_y in zip(x[1:], y[1:], strict=True):
        if new_y != drawn_y:
            parts.append(f"H{new_x}V{new_y}" if new_x != drawn_x else f"V{new_y}")
            drawn_x, drawn_y = new_x, new_y
    return "".join(parts) + (f"H{x[-1]}" if x[-1] != drawn_x else "")


def thousandths(value: float) -> str:
    """A share of the plot's width as a path has it."""
    return f"{1000 * value:.1f}".removesuffix(".0")


def pixels(value: float, height: int) -> str:
    """A share of the plot's height as a path has it, from above."""
    return f"{height * (1 - value):.1f}".removesuffix(".0")


def _peak(plot: Plot) -> list[Html]:
    if not plot.peak.label:
        return []
    at = plot.peak.at
    anchor = "start" if at < 0.2 else "end" if at > 0.8 else "middle"  # noqa: PLR2004  (keeps the label inside)
    shift = {"start": 6, "end": 4, "middle": 0}[anchor]
    return [
        tag("circle", cx=percent(at), cy=_y(plot, plot.peak_y), r=3.5, class_="gm-peak", fill=LIGHT["peak"]),
        _text(
            plot.peak.label,
            percent(at),
            _peak_label_y(plot),
            text_anchor=anchor,
            dx=shift,
            class_="gm-peaktext",
            fill=LIGHT["peak"],
        ),
    ]


def _peak_label_y(plot: Plot) -> float:
    """Above the peak, or above the line of the capacity where that would cross it."""
    above = _y(plot, plot.peak_y) - 8
    crossed = plot.capacity_y is not None and above - 14 < _y(plot, plot.capacity_y) < _y(plot, plot.peak_y)
    return _y(plot, plot.capacity_y) - 5 if crossed and plot.capacity_y is not None else above


def _capacity(plot: Plot) -> list[Html]:
    if plot.capacity_y is None:
        return []
    y = _y(plot, plot.capacity_y)
    left = plot.peak.at > 0.5  # noqa: PLR2004  (on the side that the peak's label leaves free)
    return [
        _line((0, 1), (y, y), "gm-capacity", "peak", stroke_dasharray="5 4"),
        _text("capacity", "0%" if left else "100%", y - 5, text_anchor="start" if left else "end"),
    ]


def _gaps(plot: Plot) -> list[Html]:
    made = []
    for gap in plot.gaps:
        width = max(gap.end - gap.begin, 0.002)
        made.append(
            tag(
                "rect",
                tag("title", gap.hint or "calls were not seen here"),
                x=percent(gap.begin),
                y=HEAD,
                width=percent(width),
                height=plot.height,
                class_="gm-gap",
                fill=LIGHT["warning-bg"],
            ),
        )
        if width > 0.09 and plot.height >= _LEAST_FOR_WORDS:  # noqa: PLR2004  (room for the words)
            made.append(_text("not seen", percent(gap.begin), _y(plot, plot.gap_words_y) - 6, dx=5))
    return made


def _spans(plot: Plot) -> list[Html]:
    """Named stretches under the curve; a label is shown where its stretch is wide enough for it."""
    made = []
    bottom = HEAD + plot.height
    for span in plot.spans:
        width = max(span.end - span.begin, 0.002)
        made.append(
            tag(
                "rect",
                tag("title", span.hint or span.label),
                x=percent(span.begin),
                y=bottom + 4,
                width=percent(width),
                height=_BAND - 3,
                rx=2,
                class_="gm-span",
                fill=LIGHT["line"],
            ),
        )
        made.append(_line((span.begin, span.begin), (bottom + 4, bottom + _BAND + 1), "gm-axis", "muted"))
        if shown := _fitting(span, width):
            made.append(_text(shown, percent(span.begin), bottom + 15, dx=4))
    return made


def _fitting(span: Band, width: float) -> str:
    """What of a stretch's names has room in its share of the width; "" when none has."""
    fits = (text for text in (span.label, span.short) if text and width > 0.013 * (len(text) + 2))
    return next(fits, "")  # some 7 px a letter in a plot of 540 px
