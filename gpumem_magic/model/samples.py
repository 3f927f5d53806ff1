"""Samples: what could be learned of device memory where calls cannot be seen."""

from __future__ import annotations

import numpy as np

UNKNOWN = -1
"""In every column of bytes: nobody could tell. Never 0 by default."""

SAMPLE_DTYPE = np.dtype(
    [
        ("time_ns", "<u8"),  # the monotonic clock of the events
        ("device", "u1"),  # ordinal
        ("used_bytes", "<i8"),  # NVML: all processes, without what the driver reserves where NVML tells it apart
        ("reserved_bytes", "<i8"),  # NVML: the driver's own
        ("process_bytes", "<i8"),  # NVML: this process, its context and modules included
        ("driver_used_bytes", "<i8"),  # cuMemGetInfo: total minus free, all processes
        ("torch_allocated_bytes", "<i8"),  # in tensors, by torch's own count
        ("torch_reserved_bytes", "<i8"),  # in torch's pool
        ("cupy_used_bytes", "<i8"),  # handed out by CuPy's default pool
    ],
)

LEVELS = ("process_bytes", "used_bytes", "driver_used_bytes")
"""Columns that measure how full a device is, the one that says most of this process first."""


def level(samples: np.ndarray) -> np.ndarray:
    """The best known measure of each sample (int64); UNKNOWN where there is none."""
    best = np.full(len(samples), UNKNOWN, np.int64)
    for column in reversed(LEVELS):
        best = np.where(samples[column] != UNKNOWN, samples[column], best)
    return best
