"""Device and host memory over time, sampled on one clock, in rows that can be merged.

A sampler takes a row of every device each period (0.1 s by default). Of what the tracker sees, a row keeps the
extremes within its stretch, so no spike of one event is lost; of what NVML measures, the highest of its samples too;
everything else as it was at the end of the stretch. Rows are kept in levels: level 0 has one sample in a row, and a
row of level k has the ``FACTOR ** k`` samples whose index gives the same number when divided by that. Each level keeps
its latest ``LEVEL_ROWS`` rows, so the latest minutes are fine, the hours before them ever coarser, and the whole is
bounded.
"""

from __future__ import annotations

import dataclasses

import numpy as np

UNKNOWN = -1
"""In every column of bytes: nobody could tell. Never 0 by default."""

FACTOR = 4
LEVELS = 8
LEVEL_ROWS = 1024

HISTORY_DTYPE = np.dtype(
    [
        ("index", "<u8"),  # of its first sample; samples are numbered from 0, all devices with the same number
        ("begin_ns", "<u8"),  # the monotonic clock of the events; the end of the row before it
        ("end_ns", "<u8"),  # when its last sample was taken
        ("tracked_min", "<i8"),  # live bytes of the device layer, by the ledger: lowest within the row,
        ("tracked_max", "<i8"),  # highest within the row,
        ("tracked_bytes", "<i8"),  # and at its end; all three UNKNOWN while calls are not seen
        ("used_bytes", "<i8"),  # NVML: all processes, without what the driver reserves where NVML tells it apart
        ("used_max", "<i8"),  # the highest of the samples merged
        ("reserved_bytes", "<i8"),  # NVML: the driver's own
        ("process_bytes", "<i8"),  # NVML: this process, its context and modules included
        ("process_max", "<i8"),  # the highest of the samples merged
        ("driver_used_bytes", "<i8"),  # cuMemGetInfo: total minus free; asked only where NVML tells no used bytes
        ("torch_allocated_bytes", "<i8"),  # in tensors, by torch's own count
        ("torch_reserved_bytes", "<i8"),  # in torch's pool
        ("cupy_used_bytes", "<i8"),  # handed out by CuPy's default pool
        ("paged_bytes", "<i8"),  # what the device gives for allocations: whole pages, all but stream-ordered memory
        ("ordered_bytes", "<i8"),  # asked for in stream-ordered memory, which lies in pools of the driver
        ("pool_bytes", "<i8"),  # held by these pools; 0 while nothing was allocated in them
        ("context_bytes", "<i8"),  # of the process: came with its contexts, or was there before the first sample
        ("code_bytes", "<i8"),  # of the process: came when kernels were loaded, their local memory included
        ("utilization", "<f4"),  # NVML: per cent of the time in which a kernel ran, mean over the samples that knew it
        ("known", "<u4"),  # samples that knew the utilization; with 0, it is NaN
        ("samples", "<u4"),  # merged into this row
        ("device", "u1"),  # ordinal
        ("level", "u1"),
        ("reserved", "<u2"),
    ],
)
assert HISTORY_DTYPE.itemsize == 176, "the native core writes rows of 176 bytes"

HOST_DTYPE = np.dtype(
    [
        ("index", "<u8"),
        ("begin_ns", "<u8"),
        ("end_ns", "<u8"),
        ("rss_bytes", "<i8"),  # resident memory of this process
        ("rss_max", "<i8"),
        ("anonymous_bytes", "<i8"),  # of it, not backed by a file or shared: the heaps of Python and of native code
        ("anonymous_max", "<i8"),
        ("samples", "<u4"),
        ("level", "u1"),
        ("reserved", "V3"),
    ],
)
assert HOST_DTYPE.itemsize == 64, "the native core writes rows of 64 bytes"


MEASURES = {"process_bytes": "process_max", "used_bytes": "used_max", "driver_used_bytes": "driver_used_bytes"}
"""Columns that measure how full a device is, the one that says most of this process first, and where its highest is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HistoryDelta:
    """What came since some index."""

    rows: np.ndarray  # HISTORY_DTYPE: complete samples, by index, then device
    open: np.ndarray  # HISTORY_DTYPE: one of each device that is sampled, tracked up to this moment, not complete yet
    host: np.ndarray  # HOST_DTYPE
    host_open: np.ndarray  # HOST_DTYPE
    next_index: int  # of the next sample; ask for what came since this one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLevels:
    """All that is kept."""

    rows: np.ndarray  # HISTORY_DTYPE: device by device, level by level, by time
    host: np.ndarray  # HOST_DTYPE: level by level, by time
    next_index: int  # of the next sample


def measured(rows: np.ndarray) -> np.ndarray:
    """The most telling measure that is known of each row (int64); UNKNOWN where there is none."""
    best = np.full(len(rows), UNKNOWN, np.int64)
    for column in reversed(MEASURES):
        best = np.where(rows[column] != UNKNOWN, rows[column], best)
    return best


def merged(rows: np.ndarray) -> np.ndarray:
    """One row of the next level from rows of one device (HISTORY_DTYPE), in order of time; at least one.

    The same as the native core does; it serves to check that one.
    """
    row = rows[-1:].copy()
    for name in ("index", "begin_ns"):
        row[name] = rows[name][0]
    known = rows["tracked_max"] != UNKNOWN
    if known.any():
        row["tracked_min"] = rows["tracked_min"][known].min()
        row["tracked_max"] = rows["tracked_max"][known].max()
    for name in ("used_max", "process_max"):
        row[name] = rows[name].max()
    row["known"] = rows["known"].sum()
    weights = rows["known"].astype(np.float64)
    shares = np.where(rows["known"] > 0, rows["utilization"], 0) * weights
    row["utilization"] = shares.sum() / weights.sum() if weights.sum() else np.nan
    row["samples"] = rows["samples"].sum()
    row["level"] = rows["level"][0] + 1
    return row


def merged_host(rows: np.ndarray) -> np.ndarray:
    """The same for rows of the host (HOST_DTYPE)."""
    row = rows[-1:].copy()
    for name in ("index", "begin_ns"):
        row[name] = rows[name][0]
    for name in ("rss_max", "anonymous_max"):
        row[name] = rows[name].max()
    row["samples"] = rows["samples"].sum()
    row["level"] = rows["level"][0] + 1
    return row


def finest(rows: np.ndarray, begin_ns: int = 0) -> np.ndarray:
    """Of one device's rows of all levels, the finest that is known of every moment since ``begin_ns``, by time.

    No two of them overlap: a level begins where a row of the next one ends.
    """
    kept: list[np.ndarray] = []
    until = np.iinfo(np.uint64).max
    for level in range(int(rows["level"].max(initial=0)) + 1):
        mine = rows[(rows["level"] == level) & (rows["index"] < until)]
        coarser = rows[rows["level"] == level + 1]
        if len(mine) and len(coarser) and coarser["index"][0] < mine["index"][0]:
            length = FACTOR ** (level + 1)
            mine = mine[mine["index"] >= -(-int(mine["index"][0]) // length) * length]
        if len(mine):
            kept.append(mine)
            until = mine["index"][0]
    found = np.concatenate(kept[::-1]) if kept else rows[:0]
    return found[found["end_ns"] > begin_ns]


def covering(rows: np.ndarray, begin_ns: int, points: int) -> np.ndarray:
    """Of one device's rows of all levels, those of the finest level that reaches back to ``begin_ns`` with ``points``.

    Falls back to the coarsest level that there is.
    """
    mine = rows[:0]
    for level in range(int(rows["level"].max(initial=0)) + 1):
        candidate = rows[(rows["level"] == level) & (rows["end_ns"] > begin_ns)]
        if not len(candidate):
            continue
        mine = candidate
        whole = rows[rows["level"] == level]
        reaches = int(whole["begin_ns"][0]) <= begin_ns or int(whole["index"][0]) == 0
        if reaches and len(mine) <= points:
            break
    return mine


def by_device(rows: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each device, in their order."""
    return {int(device): rows[rows["device"] == device] for device in np.unique(rows["device"])}
