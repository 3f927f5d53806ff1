"""Histories by hand: say what the device held at each sample, get the rows that the sampler would have kept."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.device_history import recorded_bands
from gpumem_magic.model.history import (
    FACTOR,
    HISTORY_DTYPE,
    HOST_DTYPE,
    LEVEL_ROWS,
    LEVELS,
    UNKNOWN,
    merged,
    merged_host,
)
from tests.analysis.build import CUBLAS, GIB, IPYTHON, LINEAR, MIB, SECOND, START_NS, Recording, notebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumem_magic.model.snapshot import Snapshot

PERIOD_NS = SECOND // 10
_BYTES = tuple(name for name in HISTORY_DTYPE.names if HISTORY_DTYPE[name].kind == "i")


def samples(device: int, count: int, *, begin_ns: int = START_NS, **columns: object) -> np.ndarray:
    """``count`` rows of level 0, one each 0.1 s. Columns that are not given are unknown.

    ``tracked_bytes`` alone stands for its extremes too, ``used_bytes`` and ``process_bytes`` for their highest.
    """
    rows = np.zeros(count, HISTORY_DTYPE)
    rows["index"] = np.arange(count)
    rows["begin_ns"] = begin_ns + PERIOD_NS * np.arange(count)
    rows["end_ns"] = rows["begin_ns"] + PERIOD_NS
    for name in _BYTES:
        rows[name] = UNKNOWN
    rows["utilization"] = np.nan
    rows["samples"], rows["device"] = 1, device
    for name in ("tracked_min", "tracked_max"):
        rows[name] = columns.get("tracked_bytes", UNKNOWN)
    rows["used_max"] = columns.get("used_bytes", UNKNOWN)
    rows["process_max"] = columns.get("process_bytes", UNKNOWN)
    for name, values in columns.items():
        rows[name] = values
    rows["known"] = ~np.isnan(rows["utilization"])
    return rows


def host_samples(count: int, resident: object, anonymous: object = UNKNOWN, *, begin_ns: int = START_NS) -> np.ndarray:
    """``count`` rows of the host of level 0."""
    rows = np.zeros(count, HOST_DTYPE)
    rows["index"] = np.arange(count)
    rows["begin_ns"] = begin_ns + PERIOD_NS * np.arange(count)
    rows["end_ns"] = rows["begin_ns"] + PERIOD_NS
    rows["rss_bytes"] = rows["rss_max"] = resident
    rows["anonymous_bytes"] = rows["anonymous_max"] = anonymous
    rows["samples"] = 1
    return rows


def all_levels(
    rows: np.ndarray, keep: int = LEVEL_ROWS, merge: Callable[[np.ndarray], np.ndarray] = merged
) -> np.ndarray:
    """Rows of level 0 of one device, merged upwards; of each level the latest ``keep``, the last row maybe partial."""
    kept = []
    for _ in range(LEVELS):
        kept.append(rows[-keep:])
        number = rows["index"] // FACTOR ** (int(rows["level"][0]) + 1)
        starts = np.flatnonzero(np.diff(number.astype(np.int64), prepend=-1))
        rows = np.concatenate([merge(group) for group in np.split(rows, starts[1:])])
    return np.concatenate(kept)


def watched(devices: int = 1, **process: object) -> Snapshot:
    """A training run of 100 s that was sampled all the time: steady growth, a spike, a refused call, a gap.

    Device n holds a tenth less than device n - 1.
    """
    recording = Recording(*[("NVIDIA H200", "141GiB")] * devices, started_unix_ns=1_760_000_000 * SECOND, **process)
    with recording.cell(1, "import torch"):
        recording.wait(2)
    with recording.cell(2, "model = build()", cell_id="c2"):
        for device in range(devices):
            recording.alloc(_tenths(24 * GIB, device), MODEL, notebook(77, 1), IPYTHON, device=device)
        recording.wait(18)
    for count in range(3, 8):
        with recording.cell(count, f"print({count})"):
            recording.wait(0.2)
    recording.wait(9)
    with recording.cell(8, "losses = train(model, loader, steps=2000)", error="OutOfMemoryError"):
        _train(recording, devices)
    recording.gap(10, "torch.profiler took over CUPTI")
    with recording.cell(9, "evaluate(model)"):
        recording.wait(15)
    recording.alloc(3 * MIB, library="/usr/lib/x86_64-linux-gnu/libnccl.so.2")
    snapshot = recording.snapshot()
    count = (snapshot.time_ns - START_NS) // PERIOD_NS
    resident = (GIB + 30 * MIB * np.minimum(np.arange(count), 300)).astype(np.int64)
    return dataclasses.replace(
        snapshot,
        history=np.concatenate([all_levels(_sampled(snapshot, device, count)) for device in range(devices)]),
        host_history=all_levels(host_samples(count, resident, resident * 6 // 10), merge=merged_host),
    )


MODEL = ("/home/ada/project/model.py", "Net.__init__", 31)
STEP = ("/home/ada/project/train.py", "step", 12)


def _tenths(size: int, device: int) -> int:
    return size * (10 - device) // 10


def _train(recording: Recording, devices: int) -> None:
    recording.alloc(2 * GIB, LINEAR, notebook(78, 3), IPYTHON, library=CUBLAS)
    for step in range(30):
        for device in range(devices):
            recording.alloc(_tenths(2 * GIB, device), STEP, notebook(78, 3), IPYTHON, device=device)
        recording.wait(1)
        if step == 20:
            recording.free(recording.alloc(40 * GIB, STEP, notebook(78, 3), IPYTHON))
    recording.fail(80 * GIB, STEP, notebook(78, 3), IPYTHON)


def _sampled(snapshot: Snapshot, device: int, count: int) -> np.ndarray:
    """What the sampler would have seen of a device of ``snapshot``, its torch, and others on the device."""
    whole = recorded_bands(snapshot, device, START_NS)
    assert whole is not None
    ends = START_NS + PERIOD_NS * np.arange(1, count + 1)
    last = np.searchsorted(whole.begin_ns, ends, side="right") - 1
    first = np.searchsorted(whole.begin_ns, ends - PERIOD_NS, side="right") - 1
    tracked = whole.live[last]
    lows, highs = ([pick(whole.live[a : b + 1]) for a, b in zip(first, last, strict=True)] for pick in (min, max))
    seconds = np.arange(count) / 10
    trains = (seconds > 30) & (seconds < 60)
    own = tracked + 560 * MIB * (seconds > 1) + 3 * GIB * (seconds > 31)
    return samples(
        device,
        count,
        tracked_bytes=tracked,
        tracked_min=lows,
        tracked_max=highs,
        process_bytes=own,
        used_bytes=own + np.where((seconds > 35) & (seconds < 50), 14 * GIB, 6 * GIB),
        reserved_bytes=615 * MIB,
        torch_reserved_bytes=tracked,
        torch_allocated_bytes=(tracked * np.where(trains, 0.7 + 0.2 * np.abs(np.sin(seconds)), 0.9)).astype(np.int64),
        utilization=np.where(trains, 80 + 15 * np.abs(np.cos(seconds)), np.where(seconds > 2, 5, np.nan)),
    )
