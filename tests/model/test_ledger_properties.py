"""Whatever is thrown at the reference ledger, its sums agree with its live set after each event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings

from gpumem_magic.model.events import NO_DEVICE, Layer, layer_of
from gpumem_magic.model.ledger import ReferenceLedger

from .strategies import event_streams, long_streams, random_stream, wild_streams

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_after_each(stream: Iterable[np.void]) -> ReferenceLedger:
    ledger = ReferenceLedger()
    for row in stream:
        ledger.apply(row)
        ledger.self_check()
    return ledger


@given(event_streams())
@settings(max_examples=400, deadline=None)
def test_invariants_hold_after_each_event(stream: np.ndarray) -> None:
    check_after_each(stream)


@given(wild_streams())
@settings(max_examples=200, deadline=None)
def test_invariants_hold_for_any_bytes(stream: np.ndarray) -> None:
    check_after_each(stream)


@given(long_streams(length=400))
@settings(max_examples=10, deadline=None)
def test_invariants_hold_in_long_streams(stream: np.ndarray) -> None:
    check_after_each(stream)


@given(event_streams())
@settings(max_examples=100, deadline=None)
def test_peaks_are_the_largest_values_ever_seen(stream: np.ndarray) -> None:
    ledger, peaks = ReferenceLedger(), dict[tuple[int, int], tuple[int, int]]()
    for row in stream:
        ledger.apply(row)
        for meter in ledger.meters:
            key, live = (int(meter["device"]), int(meter["layer"])), int(meter["live_bytes"])
            if live > peaks.get(key, (0, 0))[0]:
                peaks[key] = (live, int(row["time_ns"]))
    kept = {(int(m["device"]), int(m["layer"])): (int(m["peak_bytes"]), int(m["peak_ns"])) for m in ledger.meters}
    assert kept == {key: peaks.get(key, (0, 0)) for key in kept}


@given(event_streams())
@settings(max_examples=100, deadline=None)
def test_tables_tell_the_same_story(stream: np.ndarray) -> None:
    ledger = check_after_each(stream)
    live: dict[tuple[int, int], int] = {}
    for row in ledger.allocations:
        layer = layer_of(int(row["kind"]), int(row["device"]))
        key = (NO_DEVICE if layer is Layer.HOST else int(row["device"]), int(layer))
        live[key] = live.get(key, 0) + int(row["size"])
        birth = stream[int(row["serial"])]
        assert (row["kind"], row["size"], row["birth_ns"]) == (birth["kind"], birth["size"], birth["time_ns"])
    for meter in ledger.meters:
        assert meter["live_bytes"] == live.get((int(meter["device"]), int(meter["layer"])), 0)
    assert int(ledger.sites["failed_count"].sum()) == np.count_nonzero(stream["status"])
    assert ledger.counters["events"] == len(stream)


def test_long_streams_reach_every_counter() -> None:
    ledger = ReferenceLedger()
    ledger.apply_all(random_stream(seed=1, length=6000))
    assert [name for name, count in ledger.counters.items() if count == 0] == []
    assert (ledger.allocations["references"] == 0).any(), "no physical outlived its references"
    assert (ledger.allocations["references"] > 1).any(), "nothing was opened twice"
