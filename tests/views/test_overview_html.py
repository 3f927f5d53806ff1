"""The still dashboard in a page: complete, light, and true to its numbers."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest

from gpumem_magic.analysis.bands import BAND_LABELS, BAND_NAMES
from gpumem_magic.analysis.overview import overview
from gpumem_magic.model.history import merged_host
from gpumem_magic.model.snapshot import Cell, Device, Gap, Mark
from gpumem_magic.views.overview import MOST_DEVICES, render_overview, render_timeline
from gpumem_magic.views.stacked_chart import device_chart, host_chart
from gpumem_magic.views.stacked_svg import busy_svg, stacked_svg
from gpumem_magic.views.theme import DARK, LIGHT
from tests.analysis import scenes
from tests.analysis.build import GIB, MIB, SECOND, START_NS, Recording
from tests.analysis.histories import PERIOD_NS, all_levels, host_samples, samples, watched
from tests.views.test_html import contrast

MOST_BYTES = 150_000


def paths(picture: str, name: str) -> list[str]:
    return re.findall(rf'<path d="([^"]+)" class="gm-b-{name}"', picture)


def test_every_band_has_its_silhouette_the_highest_first() -> None:
    seen = overview(watched())
    chart = device_chart(seen.devices[0], seen, height=100)
    assert chart is not None
    picture = stacked_svg(chart, title="t", description="d")
    drawn = re.findall(r'class="gm-b-(\w+)"', picture)
    assert drawn == ["high", "cached", "live", "unexplained", "base", "other"]
    assert [layer.name for layer in chart.layers] == list(BAND_NAMES)


def test_a_silhouette_is_as_high_as_its_bytes() -> None:
    rows = samples(0, 4, tracked_bytes=np.array([0, 50, 50, 25]) * GIB)
    snapshot = dataclasses.replace(Recording().snapshot(), time_ns=START_NS + 4 * PERIOD_NS, history=all_levels(rows))
    seen = overview(snapshot)
    chart = device_chart(seen.devices[0], seen, height=112)
    assert chart is not None
    # The picture reaches 12 % above the peak of 50 GiB: a pixel is half a GiB.
    assert paths(stacked_svg(chart, title="t", description="d"), "live") == ["M0 112L0 112H250V12H750V62H1000V112"]


def test_what_is_not_explained_is_hatched_too() -> None:
    seen = overview(watched())
    hatches = re.findall(r'<path d="([^"]+)" class="gm-hatch"', render_overview(seen)["text/html"])
    assert len(hatches) == 1
    assert hatches[0].count("M") > 20
    recording, _ = scenes.training()
    assert 'gm-hatch"' not in render_overview(overview(recording.snapshot()))["text/html"]


def test_hatching_keeps_to_its_band() -> None:
    seen = overview(watched())
    chart = device_chart(seen.devices[0], seen, height=400)
    assert chart is not None
    picture = stacked_svg(chart, title="t", description="d")
    (line,) = re.findall(r'<path d="([^"]+)" class="gm-hatch"', picture)
    tops = {layer.name: layer.top for layer in chart.layers}
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", line):
        row = min(int(np.searchsorted(chart.x, float(x) / 1000, side="right")) - 1, len(tops["base"]) - 1)
        near = slice(max(row - 1, 0), row + 2)  # a hatch ends within a column of an edge
        assert (
            400 * (1 - tops["unexplained"][near].max()) - 1.5 <= float(y) <= 400 * (1 - tops["base"][near].min()) + 1.5
        )


def test_every_colour_is_explained_in_words() -> None:
    text = render_timeline(overview(watched()))["text/html"]
    said = re.findall(r"<li><b>([^<]*)</b>", text)
    assert said == [*(BAND_LABELS[name] for name in BAND_NAMES), "free", "pale, above them"]
    recording, _ = scenes.training()
    assert "pale, above" not in render_timeline(overview(recording.snapshot()))["text/html"]


def test_devices_have_one_scale() -> None:
    seen = overview(watched(3))
    charts = [device_chart(each, seen, height=100) for each in seen.devices]
    assert {chart.capacity_y for chart in charts if chart} == {charts[0].capacity_y if charts[0] else 0}
    assert charts[0] is not None
    assert charts[0].capacity_y is not None


def test_cells_gaps_failures_and_marks_say_what_they_are() -> None:
    snapshot = dataclasses.replace(watched(), marks=(Mark(time_ns=START_NS + 50 * SECOND, name="before fit"),))
    text = render_overview(overview(snapshot))["text/html"]
    titles = re.findall(r"<title>([^<]*)</title>", text)
    assert "out of memory: 80.0 GiB asked for, at 60 s" in titles
    assert "calls were not seen for 10 s, at 60.1 s: torch.profiler took over CUPTI" in titles
    assert "before fit, at 50 s" in titles
    assert "30 s, In [8], losses = train(model, loader, steps=2000)" in titles
    assert "1.01 s, In [3] … In [7], 5 cells" in titles


def test_pictures_say_in_words_what_they_show() -> None:
    text = render_overview(overview(watched()))["text/html"]
    labels = re.findall(r'role="img"[^>]*aria-label="([^"]*)"', text)
    assert len(labels) == 3
    assert labels[0] == "Share of time in which GPU 0  NVIDIA H200 ran kernels, now 5 %"
    assert "now 95.5 GiB of 141 GiB used, 5 % busy" in labels[1]
    assert "out of memory: 80.0 GiB asked for" in labels[1]
    assert "resident" in labels[2]


def test_unknown_numbers_are_left_out() -> None:
    recording, _ = scenes.training()
    text = render_overview(overview(recording.snapshot()))["text/html"]
    assert "How full GPU 0 is was not recorded" in text
    legend = re.findall(r'class="gm-swatch gm-sw-(\w+)"', text)
    assert legend == ["live"]
    assert "busy" not in re.sub(r"<style>.*?</style>", "", text)


def test_where_no_share_of_processes_is_known_the_legend_says_so() -> None:
    rows = samples(0, 10, tracked_bytes=MIB, used_bytes=GIB)
    snapshot = dataclasses.replace(Recording().snapshot(), time_ns=START_NS + SECOND, history=all_levels(rows))
    text = render_overview(overview(snapshot))["text/html"]
    assert "other processes, context" in text
    assert re.findall(r'class="gm-swatch gm-sw-(\w+)"', text) == ["other", "live", "free"]


def test_paused_and_degraded_are_said() -> None:
    snapshot = watched()
    paused = (Gap(begin_ns=START_NS + SECOND, end_ns=0, reason="paused by the user"),)
    assert ">PAUSED<" in render_overview(overview(dataclasses.replace(snapshot, gaps=paused)))["text/html"]
    text = render_overview(overview(watched(1, simulated=True, degraded="no CUPTI")))["text/html"]
    assert ">SIMULATED<" in text
    assert ">DEGRADED<" in text


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_page_stays_light(devices: int) -> None:
    """Hours of wild memory on every device, thousands of cells and gaps, names of any length."""
    count, long = 8000, "<&>" * 400
    random = np.random.default_rng(2)
    rows = []
    for device in range(devices):
        tracked = random.integers(0, 60 * GIB, count)
        rows.append(
            all_levels(
                samples(
                    device,
                    count,
                    tracked_bytes=tracked,
                    tracked_max=tracked + random.integers(0, 20 * GIB, count),
                    process_bytes=tracked + random.integers(GIB, 30 * GIB, count),
                    used_bytes=tracked + random.integers(30 * GIB, 60 * GIB, count),
                    torch_reserved_bytes=tracked,
                    torch_allocated_bytes=tracked // 2,
                    utilization=random.integers(0, 100, count),
                ),
            ),
        )
    recording = Recording(*[(long, "141GiB")] * devices, host=long, degraded=long)
    for number in range(40):
        frames = tuple((f"/home/{long}/{number}.py", f"{long}{depth}", depth) for depth in range(60))
        recording.alloc(MIB * (number + 1), *frames, library=f"/lib/{long}.so", device=number % devices)
    for number in range(200):
        with recording.cell(number, long, label=f"{long}{number}", error=long):
            recording.fail(GIB)
            recording.wait(4)
        recording.gap(0.01, long)
    marks = tuple(Mark(time_ns=START_NS + number * SECOND, name=long) for number in range(100))
    snapshot = dataclasses.replace(
        recording.snapshot(warnings=(long,) * 50),
        marks=marks,
        history=np.concatenate(rows),
        host_history=all_levels(host_samples(count, random.integers(GIB, 9 * GIB, count), GIB), merge=merged_host),
    )
    seen = overview(snapshot)
    assert len(render_overview(seen)["text/html"]) < MOST_BYTES
    assert len(render_timeline(seen)["text/html"]) < MOST_BYTES


def test_of_very_many_devices_the_first_are_drawn_and_the_rest_named() -> None:
    snapshot = watched()
    devices = tuple(Device(ordinal=ordinal, name="x", total_bytes=GIB) for ordinal in range(40))
    text = render_overview(overview(dataclasses.replace(snapshot, devices=devices)))["text/html"]
    assert text.count("<figure") == MOST_DEVICES + 1
    assert "Not shown: GPU 16, 17" in text
    assert len(text) < MOST_BYTES


def test_a_busy_strip_is_as_high_as_the_mean_of_its_time() -> None:
    strip = busy_svg(np.array([0.0, 0.5, 1.0]), np.array([1.0, np.nan]), label="l")
    heights = re.findall(r"V([\d.]+)H([\d.]+)", strip)
    assert {y for y, x in heights if float(x) <= 500} == {"0"}
    assert {y for y, x in heights if float(x) > 500} == {"16"}


def test_the_host_is_drawn_on_the_same_clock() -> None:
    seen = overview(watched(), window_s=30)
    assert seen.host is not None
    chart = host_chart(seen.host, seen, height=50)
    device = device_chart(seen.devices[0], seen, height=50)
    assert device is not None
    assert chart.x_ticks == device.x_ticks
    assert (chart.x[0], chart.x[-1]) == (0, 1)


def test_cells_of_a_recording_without_pictures_are_still_listed() -> None:
    cell = Cell(id=1, parent=0, label="In [1]", first_line="x = 1", begin_ns=START_NS, end_ns=START_NS + SECOND)
    snapshot = dataclasses.replace(Recording().snapshot(), cells=(cell,), time_ns=START_NS + 2 * SECOND)
    text = render_overview(overview(snapshot))["text/html"]
    assert "x = 1" in text
    assert "Nothing has been allocated here" in text


# Colours

DEUTAN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
PROTAN = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
TRITAN = ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))
NORMAL = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
"""How a colour looks to those who lack one kind of cone: Machado, Oliveira and Fernandes (2009), linear RGB."""

OKLAB_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def oklab(colour: str, sight: tuple[tuple[float, ...], ...]) -> np.ndarray:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(sight) @ linear, 0, 1)
    return np.array(OKLAB) @ np.cbrt(np.array(OKLAB_CONES) @ seen)


@pytest.mark.parametrize("sight", [NORMAL, DEUTAN, PROTAN, TRITAN], ids=["normal", "deutan", "protan", "tritan"])
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_bands_are_told_apart_by_everybody(palette: dict[str, str], sight: tuple[tuple[float, ...], ...]) -> None:
    for one, other in itertools.combinations(BAND_NAMES, 2):
        apart = np.linalg.norm(oklab(palette[f"band-{one}"], sight) - oklab(palette[f"band-{other}"], sight))
        assert apart > 0.075, f"{one} and {other} look alike: {apart:.3f}"


@pytest.mark.parametrize(("palette", "page"), [(LIGHT, "#ffffff"), (DARK, "#111418"), (DARK, "#000000")])
def test_edges_stand_out_from_the_page(palette: dict[str, str], page: str) -> None:
    for name in (*BAND_NAMES, "high"):
        assert contrast(palette[f"edge-{name}"], page) >= 3, name
    assert palette["edge-live"] == palette["live"]
