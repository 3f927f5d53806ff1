"""HTML that is complete in itself, and in which nothing of a user's is ever markup."""

from __future__ import annotations

import dataclasses
import html.parser
import re
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.analysis.byte_ledger import byte_ledger
from gpumem_magic.analysis.cell_holders import CellHolders
from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.analysis.cell_table import cell_table
from gpumem_magic.analysis.overview import overview
from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.analysis.tensor_sites import TensorSites, tensor_sites
from gpumem_magic.model.frameworks import FrameworkMemory
from gpumem_magic.views.byte_ledger import render_byte_ledger
from gpumem_magic.views.cell_report import render_cell_report
from gpumem_magic.views.cell_table import render_cell_table
from gpumem_magic.views.chart import chart
from gpumem_magic.views.holders import render_holders
from gpumem_magic.views.html import Html, breakable, document, escaped, tag
from gpumem_magic.views.out_of_memory import render_out_of_memory
from gpumem_magic.views.overview import render_overview, render_timeline
from gpumem_magic.views.recording_report import render_recording_report
from gpumem_magic.views.release import render_release
from gpumem_magic.views.status import render_status
from gpumem_magic.views.svg import timeline_svg
from gpumem_magic.views.tensor_sites import render_tensors
from gpumem_magic.views.theme import DARK, LIGHT, style
from tests.analysis import scenes
from tests.analysis.build import MIB, Recording
from tests.views.planted import (
    MARKUP,
    planted_card,
    planted_history,
    planted_holders,
    planted_left_behind,
    planted_recording,
    planted_release,
    planted_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

VOID = {"br", "wbr", "hr", "meta", "img"}


def every_answer() -> Iterator[tuple[str, str]]:
    """(name, HTML) of every kind of answer, made from a recording whose every name is markup."""
    recording, cell = planted_recording()
    snapshot = recording.snapshot(warnings=(MARKUP,))
    yield "cell", render_cell_report(cell_report(snapshot, cell))["text/html"]
    left, growth = planted_left_behind()
    report = dataclasses.replace(cell_report(snapshot, cell), holders=left, growth=growth)
    yield "left", render_cell_report(report)["text/html"]
    told = dataclasses.replace(cell_report(snapshot, cell), holders=CellHolders(problem=MARKUP))
    yield "interrupted", render_cell_report(told)["text/html"]
    yield "growing", render_cell_table(dataclasses.replace(cell_table(snapshot), growth=(growth,)))["text/html"]
    yield "cells", render_cell_table(cell_table(snapshot))["text/html"]
    yield "recording", render_recording_report(recording_report(snapshot))["text/html"]
    seen = overview(planted_history(snapshot))
    yield "overview", render_overview(seen)["text/html"]
    yield "timeline", render_timeline(seen)["text/html"]
    problem = FrameworkMemory(name=MARKUP, version=MARKUP, problem=MARKUP)
    asked = dataclasses.replace(planted_history(snapshot), frameworks=(problem,))
    yield "ledger", render_byte_ledger(byte_ledger(asked))["text/html"]
    yield "holders", render_holders(planted_holders(), title=MARKUP)["text/html"]
    yield "out of memory", render_out_of_memory(planted_card())["text/html"]
    yield "release", render_release(planted_release())["text/html"]
    tensors = tensor_sites(planted_tensors(), {})
    yield "tensors", render_tensors(tensors, cell=MARKUP)["text/html"]
    with_tensors = dataclasses.replace(cell_report(snapshot, cell), tensors=tensors)
    yield "both", render_cell_report(with_tensors)["text/html"]
    yield "no tensors", render_tensors(TensorSites(problem=MARKUP), cell="In [1]")["text/html"]
    yield "status", render_status([(MARKUP, MARKUP, "error")], title=MARKUP, next_=MARKUP)["text/html"]


class Checker(html.parser.HTMLParser):
    """Collects elements and attributes, and sees that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("name", "text"), list(every_answer()), ids=lambda value: value[:10])
def test_answers_are_static_and_whole(name: str, text: str) -> None:
    checker = Checker()
    checker.feed(text)
    assert checker.open == [], name
    assert not checker.elements & {"script", "img", "iframe", "object", "embed", "link", "a", "b-planted", "form"}
    assert not [attribute for attribute in checker.attributes if attribute.startswith("on")]
    assert not checker.attributes & {"src", "href", "srcset"}
    loading = re.findall(r"url\(|@import|https?://\S+", text)
    assert set(loading) <= {'http://www.w3.org/2000/svg"'} | {each for each in loading if "w3.org/2000/svg" in each}


@pytest.mark.parametrize(("name", "text"), list(every_answer()), ids=lambda value: value[:10])
def test_planted_markup_is_shown_not_run(name: str, text: str) -> None:
    assert MARKUP not in text, name
    assert escaped(MARKUP) in text


def test_plain_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", '<&>"', Html("<b>x</b>"), None) == "<p>&lt;&amp;&gt;&quot;<b>x</b></p>"
    assert tag("p", class_='"><script>') == '<p class="&quot;&gt;&lt;script&gt;"></p>'
    assert tag("line", x1=0, stroke_width=2, hidden=True, title=None) == '<line x1="0" stroke-width="2" hidden/>'
    assert breakable("a.<b>") == "a.<wbr/>&lt;b&gt;"
    assert escaped("a\x00\x1b[0m") == "a��[0m"


def test_a_document_is_a_page() -> None:
    page = document(tag("p", "x"), "<title>")
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>&lt;title&gt;</title>" in page


def test_every_colour_of_the_style_sheet_has_a_light_and_a_dark_value() -> None:
    used = set(re.findall(r"var\(--gm-([\w-]+)\)", style()))
    assert used <= set(LIGHT)
    assert set(LIGHT) == set(DARK)


@pytest.mark.parametrize(("palette", "page"), [(LIGHT, "#ffffff"), (DARK, "#111418"), (DARK, "#000000")])
def test_colours_stand_out(palette: dict[str, str], page: str) -> None:
    for name in ("fg", "muted", "peak", "live", "held"):
        least = 4.5 if name in ("fg", "muted", "peak") else 3
        assert contrast(palette[name], page) >= least, name
    for severity in ("info", "warning", "error"):
        assert contrast(palette[f"{severity}-fg"], palette[f"{severity}-bg"]) >= 4.5, severity


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio of two colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_tables_and_pictures_name_themselves() -> None:
    recording, cell = scenes.two_devices()
    text = render_cell_report(cell_report(recording.snapshot(), cell))["text/html"]
    assert text.count('role="img"') == 2
    assert "<desc>From 0 B at the begin to 0 B after 1.21 s, with a peak of 120 GiB at 704 ms.</desc>" in text
    assert text.count('scope="row"') == 4
    assert "<caption>Who allocated</caption>" in text


def test_a_picture_of_many_points_stays_small() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        for _ in range(1500):
            recording.free(recording.alloc(MIB))
    report = cell_report(recording.snapshot(), cell)
    assert report.devices[0].timeline is not None
    picture = timeline_svg(chart(report.devices[0].timeline), title="t", description="d")
    assert len(picture) < 40_000


def test_ticks_are_round() -> None:
    recording, cell = scenes.training()
    line = cell_report(recording.snapshot(), cell).devices[0].timeline
    assert line is not None
    drawn = chart(line)
    assert [tick.label for tick in drawn.y_ticks] == ["0", "0.5 GiB", "1 GiB", "1.5 GiB"]
    assert [tick.label for tick in drawn.x_ticks] == ["0", "500 ms", "1 s", "1.5 s", "2 s", "2.5 s"]
    assert drawn.peak.label == "peak 1.71 GiB at 2.42 s"
