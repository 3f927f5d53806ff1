"""What fills a device over time, in bands that add up to what the device reports as used."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.model.history import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

BAND_NAMES = ("other", "base", "unexplained", "live", "cached")
"""From the bottom of the picture to its top: what rarely moves lies below what does."""

BAND_LABELS = {
    "other": "other processes",
    "base": "context, code, spare pages",
    "unexplained": "not explained",
    "live": "live",
    "cached": "cached by the framework",
}
BAND_HINTS = {
    "other": "held by other processes; the context of this one too, where the driver does not tell its share",
    "base": "the CUDA context and what this process held before tracking began; code and local memory of the kernels "
    "loaded since; what whole pages are larger than what was asked for; what the driver's own pools keep",
    "unexplained": "the device reports it, no allocation call asked for it, and it came with no context and no kernel",
    "live": "asked for by allocation calls and in use",
    "cached": "kept by the framework's pool for its next tensors; empty_cache() gives it back",
}

_SETTLED_ROWS = 3
_SETTLED_BYTES = 2 << 20  # one page of device memory


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """Columns of the same length, by time. Bytes are int64."""

    device: int
    index: np.ndarray  # number of the first sample in the row
    begin_ns: np.ndarray
    end_ns: np.ndarray
    other: np.ndarray
    base: np.ndarray
    unexplained: np.ndarray
    live: np.ndarray
    cached: np.ndarray
    low: np.ndarray  # lowest and highest tracked bytes within the row, exact at every event; with ``floor`` below them
    high: np.ndarray
    utilization: np.ndarray  # float, NaN where unknown
    knows_total: bool  # False when nobody tells how full the device is: the bands below ``live`` are empty then
    knows_processes: bool  # False when NVML does not tell this process's share: ``base`` is in ``other`` then

    @property
    def floor(self) -> np.ndarray:
        """What lies below the tracked bytes."""
        total: np.ndarray = self.other + self.base + self.unexplained
        return total

    @property
    def untracked(self) -> np.ndarray:
        """What this process holds beside tracked memory."""
        total: np.ndarray = self.base + self.unexplained
        return total

    @property
    def total(self) -> np.ndarray:
        total: np.ndarray = self.floor + self.live + self.cached
        return total

    def self_check(self) -> None:
        """Assert that no band is negative and that live and cached make up what is tracked at the row's end."""
        for name in BAND_NAMES:
            assert (getattr(self, name) >= 0).all(), f"{name} is negative somewhere"
        tracked = self.live + self.cached
        assert ((self.low <= tracked) & (tracked <= self.high)).all(), "tracked bytes are outside their extremes"


def bands(
    rows: np.ndarray, *, base_bytes: int | np.ndarray | None = None, before: Mapping[int, int] | None = None
) -> Bands:
    """The bands of one device; or of several, one after the other, each with a ``base_bytes`` of its own.

    Args:
        rows: HISTORY_DTYPE, by device, then by time; at least one.
        base_bytes: what ``settled_base`` found, when ``rows`` do not reach back to the begin; may differ by row.
        before: what each device held beside tracked memory in the row before the first (``untracked`` of that), by
            ordinal, where it is known.
    """
    tracked = _tracked(rows)
    device = rows["device"]
    used = _carried(np.where(rows["used_bytes"] != UNKNOWN, rows["used_bytes"], rows["driver_used_bytes"]), device)
    process = _carried(rows["process_bytes"], device)
    knows_process = process != UNKNOWN
    own = np.where(knows_process, process, tracked)
    has_extremes = rows["tracked_max"] != UNKNOWN
    low = np.where(has_extremes, np.minimum(rows["tracked_min"], tracked), tracked)
    high = np.where(has_extremes, np.maximum(rows["tracked_max"], tracked), tracked)
    untracked = _steady(
        np.maximum(own - high, 0), np.maximum(own - tracked, 0), np.maximum(own - low, 0), device, before
    )
    base = np.minimum(untracked, _base(rows, tracked, base_bytes))
    cached = _cached(rows, tracked)
    return Bands(
        device=int(rows["device"][0]),
        index=rows["index"],
        begin_ns=rows["begin_ns"],
        end_ns=rows["end_ns"],
        other=np.where(used != UNKNOWN, np.maximum(used - own, 0), 0),
        base=base,
        unexplained=untracked - base,
        live=tracked - cached,
        cached=cached,
        low=low,
        high=high,
        utilization=rows["utilization"].astype(np.float64),
        knows_total=bool((used != UNKNOWN).any()),
        knows_processes=bool(knows_process.any()),
    )


def _base(rows: np.ndarray, tracked: np.ndarray, base_bytes: int | np.ndarray | None) -> np.ndarray:
    """The most that ``base`` may be, by row: what the sampler explained, else what settled first."""
    explained = (rows["context_bytes"] != UNKNOWN) & (tracked == rows["tracked_bytes"])
    pages = np.maximum(rows["paged_bytes"] + rows["ordered_bytes"] - tracked, 0)
    pools = np.maximum(rows["pool_bytes"] - rows["ordered_bytes"], 0)
    limit = settled_base(rows) if base_bytes is None and not explained.all() else base_bytes
    settled = np.iinfo(np.int64).max if limit is None else limit
    made: np.ndarray = np.where(explained, rows["context_bytes"] + rows["code_bytes"] + pages + pools, settled)
    return made


def settled_base(rows: np.ndarray) -> int | None:
    """What this process held beside tracked memory when that first stood still; None while it has not yet.

    A context comes into being within some tenths of a second, and no call tells its size. So the first level that
    keeps within a page for three rows is taken for it; what comes on top later is not explained.
    """
    known = rows[rows["process_bytes"] != UNKNOWN]
    untracked = np.maximum(known["process_bytes"] - _tracked(known), 0)
    if len(untracked) < _SETTLED_ROWS:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(untracked, _SETTLED_ROWS)
    still = (np.ptp(windows, axis=1) <= _SETTLED_BYTES) & (windows[:, 0] > 0)
    return int(windows[int(np.argmax(still))].max()) if still.any() else None


def _steady(
    lowest: np.ndarray, nominal: np.ndarray, highest: np.ndarray, device: np.ndarray, before: Mapping[int, int] | None
) -> np.ndarray:
    """Untracked bytes: as they were, as far as a row's extremes allow.

    NVML is asked some microseconds before the ledger is, and a program that allocates does not wait. So with memory
    that came or went within a row, a range of values is possible; what is in it is no reason to believe in a change.
    """
    steady = nominal.copy()
    last: dict[int, int] = dict(before or {})
    loose = lowest < highest
    # Rows without a choice, which are most of them, are left as they are; each of the others looks at the one before.
    for row in np.flatnonzero(loose).tolist():
        ordinal = int(device[row])
        previous = int(steady[row - 1]) if row and device[row - 1] == ordinal else last.get(ordinal)
        if previous is not None:
            steady[row] = min(max(previous, int(lowest[row])), int(highest[row]))
    return steady


def _carried(column: np.ndarray, device: np.ndarray) -> np.ndarray:
    """``column`` with what is unknown for a while taken to be as it was before: a question that failed frees nothing.

    It stays UNKNOWN up to the first row of a device that knows.
    """
    latest = np.maximum.accumulate(np.where(column != UNKNOWN, np.arange(len(column)), -1))
    carried: np.ndarray = np.where((latest >= 0) & (device[latest] == device), column[latest], UNKNOWN)
    return carried


def _tracked(rows: np.ndarray) -> np.ndarray:
    """Bytes in allocations: by the ledger, else by torch's count of its pool, else 0."""
    pool = np.maximum(rows["torch_reserved_bytes"], 0)
    tracked: np.ndarray = np.where(rows["tracked_bytes"] != UNKNOWN, rows["tracked_bytes"], pool)
    return tracked


def _cached(rows: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """What torch's pool keeps beyond its tensors; 0 where nobody can tell it apart."""
    known = (rows["torch_reserved_bytes"] != UNKNOWN) & (rows["torch_allocated_bytes"] != UNKNOWN)
    spare = np.maximum(rows["torch_reserved_bytes"] - rows["torch_allocated_bytes"], 0)
    cached: np.ndarray = np.where(known, np.minimum(spare, tracked), 0)
    return cached
