"""Times as the page shows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Process


class Clock:
    """Turns the clock of the events into milliseconds of the kernel's wall clock, its offset from UTC included.

    The page shows these as if they were UTC, so it shows the time of the machine that the kernel runs on.
    """

    def __init__(self, process: Process) -> None:
        offset_s = time.localtime(process.started_unix_ns / 1e9).tm_gmtoff
        self._at_zero = (process.started_unix_ns - process.started_ns) / 1e6 + offset_s * 1e3

    def __call__(self, time_ns: int) -> float:
        return round(self._at_zero + time_ns / 1e6, 3)

    def time_ns(self, milliseconds: float) -> int:
        """Back to the clock of the events, to the microsecond."""
        return round((milliseconds - self._at_zero) * 1e6)

    def columns(self, time_ns: np.ndarray) -> np.ndarray:
        """The same for many at once (float64)."""
        milliseconds: np.ndarray = np.round(self._at_zero + time_ns.astype(np.float64) / 1e6, 3)
        return milliseconds
