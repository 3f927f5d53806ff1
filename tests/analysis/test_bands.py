"""The bands add up to what the device reports, whatever it reports."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.analysis.bands import BAND_HINTS, BAND_LABELS, BAND_NAMES, bands, settled_base
from gpumem_magic.model.history import UNKNOWN
from tests.analysis.build import MIB
from tests.analysis.histories import samples

SIZES = st.one_of(st.just(UNKNOWN), st.integers(0, 1 << 40))
COLUMNS = (
    "tracked_bytes",
    "used_bytes",
    "process_bytes",
    "driver_used_bytes",
    "torch_allocated_bytes",
    "torch_reserved_bytes",
)


@st.composite
def any_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows in which each measure knows what it likes, and none needs to agree with another."""
    count = draw(st.integers(1, 12))
    columns = {name: draw(st.lists(SIZES, min_size=count, max_size=count)) for name in COLUMNS}
    rows = samples(0, count, **{name: np.array(values) for name, values in columns.items()})
    spread = np.array(draw(st.lists(st.integers(0, 1 << 30), min_size=count, max_size=count)))
    known = rows["tracked_bytes"] != UNKNOWN
    rows["tracked_max"][known] += spread[known]
    rows["tracked_min"][known] = np.maximum(rows["tracked_min"] - spread, 0)[known]
    return rows


def carried(column: np.ndarray) -> np.ndarray:
    """The last value that was known, row by row."""
    latest, found = UNKNOWN, []
    for value in column.tolist():
        latest = value if value != UNKNOWN else latest
        found.append(latest)
    return np.array(found)


@given(any_rows())
def test_bands_add_up(rows: np.ndarray) -> None:
    found = bands(rows)
    found.self_check()
    pool = np.maximum(rows["torch_reserved_bytes"], 0)
    tracked = np.where(rows["tracked_bytes"] != UNKNOWN, rows["tracked_bytes"], pool)
    assert (found.live + found.cached == tracked).all()
    used = carried(np.where(rows["used_bytes"] != UNKNOWN, rows["used_bytes"], rows["driver_used_bytes"]))
    process = carried(rows["process_bytes"])
    own = np.where(process != UNKNOWN, process, tracked)
    sane = (used >= own) & (own >= tracked)
    # NVML was asked at some moment of the row, the ledger at its end.
    assert (np.abs(found.total - used) <= found.high - found.low)[sane].all()
    assert (found.total >= tracked).all()
    assert (found.total + found.high - found.low >= used).all()
    assert (found.other == np.where(used != UNKNOWN, np.maximum(used - own, 0), 0)).all()
    assert ((found.base + found.unexplained == 0) | (process != UNKNOWN)).all()


@given(any_rows(), st.integers(0, 1 << 40))
def test_the_base_is_never_more_than_its_limit(rows: np.ndarray, limit: int) -> None:
    found = bands(rows, base_bytes=limit)
    assert (found.base <= limit).all()
    assert ((found.unexplained == 0) | (found.base == limit)).all()


def test_what_comes_after_the_context_is_not_explained() -> None:
    process = np.array([0, 200, 545, 545, 545, 545, 613, 613]) * MIB
    tracked = np.array([0, 0, 0, 0, 0, 100, 100, 100]) * MIB
    rows = samples(0, 8, tracked_bytes=tracked, process_bytes=process + tracked, used_bytes=process + tracked)
    assert settled_base(rows) == 545 * MIB
    found = bands(rows)
    assert found.base.tolist() == [0, 200 * MIB, *[545 * MIB] * 6]
    assert found.unexplained.tolist() == [0, 0, 0, 0, 0, 0, 68 * MIB, 68 * MIB]
    assert found.live.tolist() == tracked.tolist()


def test_nothing_has_settled_before_three_rows_agree() -> None:
    assert settled_base(samples(0, 2, tracked_bytes=0, used_bytes=5 * MIB)) is None
    rising = samples(0, 5, tracked_bytes=0, used_bytes=np.arange(5) * 100 * MIB)
    assert settled_base(rising) is None
    assert bands(rising).unexplained.tolist() == [0] * 5


def test_a_question_that_failed_frees_nothing() -> None:
    """NVML does not always answer: the picture must not fall to the ground for a row."""
    used = np.array([9, UNKNOWN, 9]) * np.where([True, False, True], MIB, 1)
    found = bands(samples(0, 3, tracked_bytes=2 * MIB, used_bytes=used, process_bytes=np.where(used > 0, 5 * MIB, -1)))
    assert found.total.tolist() == [9 * MIB] * 3
    assert found.other.tolist() == [4 * MIB] * 3


def test_what_nobody_knows_is_said_to_be_unknown() -> None:
    found = bands(samples(0, 2, tracked_bytes=np.array([MIB, 2 * MIB])))
    assert not found.knows_total
    assert not found.knows_processes
    assert found.total.tolist() == [MIB, 2 * MIB]
    assert np.isnan(found.utilization).all()


def test_while_calls_are_not_seen_the_pool_of_torch_stands_for_them() -> None:
    rows = samples(0, 1, process_bytes=90, used_bytes=100, torch_reserved_bytes=60, torch_allocated_bytes=40)
    found = bands(rows, base_bytes=20)
    assert [int(getattr(found, name)[0]) for name in BAND_NAMES] == [10, 20, 10, 40, 20]
    assert (found.low[0], found.high[0]) == (60, 60)


def test_every_band_has_a_label_and_a_hint() -> None:
    assert set(BAND_LABELS) == set(BAND_HINTS) == set(BAND_NAMES)


def test_a_row_in_which_memory_came_and_went_is_no_reason_to_doubt() -> None:
    """NVML was asked while 100 MiB were there that the ledger no longer counts at the row's end."""
    tracked = np.array([500, 500, 500, 500, 400, 400]) * MIB
    highest = np.array([500, 500, 600, 500, 500, 400]) * MIB
    process = np.array([560, 560, 660, 560, 560, 460]) * MIB
    rows = samples(0, 6, tracked_bytes=tracked, tracked_max=highest, used_bytes=process, process_bytes=process)
    assert bands(rows).unexplained.tolist() == [0] * 6
    assert bands(rows[4:], base_bytes=60 * MIB, before={0: 60 * MIB}).unexplained.tolist() == [0] * 2
    assert bands(rows[4:], base_bytes=60 * MIB).unexplained.tolist() == [100 * MIB, 0]  # nothing to hold on to


def test_what_no_row_can_explain_is_shown() -> None:
    process = np.array([560, 560, 560, 760, 760]) * MIB
    rows = samples(0, 5, tracked_bytes=500 * MIB, tracked_max=600 * MIB, used_bytes=process, process_bytes=process)
    assert bands(rows).unexplained.tolist() == [0, 0, 0, 100 * MIB, 100 * MIB]  # at least so much


def test_what_the_sampler_explained_is_the_base() -> None:
    rows = samples(
        0,
        2,
        tracked_bytes=50 * MIB,
        paged_bytes=[44 * MIB, 44 * MIB],
        ordered_bytes=10 * MIB,
        pool_bytes=32 * MIB,
        context_bytes=530 * MIB,
        code_bytes=[0, 92 * MIB],
        process_bytes=[606 * MIB, 700 * MIB],
        used_bytes=800 * MIB,
    )
    found = bands(rows)
    # pages are 4 MiB more than was asked for, and the pool keeps 22
    assert found.base.tolist() == [(530 + 4 + 22) * MIB, (530 + 92 + 4 + 22) * MIB]
    assert found.unexplained.tolist() == [0, 2 * MIB]
    assert bands(rows, base_bytes=0).base.tolist() == found.base.tolist()
