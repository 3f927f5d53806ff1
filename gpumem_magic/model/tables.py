"""Columns in which the ledger hands out its state.

The native core fills these records byte for byte; ``docs/recording-format.md`` says how they come about.
"""

from __future__ import annotations

import numpy as np

ALLOCATION_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("size", "<u8"),  # bytes asked for
        ("birth_ns", "<u8"),
        ("handle", "<u8"),
        ("serial", "<u8"),  # index of the birth event in the recording
        ("references", "<u4"),
        ("mappings", "<u4"),
        ("stack", "<u4"),
        ("cell", "<u4"),
        ("thread", "<u4"),
        ("context", "<u4"),
        ("stream", "<u4"),
        ("library", "<u2"),
        ("function", "<u2"),
        ("kind", "u1"),
        ("device", "u1"),
        ("flags", "<u2"),
        ("reserved", "<u4"),
    ],
)
assert ALLOCATION_DTYPE.itemsize == 80, "the native core writes allocations of 80 bytes"

MAPPING_DTYPE = np.dtype(
    [
        ("address", "<u8"),  # start of the mapped range
        ("size", "<u8"),
        ("handle", "<u8"),  # physical handle given to cuMemMap
        ("serial", "<u8"),  # of the physical allocation; NO_SERIAL when it is not known
    ],
)
NO_SERIAL = 2**64 - 1

SITE_DTYPE = np.dtype(
    [
        ("stack", "<u4"),
        ("cell", "<u4"),
        ("library", "<u2"),
        ("kind", "u1"),
        ("device", "u1"),
        ("reserved", "<u4"),
        ("allocated_count", "<u8"),
        ("allocated_bytes", "<u8"),
        ("freed_count", "<u8"),
        ("freed_bytes", "<u8"),
        ("peak_bytes", "<u8"),
        ("failed_count", "<u8"),
    ],
)
assert SITE_DTYPE.itemsize == 64, "the native core writes sites of 64 bytes"

METER_DTYPE = np.dtype(
    [
        ("device", "u1"),
        ("layer", "u1"),
        ("reserved", "<u2"),
        ("reserved2", "<u4"),
        ("live_count", "<u8"),
        ("live_bytes", "<u8"),
        ("peak_bytes", "<u8"),
        ("peak_ns", "<u8"),
        ("allocated_bytes", "<u8"),
        ("freed_bytes", "<u8"),
    ],
)
assert METER_DTYPE.itemsize == 56, "the native core writes meters of 56 bytes"

SPAN_DTYPE = np.dtype(
    [
        ("id", "<u4"),
        ("parent", "<u4"),  # 0 when it has none
        ("thread", "<u4"),
        ("reserved", "<u4"),
        ("begin_ns", "<u8"),
        ("end_ns", "<u8"),  # 0 while it is open
    ],
)
assert SPAN_DTYPE.itemsize == 32, "the native core writes spans of 32 bytes"

SPAN_METER_DTYPE = np.dtype(
    [
        ("span", "<u4"),
        ("device", "u1"),
        ("layer", "u1"),
        ("reserved", "<u2"),
        ("begin_bytes", "<u8"),
        ("end_bytes", "<u8"),  # live now, while the span is open
        ("peak_bytes", "<u8"),
        ("peak_ns", "<u8"),
    ],
)
assert SPAN_METER_DTYPE.itemsize == 40, "the native core writes span meters of 40 bytes"

NODE_DTYPE = np.dtype([("parent", "<u4"), ("code", "<u4"), ("lasti", "<i4")])
assert NODE_DTYPE.itemsize == 12, "the native core writes nodes of 12 bytes"

COUNTERS = (
    "events",
    "births",
    "deaths",
    "failures",
    "unknown_frees",
    "null_frees",
    "null_births",
    "missed_frees",
    "deferred_frees",
    "absent",
    "unknown_maps",
    "context_deaths",
    "gaps",
    "span_overflow",
    "unknown_kinds",
)
"""Names of the ledger's counters, in the order in which the native core hands them out (u64 each)."""

SERIES_DTYPE = np.dtype(
    [
        ("begin_ns", "<u8"),
        ("min_bytes", "<u8"),
        ("max_bytes", "<u8"),
        ("last_bytes", "<u8"),
        ("device", "u1"),
        ("reserved", "V7"),
    ],
)
"""Live device bytes over the whole recording in at most 2048 buckets per device, extremes kept."""
assert SERIES_DTYPE.itemsize == 40, "the native core writes buckets of 40 bytes"
