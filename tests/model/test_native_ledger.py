"""The native ledger and the reference hand out the same rows for the same events, whatever the events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings

from gpumem_magic import _core
from gpumem_magic.model.events import EVENT_DTYPE
from gpumem_magic.model.ledger import ReferenceLedger
from gpumem_magic.model.tables import (
    ALLOCATION_DTYPE,
    COUNTERS,
    MAPPING_DTYPE,
    METER_DTYPE,
    SITE_DTYPE,
    SPAN_DTYPE,
    SPAN_METER_DTYPE,
)

from .strategies import event_streams, long_streams, random_stream, wild_streams

ORDERS = {
    "allocations": (ALLOCATION_DTYPE, ["serial"]),
    "mappings": (MAPPING_DTYPE, ["address"]),
    "sites": (SITE_DTYPE, ["stack", "cell", "library", "kind", "device"]),
    "meters": (METER_DTYPE, ["device", "layer"]),
    "spans": (SPAN_DTYPE, ["id"]),
    "span_meters": (SPAN_METER_DTYPE, ["span", "device", "layer"]),
}
"""Tables by name: layout, and the columns that tell rows apart, in the canonical order."""


def native_tables(stream: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    raw = _core.replay_events(stream.tobytes())
    assert set(raw) == {*ORDERS, "counters"}
    tables = {name: np.frombuffer(raw[name], dtype) for name, (dtype, _) in ORDERS.items()}
    counters = np.frombuffer(raw["counters"], "<u8").tolist()
    return tables, dict(zip(COUNTERS, counters, strict=True))


def assert_ledgers_agree(stream: np.ndarray) -> None:
    reference = ReferenceLedger()
    reference.apply_all(stream)
    tables, counters = native_tables(stream)
    assert counters == reference.counters
    for name, (_, order) in ORDERS.items():
        rows = np.sort(tables[name], order=order, kind="stable")
        # As tuples: a difference is shown field by field, and reserved fields must be 0 too.
        assert rows.tolist() == getattr(reference, name).tolist(), name


@given(event_streams())
@example(np.zeros(0, EVENT_DTYPE))
@settings(max_examples=500, deadline=None)
def test_streams_of_collisions(stream: np.ndarray) -> None:
    assert_ledgers_agree(stream)


@given(wild_streams())
@settings(max_examples=200, deadline=None)
def test_streams_of_any_bytes(stream: np.ndarray) -> None:
    assert_ledgers_agree(stream)


@given(long_streams())
@settings(max_examples=25, deadline=None)
def test_long_streams(stream: np.ndarray) -> None:
    assert_ledgers_agree(stream)


def test_every_prefix_of_a_long_stream() -> None:
    stream = random_stream(seed=7, length=300)
    for length in range(len(stream) + 1):
        assert_ledgers_agree(stream[:length])


@pytest.mark.parametrize("spare_bytes", [1, 63])
def test_part_of_an_event_is_refused(spare_bytes: int) -> None:
    stream = random_stream(seed=3, length=5)
    with pytest.raises(ValueError, match="whole records of 64 bytes"):
        _core.replay_events(stream.tobytes()[: -64 + spare_bytes])
