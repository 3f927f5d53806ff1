"""The page's script by itself, in a browser without Jupyter: it merges and writes what the kernel's code does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic.analysis.bands import BAND_NAMES, bands
from gpumem_magic.model.history import FACTOR, LEVEL_ROWS, LEVELS
from gpumem_magic.model.units import format_count, format_duration, format_size, parse_size
from tests.analysis.histories import all_levels, host_samples, samples
from tests.front import page_with_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

EXPORTED = ("formatSize", "formatCount", "formatSeconds", "byteTicks", "Levels", "Store", "historiesFrom")
SHAPE = {"factor": FACTOR, "levels": LEVELS, "rows": LEVEL_ROWS}
SIZES = st.one_of(
    st.integers(-(2**60), 2**60),
    st.builds(lambda unit, part: round(1024**unit * part), st.integers(0, 5), st.floats(0.9, 1.1)),
)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page in which ``ours`` has the script's functions and classes."""
    with page_with_script(browser, EXPORTED) as page:
        yield page


def in_page(page: Page, expression: str, argument: Any) -> Any:
    return page.evaluate(
        f"argument => {{ const {{{', '.join(EXPORTED)}}} = window.ours; return {expression}; }}", argument
    )


def test_sizes_in_the_middle_are_rounded_as_the_kernel_rounds_them(page: Page) -> None:
    sizes = [1024 * eighth // 8 for eighth in range(8, 8000)] + [round(1024 * n / 200) for n in range(200, 20000)]
    assert in_page(page, "argument.map(each => formatSize(each))", sizes) == [format_size(each) for each in sizes]


@settings(max_examples=20)
@given(sizes=st.lists(SIZES, min_size=50, max_size=50))
def test_sizes_are_written_as_the_kernel_writes_them(page: Page, sizes: list[int]) -> None:
    sizes = [int(float(size)) for size in sizes]  # the page's numbers are floats
    assert in_page(page, "argument.map(each => formatSize(each))", sizes) == [format_size(each) for each in sizes]
    signed = in_page(page, "argument.map(each => formatSize(each, true))", sizes)
    assert signed == [format_size(each, signed=True) for each in sizes]


@settings(max_examples=20)
@given(counts=st.lists(st.integers(0, 2**53), min_size=20, max_size=20))
def test_counts_are_written_as_the_kernel_writes_them(page: Page, counts: list[int]) -> None:
    assert in_page(page, "argument.map(formatCount)", counts) == [format_count(each) for each in counts]


DURATIONS = st.one_of(
    st.floats(1e-8, 1e6),
    st.builds(lambda edge, part: edge * part, st.sampled_from([1e-6, 1e-3, 1.0, 100.0, 60.0]), st.floats(0.99, 1.01)),
)


@settings(max_examples=20)
@given(seconds=st.lists(DURATIONS, min_size=50, max_size=50))
def test_durations_are_written_as_the_kernel_writes_them(page: Page, seconds: list[float]) -> None:
    assert in_page(page, "argument.map(formatSeconds)", seconds) == [format_duration(each) for each in seconds]


@pytest.mark.parametrize("top", [1024, 5000, 3 << 20, 999 << 20, 16 << 30, int(150.3 * 2**30), 7 << 40])
def test_ticks_are_few_and_even(page: Page, top: int) -> None:
    ticks = in_page(page, "byteTicks(argument)", top)
    places = [at for at, _ in ticks]
    assert places[0] == 0
    assert 2 <= len(places) <= 5
    assert max(places) <= top
    assert np.ptp(np.diff(places)) == pytest.approx(0, abs=1e-6 * top)
    units = {label.split(" ")[1] for _, label in ticks[1:]}
    assert len(units) == 1, "all in one unit"
    factor = parse_size(f"1 {units.pop()}")
    assert [float(label.split(" ")[0]) * factor for _, label in ticks[1:]] == places[1:]


def random_rows(seed: int, count: int) -> np.ndarray:
    """Rows of level 0 as a sampler would give them, with spikes both ways."""
    random = np.random.default_rng(seed)
    tracked = random.integers(0, 40, count) << 30
    return samples(
        0,
        count,
        tracked_bytes=tracked,
        tracked_min=np.maximum(tracked - (random.integers(0, 3, count) << 28), 0),
        tracked_max=tracked + (random.integers(0, 3, count) << 28),
        process_bytes=tracked + (1 << 29),
        used_bytes=tracked + (3 << 29),
        utilization=random.integers(0, 100, count),
    )


def as_told(rows: np.ndarray) -> list[list[float]]:
    """What the kernel would send of them, without the device; see Dashboard."""
    found = bands(rows, base_bytes=1 << 29)
    columns = [found.index, found.begin_ns, found.end_ns, *(getattr(found, name) for name in BAND_NAMES)]
    columns += [found.low, found.high, found.utilization]
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


COMPARED = slice(0, -1)
"""Of a row: all but the utilization, of which the page shows the latest, not the mean."""


@pytest.mark.parametrize("count", [1, 3, 4, 5, 17, 300, 1500])
def test_rows_are_merged_as_the_kernel_merges_them(page: Page, count: int) -> None:
    rows = random_rows(count, count)
    expected = all_levels(rows)
    add = "{ const levels = new Levels(argument.shape); argument.rows.forEach(row => levels.add(row)); return levels; }"
    levels = in_page(page, f"(() => {add})().levels", {"shape": SHAPE, "rows": as_told(rows)})
    for level in range(LEVELS):
        wanted = as_told(expected[expected["level"] == level])
        got = levels[level][-LEVEL_ROWS:]  # the page cuts now and then, not at each row
        assert [row[COMPARED] for row in got] == [row[COMPARED] for row in wanted], f"level {level}"
        assert len(levels[level]) <= LEVEL_ROWS * 1.25 + 1


def test_a_page_that_comes_later_has_the_same_levels(page: Page) -> None:
    """Half of the history comes packed with the state, half row by row."""
    rows = random_rows(7, 900)
    first = all_levels(rows[:777])
    packed = [[0.0, float(level), *row] for level, row in zip(first["level"], as_told(first), strict=True)]
    config = {"devices": [{"ordinal": 0}], "history": {**SHAPE, "columns": 11}}
    argument = {"numbers": [x for row in packed for x in row], "rows": as_told(rows[777:]), "config": config}
    continued = in_page(
        page,
        """(() => {
            const history = historiesFrom(new Float64Array(argument.numbers), argument.config).get(0);
            argument.rows.forEach(row => history.add(row));
            return history.levels;
        })()""",
        argument,
    )
    expected = all_levels(rows)
    for level in range(LEVELS):
        wanted = as_told(expected[expected["level"] == level])
        assert [row[COMPARED] for row in continued[level]] == [row[COMPARED] for row in wanted], f"level {level}"


def test_a_stretch_is_covered_in_few_rows(page: Page) -> None:
    """Eight hours of rows: any window is drawn from its begin to its end, with its highest moment, in bounded rows."""
    count = 8 * 3600 * 10
    rows = random_rows(11, count)
    spike = count // 3
    rows["tracked_max"][spike] = 99 << 30
    kept = all_levels(rows)
    packed = [[0.0, float(level), *row] for level, row in zip(kept["level"], as_told(kept), strict=True)]
    config = {"devices": [{"ordinal": 0}], "history": {**SHAPE, "columns": 11}}
    page.evaluate(
        "({numbers, config}) => { window.long = window.ours.historiesFrom(new Float64Array(numbers), config).get(0) }",
        {"numbers": [x for row in packed for x in row], "config": config},
    )
    end = float(rows["end_ns"][-1])
    for hours in (8, 4, 1, 1 / 60, 1 / 3600):
        begin = end - hours * 3600e9
        found = page.evaluate("([begin, end]) => window.long.rows(begin, end, 1100)", [begin, end])
        assert 2 <= len(found) <= 1101
        assert found[0][1] <= begin or found[0][0] == 0
        assert found[-1][2] == end
        inside = rows["end_ns"] > max(begin, found[0][1])
        assert max(row[9] for row in found) == rows["tracked_max"][inside].max()


class Told:
    """A store in the page, and what it asked the kernel for."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def tell(self, *messages: dict[str, Any]) -> list[Any]:
        """Give it messages; returns [number of the last one taken, what it sent]."""
        told: list[Any] = self.page.evaluate(
            "async messages => { for (const each of messages) { window.heard(each); await window.store.ready; }"
            " return [window.store.seq, window.sent] }",
            list(messages),
        )
        return told


@pytest.fixture
def store(page: Page) -> Told:
    state = {
        "seq": 5,
        "config": {"devices": [{"ordinal": 0}], "history": {**SHAPE, "columns": 11}},
        "document": {},
        "now": 0,
        "panels": [],
        "header": {},
        "spans": [],
        "marks": [],
        "ended": "",
    }
    page.evaluate(
        """async state => {
            window.sent = [];
            const model = {
                get: name => (name === 'state' ? state : null),
                on: (_, heard) => { window.heard = (message, buffers = [null]) => heard(message, buffers) },
                send: message => window.sent.push(message),
            };
            window.store = new window.ours.Store(model);
            window.whole = state;
            await window.store.ready;
        }""",
        state,
    )
    return Told(page)


def update(seq: int) -> dict[str, Any]:
    return {"kind": "update", "seq": seq, "now": seq}


def test_messages_are_taken_in_order(store: Told) -> None:
    assert store.tell(update(6), update(7)) == [7, []]


def test_old_messages_are_left(store: Told) -> None:
    assert store.tell(update(4), update(5), update(6)) == [6, []]


def test_a_missed_message_is_asked_for_once(store: Told) -> None:
    seq, sent = store.tell(update(8), update(9))
    assert seq == 5
    assert [each["kind"] for each in sent] == ["resync"]
    whole = {"kind": "full", "state": {**store.page.evaluate("window.whole"), "seq": 12}}
    assert store.tell(whole, update(13))[0] == 13


def test_messages_wait_while_the_state_is_unpacked(store: Told) -> None:
    whole = {"kind": "full", "state": {**store.page.evaluate("window.whole"), "seq": 20}}
    seq = store.page.evaluate(
        """async ([whole, next]) => {
            window.heard(whole);
            window.heard(next);
            await window.store.ready;
            return window.store.seq;
        }""",
        [whole, update(21)],
    )
    assert seq == 21


def test_the_host_keeps_its_highest(page: Page) -> None:
    resident = np.array([5, 9, 2, 4, 1]) << 20
    rows = host_samples(5, resident, resident // 2)
    told = [
        [float(row["index"]), float(row["begin_ns"]), float(row["end_ns"])]
        + [float(row[name]) for name in ("rss_bytes", "rss_max", "anonymous_bytes", "anonymous_max")]
        + [0.0] * 3
        + [-1.0]
        for row in rows
    ]
    levels = in_page(
        page,
        """(() => {
            const made = new Levels({...argument.shape, host: true});
            argument.rows.forEach(row => made.add(row));
            return made.levels;
        })()""",
        {"shape": SHAPE, "rows": told},
    )
    assert [row[4] for row in levels[1]] == [9 << 20, 1 << 20]
    assert [row[6] for row in levels[1]] == [(9 << 20) // 2, (1 << 20) // 2]
    assert not math.isnan(levels[1][0][3])
