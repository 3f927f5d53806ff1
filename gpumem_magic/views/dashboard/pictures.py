"""The pictures over time as Bokeh models: empty ones, which the page fills from its copy of the history.

A property that has to follow the page's theme is named in the model's ``tags`` as ``property=token``; tokens are those
of ``views.theme``. Names of models say what the page puts into them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.embed.util import standalone_docs_json
from bokeh.models import (
    ColumnDataSource,
    DatetimeTicker,
    FixedTicker,
    LinearAxis,
    PanTool,
    Range1d,
    WheelZoomTool,
)
from bokeh.models.annotations import Span
from bokeh.plotting import figure

from gpumem_magic.analysis.bands import BAND_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.snapshot import Device

HOST = "host"
_LEFT = 62  # room for the numbers of every vertical axis, so that the pictures line up
_HEIGHTS = ((1, 190), (2, 150), (4, 116), (255, 92))
"""Height of a device's picture by how many there are."""
_HOST_HEIGHT = 84
_NOTHING = (0, 0)
"""Two points: with none, BokehJS would draw the area of a step for ever."""


def picture_name(ordinal: int) -> str:
    """Name of the picture of a device."""
    return f"gpu{ordinal}"


def document(devices: Sequence[Device]) -> dict[str, Any]:
    """A Bokeh document as JSON, with one root per device and one for the host, and the root's id by its name."""
    time = Range1d(start=0, end=1, name="time")
    height = next(height for most, height in _HEIGHTS if len(devices) <= most)
    roots = [_device_picture(device, time, height) for device in devices]
    roots.append(_host_picture(time))
    holder = Document()
    for root in roots:
        holder.add_root(root)
    (content,) = standalone_docs_json(roots).values()
    return {"content": json.loads(serialize_json(content)), "roots": {root.name: root.id for root in roots}}


def _device_picture(device: Device, time: Range1d, height: int) -> figure:
    plot = _plot(picture_name(device.ordinal), time, height)
    edges = [f"{name} edge" for name in (*BAND_NAMES, "high")]
    columns = ("x", "bottom", "busy", "high", *BAND_NAMES, *edges)
    source = ColumnDataSource(dict.fromkeys(columns, _NOTHING), name="bands")
    cells = ColumnDataSource(dict.fromkeys(("left", "right", "middle", "label", "shade"), ()), name="cells")
    _cell_shades(plot, cells)
    _stretches(plot)
    below = "bottom"
    for name in BAND_NAMES:
        area = plot.varea_step("x", y1=below, y2=name, step_mode="before", source=source, fill_alpha=1)
        _themed(area.glyph, fill_color=f"band-{name}")
        if name == "unexplained":
            area.glyph.update(hatch_pattern="right_diagonal_line", hatch_scale=6, hatch_weight=1, hatch_alpha=0.7)
            _themed(area.glyph, hatch_color="edge-unexplained")
        below = name
    spike = plot.varea_step("x", y1=below, y2="high", step_mode="before", source=source, fill_alpha=0.45)
    _themed(spike.glyph, fill_color="edge-high")
    for name in (*BAND_NAMES, "high"):
        edge = plot.step("x", f"{name} edge", mode="before", source=source, line_width=1 if name == "high" else 1.5)
        _themed(edge.glyph, line_color=f"edge-{name}")
    _busy_strip(plot, source)
    _marks(plot)
    _labels(plot, cells)
    capacity = Span(dimension="width", location=0, visible=False, line_dash="dashed", line_width=1, name="capacity")
    plot.add_layout(_themed(capacity, line_color="peak"))
    return plot


def _host_picture(time: Range1d) -> figure:
    plot = _plot(HOST, time, _HOST_HEIGHT)
    source = ColumnDataSource(dict.fromkeys(("x", "bottom", "anonymous", "rss"), _NOTHING), name="bands")
    for below, above in (("bottom", "anonymous"), ("anonymous", "rss")):
        area = plot.varea_step("x", y1=below, y2=above, step_mode="before", source=source, fill_alpha=1)
        _themed(area.glyph, fill_color="held-soft" if above == "anonymous" else "line")
    edge = plot.step("x", "anonymous", mode="before", source=source, line_width=1.5)
    _themed(edge.glyph, line_color="held")
    return plot


def _plot(name: str, time: Range1d, height: int) -> figure:
    plot = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_range=time,
        y_range=Range1d(start=0, end=1, name="bytes"),
        toolbar_location=None,
        tools=[],
        x_axis_type=None,
        y_axis_type=None,
        min_border_left=_LEFT,
        min_border_right=8,
        min_border_top=4,
        min_border_bottom=0,
        output_backend="canvas",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_alpha=0,
        lod_threshold=None,
    )
    pan, zoom = PanTool(dimensions="width"), _wheel_zoom()
    plot.add_tools(pan, zoom)
    plot.toolbar.active_drag = pan
    plot.toolbar.active_scroll = zoom
    for axis in (_time_axis(), _byte_axis()):
        axis.update(
            axis_line_color=None,
            minor_tick_line_color=None,
            major_tick_out=3,
            major_tick_in=0,
            major_label_text_font_size="11px",
        )
        _themed(axis, major_label_text_color="muted", major_tick_line_color="line")
        plot.add_layout(axis, "below" if axis.name == "time axis" else "left")
    return plot


def _wheel_zoom() -> WheelZoomTool:
    """Zooms in time while Ctrl is held: the wheel alone scrolls the notebook."""
    return WheelZoomTool(dimensions="width", modifiers={"ctrl": True})


def _time_axis() -> LinearAxis:
    axis = LinearAxis(name="time axis")
    axis.update(ticker=DatetimeTicker(desired_num_ticks=7))
    return axis


def _byte_axis() -> LinearAxis:
    axis = LinearAxis(name="byte axis")
    axis.update(ticker=FixedTicker(ticks=[]))
    return axis


def _cell_shades(plot: figure, cells: ColumnDataSource) -> None:
    """Every second cell run is shaded, so that neighbours stay apart."""
    shade = plot.vstrip(x0="left", x1="right", source=cells, fill_alpha="shade", line_alpha=0, level="underlay")
    _themed(shade.glyph, fill_color="muted")


def _labels(plot: figure, cells: ColumnDataSource) -> None:
    label = plot.text(
        x="middle",
        y=0,
        text="label",
        source=cells,
        text_align="center",
        text_baseline="top",
        text_font_size="11px",
        name="cell labels",
    )
    _themed(label.glyph, text_color="muted")


def _stretches(plot: figure) -> None:
    """Gaps: calls were not seen there."""
    gaps = ColumnDataSource(dict.fromkeys(("left", "right"), ()), name="gaps")
    strip = plot.vstrip(x0="left", x1="right", source=gaps, line_alpha=0, level="underlay")
    strip.glyph.update(hatch_pattern="left_diagonal_line", hatch_scale=8, hatch_weight=1, hatch_alpha=0.9)
    _themed(strip.glyph, fill_color="warning-bg", hatch_color="warning-fg")


def _busy_strip(plot: figure, source: ColumnDataSource) -> None:
    """Below the line of 0 bytes: the share of time in which a kernel ran. The page fits its range into the strip."""
    plot.extra_y_ranges = {"busy": Range1d(start=0, end=100)}
    strip = plot.varea_step(
        "x", y1="bottom", y2="busy", step_mode="before", source=source, fill_alpha=1, y_range_name="busy"
    )
    _themed(strip.glyph, fill_color="held")


def _marks(plot: figure) -> None:
    """What happened at one moment: refused calls and what a person marked."""
    marks = ColumnDataSource(dict.fromkeys(("x", "y"), ()), name="marks")
    line = plot.vspan(x="x", source=marks, line_width=1, line_dash="dotted")
    _themed(line.glyph, line_color="fg")
    refusals = ColumnDataSource(dict.fromkeys(("x", "y"), ()), name="refusals")
    sign = plot.scatter("x", "y", source=refusals, marker="inverted_triangle", size=11, line_width=1)
    _themed(sign.glyph, fill_color="error-fg", line_color="error-bg")


def _themed(model: Any, **tokens: str) -> Any:
    model.tags = [*model.tags, *(f"{name}={token}" for name, token in tokens.items())]
    return model
