"""Timelines as PNG, for places that show neither SVG nor styles: GitHub's view of a notebook, a mail, a chat.

Drawn with Pillow, which comes with Bokeh and brings a font. Twice the size in points, so that it is sharp.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageColor, ImageDraw, ImageFont

from gpumem_magic.views.cell_report import cell_chart, device_title, numbers
from gpumem_magic.views.text import one_line, shortened
from gpumem_magic.views.theme import LIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from gpumem_magic.analysis.cell_report import CellReport
    from gpumem_magic.views.chart import Chart

_SCALE = 2
_WIDTH = 900
_LEFT, _RIGHT = 76, 24
_TITLE, _CAPTION, _HEAD, _PLOT, _BAND, _FOOT = 34, 22, 20, 132, 18, 26
_BACKGROUND = "#ffffff"


def cell_report_png(report: CellReport) -> bytes:
    """The numbers and the timelines of a cell as a PNG, always light."""
    shown = [(device_title(change), chart) for change in report.devices if (chart := cell_chart(change, report))]
    title = f"{report.cell.label}    {'    '.join(f'{name} {value}' for name, value, _ in numbers(report))}"
    if report.process.simulated:
        title += "    SIMULATED"
    return timelines_png(title, shown)


def timelines_png(title: str, charts: Sequence[tuple[str, Chart]]) -> bytes:
    """Pictures below each other, each with its caption."""
    height = _TITLE + sum(_height(chart) for _, chart in charts) + 8
    canvas = _Canvas(_WIDTH, height)
    canvas.text(12, 10, shortened(one_line(title), 110), "fg", size=16)
    top = _TITLE
    for caption, chart in charts:
        _draw(canvas, top, caption, chart)
        top += _height(chart)
    return canvas.png()


def _height(chart: Chart) -> int:
    return _CAPTION + _HEAD + _PLOT + (_BAND if chart.spans else 0) + _FOOT


class _Canvas:
    """A picture addressed in points, with the colours of the light palette."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), _BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        self._draw.line([(x * _SCALE, y * _SCALE) for x, y in points], LIGHT[colour], round(width * _SCALE), "curve")

    def polygon(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], LIGHT[colour])

    def box(self, left: float, top: float, right: float, bottom: float, colour: str, *, opacity: float = 1) -> None:
        """A filled rectangle, at least a pixel wide, over what is there already."""
        corner = (round(left * _SCALE), round(top * _SCALE))
        size = (max(round((right - left) * _SCALE), 1), max(round((bottom - top) * _SCALE), 1))
        mask = Image.new("L", size, round(255 * opacity))
        self._image.paste(ImageColor.getrgb(LIGHT[colour]), (*corner, corner[0] + size[0], corner[1] + size[1]), mask)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        box = [(x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE]
        self._draw.ellipse(box, LIGHT[colour])

    def text(self, x: float, y: float, text: str, colour: str, *, size: int = 11, anchor: str = "la") -> None:
        """``anchor``: Pillow's, "la" is left and ascender."""
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), text, LIGHT[colour], font, anchor)

    def png(self) -> bytes:
        file = io.BytesIO()
        self._image.save(file, "PNG", optimize=True)
        return file.getvalue()


def _draw(canvas: _Canvas, top: float, caption: str, chart: Chart) -> None:
    canvas.text(12, top, shortened(one_line(caption), 120), "fg", size=12)
    top += _CAPTION + _HEAD
    _draw_grid(canvas, top, chart)
    _draw_curve(canvas, top, chart)
    for gap in chart.gaps:
        canvas.box(_x(gap.begin), top, _x(gap.end), top + _PLOT, "warning-fg", opacity=0.16)
    _draw_time(canvas, top + _PLOT, chart)
    x, y = _x(chart.peak.at), top + _PLOT * (1 - chart.peak_y)
    canvas.dot(x, y, 4, "peak")
    anchor = "ls" if chart.peak.at < 0.2 else "rs" if chart.peak.at > 0.8 else "ms"  # noqa: PLR2004
    canvas.text(x, y - 8, chart.peak.label, "peak", anchor=anchor)


def _x(at: float) -> float:
    return _LEFT + at * (_WIDTH - _LEFT - _RIGHT)


def _draw_grid(canvas: _Canvas, top: float, chart: Chart) -> None:
    for tick in chart.y_ticks:
        y = top + _PLOT * (1 - tick.at)
        canvas.line([(_x(0), y), (_x(1), y)], "line")
        canvas.text(_LEFT - 8, y, tick.label, "muted", anchor="rm")
    if chart.capacity_y is not None:
        y = top + _PLOT * (1 - chart.capacity_y)
        for dash in range(_LEFT, _WIDTH - _RIGHT, 9):
            canvas.line([(dash, y), (dash + 5, y)], "peak")


def _draw_curve(canvas: _Canvas, top: float, chart: Chart) -> None:
    points = _steps(chart.x, chart.y, top)
    bottom = top + _PLOT
    canvas.polygon([(points[0][0], bottom), *points, (points[-1][0], bottom)], "live-soft")
    canvas.line(points, "live", 1.5)
    canvas.line([(_x(0), bottom), (_x(1), bottom)], "muted")


def _steps(x: np.ndarray, y: np.ndarray, top: float) -> list[tuple[float, float]]:
    """Corners of the step function."""
    across = [_x(at) for at in x.tolist()]
    up = [top + _PLOT * (1 - value) for value in y.tolist()]
    corners = [(across[0], up[0])]
    for place in range(1, len(across)):
        corners += [(across[place], up[place - 1]), (across[place], up[place])]
    return corners


def _draw_time(canvas: _Canvas, bottom: float, chart: Chart) -> None:
    for span in chart.spans:
        canvas.box(_x(span.begin), bottom + 4, _x(span.end), bottom + _BAND, "line")
        if span.end - span.begin > 0.011 * (len(span.label) + 1):
            canvas.text(_x(span.begin) + 4, bottom + 11, one_line(span.label), "muted", anchor="lm")
    axis = bottom + (_BAND if chart.spans else 0)
    for tick in chart.x_ticks:
        canvas.line([(_x(tick.at), axis), (_x(tick.at), axis + 4)], "muted")
        canvas.text(_x(tick.at), axis + 7, tick.label, "muted", anchor="ma")
