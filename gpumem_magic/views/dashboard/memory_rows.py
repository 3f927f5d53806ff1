"""Samples as rows of numbers for the page: what a device's bytes consist of, and the host's memory."""

from __future__ import annotations

import gzip
import itertools
import time
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.bands import BAND_NAMES, Bands, bands, settled_base
from gpumem_magic.model.history import UNKNOWN, by_device, finest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpumem_magic.model.history import HistoryDelta, HistoryLevels
    from gpumem_magic.views.dashboard.clock import Clock

HOST_DEVICE = 255
COLUMNS = 11
SETTLE_S = 0.5
_UNBOUNDED = 1 << 62


class MemoryRows:
    """Knows of each device what was measured last and what lies below all tracked memory. Not thread-safe.

    A row is [device, index, begin, end, five bands, low, high, utilization]; one of the host has ``HOST_DEVICE``, and
    resident and anonymous bytes in the place of the first bands.
    """

    def __init__(self, clock: Clock, devices: Iterable[int], levels: Callable[[], HistoryLevels]) -> None:
        self._clock = clock
        self._levels = levels
        self._bases: dict[int, int] = {}
        self._untracked: dict[int, int] = {}  # of the row that was told last, by device
        self._measured: dict[int, tuple[int, int]] = {}  # NVML's latest answers: of this process, of all
        self._unsettled = set(devices)
        self._settle_due = 0.0

    def of(self, delta: HistoryDelta) -> list[list[float]]:
        """The rows of new samples, and of those being made."""
        rows = self._band_rows(np.concatenate((delta.rows, delta.open)))
        return rows + self._host_rows(np.concatenate((delta.host, delta.host_open)))

    def packed(self, levels: HistoryLevels, since_ns: int) -> bytes:
        """[device, level, index, begin, end, …] per row that ends after ``since_ns``, as float64, compressed."""
        self._fill(levels.rows[levels.rows["level"] == 0])
        self._settle()
        rows, host = (each[each["end_ns"] > since_ns] for each in (levels.rows, levels.host))
        parts = []
        for device, mine in by_device(rows).items():
            base = self._bases.get(device, _UNBOUNDED)
            for level in np.unique(mine["level"]):
                whole = mine[mine["level"] == level]
                columns = self._band_columns(whole["device"], bands(whole, base_bytes=base))
                parts.append(np.stack([whole["level"], *columns], axis=1))
        parts.append(np.stack([host["level"], *self._host_columns(host)], axis=1))
        table = np.concatenate(parts).astype("<f8")
        table[:, [0, 1]] = table[:, [1, 0]]  # the device comes first
        return gzip.compress(table.tobytes(), 1)

    def _band_rows(self, rows: np.ndarray) -> list[list[float]]:
        """Device by device, by time."""
        if not len(rows):
            return []
        if self._unsettled and time.monotonic() >= self._settle_due:
            known = {int(device) for device in rows["device"][rows["process_bytes"] != UNKNOWN]}
            if known & self._unsettled:
                self._settle()
        rows = rows[np.argsort(rows["device"], kind="stable")]
        self._fill(rows)
        limits = np.array([self._bases.get(device, _UNBOUNDED) for device in rows["device"].tolist()])
        found = bands(rows, base_bytes=limits, before=self._untracked)
        self._untracked |= zip(rows["device"].tolist(), found.untracked.tolist(), strict=True)
        columns = self._band_columns(rows["device"], found)
        return list(map(list, zip(*(column.tolist() for column in columns), strict=True)))

    def _fill(self, rows: np.ndarray) -> None:
        """Put what was known before in the place of what could not be asked: a question that failed frees nothing."""
        columns = [rows[name].tolist() for name in ("device", "process_bytes", "used_bytes", "driver_used_bytes")]
        for row, (device, process, used, driver_used) in enumerate(zip(*columns, strict=True)):
            before = self._measured.get(device, (UNKNOWN, UNKNOWN))
            known = next((each for each in (used, driver_used) if each != UNKNOWN), before[1])
            self._measured[device] = (process if process != UNKNOWN else before[0], known)
            rows["process_bytes"][row] = self._measured[device][0]
            if used == driver_used == UNKNOWN:
                rows["used_bytes"][row] = known

    def _band_columns(self, device: np.ndarray, found: Bands) -> list[np.ndarray]:
        return [
            device,
            found.index,
            self._clock.columns(found.begin_ns),
            self._clock.columns(found.end_ns),
            *(getattr(found, name) for name in BAND_NAMES),
            found.low,
            found.high,
            np.where(np.isnan(found.utilization), -1.0, np.round(found.utilization, 1)),
        ]

    def _settle(self) -> None:
        """Find out what lies below all tracked memory of a device, once that is known; see ``settled_base``."""
        self._settle_due = time.monotonic() + SETTLE_S
        rows = self._levels().rows
        for device in tuple(self._unsettled):
            base = settled_base(finest(rows[rows["device"] == device]))
            if base is not None:
                self._bases[device] = base
                self._unsettled.discard(device)

    def _host_rows(self, rows: np.ndarray) -> list[list[float]]:
        return list(map(list, zip(*(column.tolist() for column in self._host_columns(rows)), strict=True)))

    def _host_columns(self, rows: np.ndarray) -> list[np.ndarray]:
        zeros = np.zeros(len(rows))
        return [
            np.full(len(rows), HOST_DEVICE),
            rows["index"],
            self._clock.columns(rows["begin_ns"]),
            self._clock.columns(rows["end_ns"]),
            *(np.maximum(rows[name], 0) for name in ("rss_bytes", "rss_max", "anonymous_bytes", "anonymous_max")),
            *itertools.repeat(zeros, 3),
            zeros - 1,
        ]
