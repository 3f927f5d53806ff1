"""The rows of a history as a picture needs them: up to now, and no more than it can show."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.bands import BAND_NAMES, Bands
from gpumem_magic.analysis.changes import changes
from gpumem_magic.analysis.timelines import MAX_EVENTS, Anchors, Stretch, thinned, timeline
from gpumem_magic.model.history import UNKNOWN

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot


def up_to_now(rows: np.ndarray, meter: np.ndarray, time_ns: int) -> np.ndarray:
    """``rows`` of one device with one more that ends at ``time_ns`` with what the ledger counts at that moment.

    All else on the device is taken to have stayed as it was in the last row.

    Args:
        rows: HISTORY_DTYPE, by time; at least one.
        meter: the device's row of METER_DTYPE, or none.
        time_ns: when the meter was read.
    """
    last = rows[-1]
    if time_ns <= int(last["end_ns"]) or last["tracked_bytes"] == UNKNOWN:
        return rows
    live = int(meter["live_bytes"].sum())
    peaked = meter["peak_bytes"][meter["peak_ns"] > last["end_ns"]]
    row = rows[-1:].copy()
    row["index"] += row["samples"]
    row["begin_ns"], row["end_ns"] = last["end_ns"], time_ns
    row["tracked_min"] = min(live, int(last["tracked_bytes"]))
    row["tracked_max"] = max([live, int(last["tracked_bytes"]), *map(int, peaked)])
    row["tracked_bytes"] = live
    for name in ("process_bytes", "used_bytes", "driver_used_bytes"):
        if last[name] != UNKNOWN:
            row[name] = max(int(last[name]) + live - int(last["tracked_bytes"]), 0)
    return np.concatenate((rows, row))


def recorded_bands(snapshot: Snapshot, device: int, begin_ns: int) -> Bands | None:
    """The bands of a device of which only the recorded calls tell: ``live`` alone. None when nothing tells.

    Exact from the events where all are kept and can be read in no time, else from the recording's buckets.
    """
    events = snapshot.events
    if events.first_index == 0 and 0 < len(events) <= MAX_EVENTS:
        return _bands_of_events(snapshot, device, begin_ns)
    buckets = snapshot.series[snapshot.series["device"] == device]
    if not len(buckets):
        return None
    begins = np.maximum(buckets["begin_ns"].astype(np.int64), begin_ns)
    live, low, high = (buckets[name].astype(np.int64) for name in ("last_bytes", "min_bytes", "max_bytes"))
    return _tracked_only(device, begins, snapshot.time_ns, live, (low, high))


def _bands_of_events(snapshot: Snapshot, device: int, begin_ns: int) -> Bands:
    events = snapshot.events.between(0, snapshot.time_ns)
    meter = device_meter(snapshot, device)
    anchors = Anchors(
        begin_bytes=0,
        end_bytes=int(meter["live_bytes"].sum()),
        peak_bytes=int(meter["peak_bytes"].sum()),
        peak_ns=int(meter["peak_ns"].sum()),
    )
    stretch = Stretch(begin_ns=begin_ns, end_ns=snapshot.time_ns, events=events, changes=changes(events))
    line = timeline(stretch, device, anchors, points=sys.maxsize)
    begins = begin_ns + np.rint(line.seconds * 1e9).astype(np.int64)
    return _tracked_only(device, begins, snapshot.time_ns, line.live_bytes, (line.live_bytes, line.live_bytes))


def device_meter(snapshot: Snapshot, device: int) -> np.ndarray:
    """The device's meter of the device layer: one row, or none while nothing was allocated on it."""
    meters = snapshot.meters
    rows: np.ndarray = meters[(meters["device"] == device) & (meters["layer"] == 0)]
    return rows


def _tracked_only(
    device: int, begins: np.ndarray, end_ns: int, live: np.ndarray, extremes: tuple[np.ndarray, np.ndarray]
) -> Bands:
    nothing = np.zeros(len(live), np.int64)
    return Bands(
        device=device,
        index=np.arange(len(live)),
        begin_ns=begins,
        end_ns=np.append(begins[1:], max(end_ns, int(begins[-1]))),
        **dict.fromkeys(BAND_NAMES, nothing) | {"live": live},
        low=extremes[0],
        high=extremes[1],
        utilization=np.full(len(live), np.nan),
        knows_total=False,
        knows_processes=False,
    )


def within(bands: Bands, begin_ns: int, end_ns: int) -> Bands | None:
    """The rows that reach into ``begin_ns`` to ``end_ns``, cut off at both; None when there are none."""
    inside = (bands.end_ns > begin_ns) & (bands.begin_ns < end_ns)
    if not inside.any():
        return None
    taken = _taken(bands, np.flatnonzero(inside))
    return dataclasses.replace(
        taken,
        begin_ns=np.maximum(taken.begin_ns.astype(np.int64), begin_ns),
        end_ns=np.minimum(taken.end_ns.astype(np.int64), end_ns),
    )


def decimated(bands: Bands, points: int) -> Bands:
    """At most ``points`` rows that draw the same picture: of the whole and of what is live, no extreme is lost.

    What went is taken to have been like the neighbour that it resembles more, so a spike stays as narrow as it was.
    Every row still adds up. Its utilization is the mean over its time.
    """
    if len(bands.live) <= points:
        return bands
    times = bands.begin_ns.astype(np.int64)
    tops = np.array([bands.floor + bands.high, bands.floor + bands.live])
    kept = np.unique(np.concatenate([thinned(times, each, points // 2) for each in tops]))
    taken = _taken(bands, kept)
    borders = np.where(_like_the_next(tops, kept), taken.end_ns[:-1], taken.begin_ns[1:])
    cuts = np.concatenate((bands.begin_ns[:1], borders, bands.end_ns[-1:])).astype(np.int64)
    return dataclasses.replace(
        taken,
        begin_ns=cuts[:-1],
        end_ns=cuts[1:],
        utilization=means(np.append(times, cuts[-1]) - times[0], bands.utilization, cuts - times[0]),
    )


def _like_the_next(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Per pair of neighbours in ``kept`` whether what went between them resembles the second more than the first.

    ``values``: one row per measure, one column per row of the history.
    """
    first, second = kept[:-1], kept[1:]
    sums = np.insert(np.cumsum(values.astype(np.float64), axis=1), 0, 0.0, axis=1)
    between = (sums[:, second] - sums[:, first + 1]) / np.maximum(second - first - 1, 1)
    apart = [np.abs(values[:, side] - between).sum(axis=0) for side in (first, second)]
    found: np.ndarray = apart[1] < apart[0]
    return found


def means(edges: np.ndarray, values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The mean of a step function from each of ``cuts`` to the next, over where it is known; NaN where it is nowhere.

    Args:
        edges: ascending; ``values[i]`` holds from ``edges[i]`` to ``edges[i + 1]``.
        values: NaN where unknown.
        cuts: ascending.
    """
    widths = np.diff(edges).astype(np.float64)
    known = ~np.isnan(values)
    sums = np.append(0.0, np.cumsum(np.where(known, values, 0.0) * widths))
    weights = np.append(0.0, np.cumsum(known * widths))
    total, weight = (np.diff(np.interp(cuts, edges, each)) for each in (sums, weights))
    found: np.ndarray = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
    return found


def _taken(bands: Bands, rows: np.ndarray) -> Bands:
    columns = {
        field.name: value[rows]
        for field in dataclasses.fields(bands)
        if isinstance(value := getattr(bands, field.name), np.ndarray)
    }
    return dataclasses.replace(bands, **columns)
