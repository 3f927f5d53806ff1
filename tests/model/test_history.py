"""Memory over time in levels: the native cascade against merging by the rules, and what readers pick from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic import _core
from gpumem_magic.model.history import (
    FACTOR,
    HISTORY_DTYPE,
    HOST_DTYPE,
    LEVEL_ROWS,
    LEVELS,
    UNKNOWN,
    by_device,
    finest,
    measured,
    merged,
    merged_host,
)

TENTH_NS = 100_000_000
BYTES = tuple(name for name in HISTORY_DTYPE.names or () if HISTORY_DTYPE[name] == np.dtype("<i8"))


def samples(count: int, seed: int = 0, *, device: int = 0, first: int = 0, unknown: float = 0.2) -> np.ndarray:
    """Rows of level 0 with numbers at random, of which that share is unknown."""
    random = np.random.default_rng(seed)
    rows = np.zeros(count, HISTORY_DTYPE)
    rows["index"] = first + np.arange(count)
    rows["begin_ns"] = 10**12 + rows["index"] * TENTH_NS
    rows["end_ns"] = rows["begin_ns"] + TENTH_NS
    for name in BYTES:
        rows[name] = np.where(random.random(count) < unknown, UNKNOWN, random.integers(0, 1 << 40, count))
    extremes = np.sort(random.integers(0, 1 << 40, (count, 3)), axis=1)
    blind = random.random(count) < unknown
    for column, name in enumerate(("tracked_min", "tracked_bytes", "tracked_max")):
        rows[name] = np.where(blind, UNKNOWN, extremes[:, column])
    rows["used_max"], rows["process_max"] = rows["used_bytes"], rows["process_bytes"]
    rows["known"] = random.random(count) >= unknown
    rows["utilization"] = np.where(rows["known"] == 1, random.integers(0, 101, count), np.nan)
    rows["samples"], rows["device"] = 1, device
    return rows


def host_samples(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, HOST_DTYPE)
    rows["index"] = np.arange(count)
    rows["begin_ns"] = 10**12 + rows["index"] * TENTH_NS
    rows["end_ns"] = rows["begin_ns"] + TENTH_NS
    for name in ("rss_bytes", "anonymous_bytes"):
        rows[name] = random.integers(UNKNOWN, 1 << 40, count)
    rows["rss_max"], rows["anonymous_max"], rows["samples"] = rows["rss_bytes"], rows["anonymous_bytes"], 1
    return rows


def native(rows: np.ndarray, host: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    host = host_samples(0) if host is None else host
    levels = _core.replay_history(rows.tobytes(), host.tobytes())
    return np.frombuffer(levels["rows"], HISTORY_DTYPE), np.frombuffer(levels["host"], HOST_DTYPE)


def expected_level(rows: np.ndarray, level: int) -> np.ndarray:
    """The rows of one level by the rules, straight from the samples."""
    number = rows["index"] // FACTOR**level
    groups = [rows[number == each] for each in np.unique(number)[-LEVEL_ROWS:]]
    merge = merged if rows.dtype == HISTORY_DTYPE else merged_host
    table = np.concatenate([merge(group) for group in groups])
    table["level"] = level
    return table


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    for name in expected.dtype.names or ():
        # Shares are exact in the core and rounded once; the rules round in another order.
        close = {"rtol": 1e-6} if name == "utilization" else {"rtol": 0}
        if name == "reserved":
            assert not np.any(found[name] != np.zeros(1, found.dtype)[name])
        else:
            np.testing.assert_allclose(found[name].astype(float), expected[name].astype(float), err_msg=name, **close)
            if expected.dtype[name].kind in "iu":
                assert (found[name] == expected[name]).all(), name


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.integers(1, 300),
    st.sampled_from([0, 1, 3, 4, 15, 4095, 4096, 1 << 40]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_level_is_what_merging_gives(seed: int, count: int, first: int, unknown: float) -> None:
    rows = samples(count, seed, first=first, unknown=unknown)
    found, _ = native(rows)
    assert set(found["level"].tolist()) == set(range(LEVELS))
    assert_same(found[found["level"] == 0], rows)
    for level in range(LEVELS):
        assert_same(found[found["level"] == level], expected_level(rows, level))


def test_each_level_keeps_its_latest_rows() -> None:
    count = LEVEL_ROWS * FACTOR * 2 + 7
    rows = samples(count, 5)
    found, host = native(rows, host_samples(count, 6))
    for level in range(LEVELS):
        mine = found[found["level"] == level]
        assert len(mine) == min(LEVEL_ROWS, -(-count // FACTOR**level))
        assert_same(mine, expected_level(rows, level))
        assert_same(host[host["level"] == level], expected_level(host_samples(count, 6), level))
    assert (found["tracked_max"].max()) == rows["tracked_max"].max(), "a spike is gone"


def test_merging_merged_rows_is_merging_the_samples() -> None:
    rows = samples(FACTOR**2, 3)
    parts = np.concatenate([merged(rows[at : at + FACTOR]) for at in range(0, len(rows), FACTOR)])
    twice, once = merged(parts), merged(rows)
    once["level"] = 2
    assert_same(twice, once)


def test_rows_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="whole"):
        _core.replay_history(b"x" * 135, b"")


def test_devices_are_kept_apart_and_rows_of_an_older_turn_are_gone() -> None:
    late = samples(10, 2, device=200, first=LEVEL_ROWS * 3)
    old = samples(LEVEL_ROWS, 1, device=200)
    other = samples(20, 4, device=1)
    found, _ = native(np.concatenate((old, other, late)))
    table = by_device(found)
    assert set(table) == {1, 200}
    assert_same(table[1][table[1]["level"] == 0], other)
    assert table[200][table[200]["level"] == 0]["index"].tolist() == late["index"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30_000))
def test_the_finest_rows_cover_all_of_the_time_once(count: int) -> None:
    rows, _ = native(samples(count, 1))
    found = finest(rows)
    assert found["begin_ns"][0] == 10**12
    assert found["end_ns"][-1] == 10**12 + count * TENTH_NS
    assert (found["begin_ns"][1:] == found["end_ns"][:-1]).all()
    assert int(found["samples"].sum()) == count
    assert (np.diff(found["level"].astype(int)) <= 0).all()
    since = int(rows["end_ns"].max()) - 5 * TENTH_NS
    assert len(finest(rows, since)) == min(5, count)


def test_the_measure_is_the_most_telling_one_that_is_known() -> None:
    rows = samples(4, unknown=1.0)
    rows["process_bytes"] = [7, UNKNOWN, UNKNOWN, UNKNOWN]
    rows["used_bytes"] = [70, 71, UNKNOWN, UNKNOWN]
    rows["driver_used_bytes"] = [700, 701, 702, UNKNOWN]
    assert measured(rows).tolist() == [7, 71, 702, UNKNOWN]


def test_nothing_sampled_is_nothing_kept() -> None:
    rows, host = native(samples(0))
    assert len(rows) == len(host) == len(finest(rows)) == 0
