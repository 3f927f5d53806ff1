"""Live bytes over time: the step function of a stretch of events, thinned to what a picture can show."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.changes import changes
from gpumem_magic.model.events import Kind, Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumem_magic.model.snapshot import Cell, EventLog, Snapshot

MAX_POINTS = 2000
MAX_EVENTS = 500_000
"""Beyond this many events a picture is drawn from the recording's buckets: the numbers stay exact, and a report
costs neither seconds nor gigabytes."""
_SLACK_NS = 100_000_000
"""A thread may read the clock and be held up before the ledger takes its event, so order and time can disagree
by a moment. Look this far beyond both ends and let the marks decide."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Live device bytes of one device over a stretch; a step function, exact or decimated to min and max."""

    device: int
    seconds: np.ndarray  # float64, since the stretch began, ascending; starts at 0 and ends at its duration
    live_bytes: np.ndarray  # int64, live from that moment on; same shape as seconds
    peak_index: int  # where live_bytes is highest
    decimated: bool  # False when every event of the stretch is a point

    @property
    def duration_s(self) -> float:
        return float(self.seconds[-1])

    @property
    def peak_bytes(self) -> int:
        return int(self.live_bytes[self.peak_index])

    @property
    def peak_s(self) -> float:
        return float(self.seconds[self.peak_index])

    def self_check(self) -> None:
        """Assert the shape and the order of the points."""
        assert self.seconds.shape == self.live_bytes.shape
        assert len(self.seconds) > 1, "a timeline has a begin and an end"
        assert self.seconds[0] == 0
        assert (np.diff(self.seconds) >= 0).all(), "time runs backwards"
        assert self.live_bytes[self.peak_index] == self.live_bytes.max()
        assert len(self.seconds) <= MAX_POINTS or not self.decimated


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What the ledger counted exactly, on one device: a reconstruction has to agree with it."""

    begin_bytes: int
    end_bytes: int
    peak_bytes: int
    peak_ns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The events of a span and what they did to the live bytes."""

    begin_ns: int
    end_ns: int
    events: np.ndarray  # EVENT_DTYPE
    changes: np.ndarray  # CHANGE_DTYPE


def span_anchors(cell: Cell, device: int) -> Anchors:
    """The exact numbers of one device over a cell. A meter that was 0 at the begin has no entry there."""
    return Anchors(
        begin_bytes=cell.begin_bytes.get(device, 0),
        end_bytes=cell.end_bytes.get(device, 0),
        peak_bytes=cell.peak_bytes.get(device, 0),
        peak_ns=cell.peak_ns.get(device, cell.begin_ns),
    )


def span_stretch(snapshot: Snapshot, cell: Cell, anchors: Mapping[int, Anchors]) -> Stretch | None:
    """The events of a cell, between its marks; None when its begin is no longer kept or they are too many.

    The events of the cell alone usually suffice. When they do not add up to ``anchors`` (by device ordinal),
    the events before it are asked whose memory it freed.
    """
    end_ns = cell.end_ns or max(snapshot.time_ns, cell.begin_ns)
    if snapshot.events.count_between(cell.begin_ns, end_ns) > MAX_EVENTS:
        return None
    events = _span_events(snapshot.events, cell, end_ns)
    if events is None:
        return None
    stretch = Stretch(begin_ns=cell.begin_ns, end_ns=end_ns, events=events, changes=changes(events))
    if all(is_exact(stretch, device, expected) for device, expected in anchors.items()):
        return stretch
    if snapshot.events.count_between(0, cell.begin_ns) > MAX_EVENTS:
        return stretch
    earlier = snapshot.events.between(0, cell.begin_ns + _SLACK_NS)
    earlier = earlier[: _mark(earlier, Kind.SPAN_BEGIN, cell.id, len(earlier))]
    return dataclasses.replace(stretch, changes=_informed_changes(earlier, events))


def _informed_changes(earlier: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Changes of ``events``, paired with births in ``earlier`` too; those births count as unknown (-1)."""
    found = changes(np.concatenate((earlier, events)))
    found = found[found["event"] >= len(earlier)]
    found["event"] -= len(earlier)
    found["birth"] = np.maximum(found["birth"] - len(earlier), -1)
    return found


def _span_events(log: EventLog, cell: Cell, end_ns: int) -> np.ndarray | None:
    events = log.between(max(cell.begin_ns - _SLACK_NS, 0), end_ns + _SLACK_NS)
    begin = _mark(events, Kind.SPAN_BEGIN, cell.id, -1)
    if begin < 0:
        return None
    return events[begin + 1 : _mark(events, Kind.SPAN_END, cell.id, len(events))]


def _mark(events: np.ndarray, kind: Kind, span: int, default: int) -> int:
    """Row of the first mark of ``kind`` for ``span``; ``default`` when there is none."""
    rows = np.flatnonzero((events["kind"] == kind) & (events["address"] == span) & (events["status"] == 0))
    return int(rows[0]) if len(rows) else default


def is_exact(stretch: Stretch, device: int, anchors: Anchors) -> bool:
    """Whether the events of a stretch add up to what the ledger counted."""
    live = _live_bytes(stretch, device, anchors.begin_bytes)[1]
    return int(live[-1]) == anchors.end_bytes and int(live.max()) == anchors.peak_bytes


def timeline(stretch: Stretch, device: int, anchors: Anchors, *, points: int = MAX_POINTS) -> Timeline:
    """Live device-layer bytes of ``device`` over ``stretch``.

    Starts at ``begin_bytes``, ends at ``end_bytes``, and its maximum is ``peak_bytes``, whatever the events
    say: where they disagree (see ``is_exact``) the curve in between is as near as they allow.
    """
    times, live = _live_bytes(stretch, device, anchors.begin_bytes)
    duration_ns = max(stretch.end_ns - stretch.begin_ns, 0)
    times = np.append(np.clip(np.maximum.accumulate(times) - stretch.begin_ns, 0, duration_ns), duration_ns)
    live = np.append(live, anchors.end_bytes)
    if int(live.max()) != anchors.peak_bytes:
        times, live = _with_peak(times, live, anchors, stretch.begin_ns)
    kept = thinned(times, live, points)
    return Timeline(
        device=device,
        seconds=times[kept] / 1e9,
        live_bytes=live[kept],
        peak_index=int(np.argmax(live[kept])),
        decimated=len(kept) < len(times),
    )


def bucket_timeline(snapshot: Snapshot, cell: Cell, device: int, anchors: Anchors) -> Timeline | None:
    """The curve of a cell whose events are not read, from the recording's buckets; None when those are too wide.

    Begin, end and peak are the exact ones all the same.
    """
    end_ns = cell.end_ns or max(snapshot.time_ns, cell.begin_ns)
    mine = snapshot.series[snapshot.series["device"] == device]
    mine = mine[(mine["begin_ns"] > cell.begin_ns) & (mine["begin_ns"] < end_ns)]
    if len(mine) < _FEWEST_BUCKETS:
        return None
    drawn = coarse_timeline(mine, device, cell.begin_ns, end_ns)
    times = np.append(np.rint(drawn.seconds * 1e9).astype(np.int64), end_ns - cell.begin_ns)
    live = np.append(drawn.live_bytes, anchors.end_bytes)
    live[0] = anchors.begin_bytes
    times, live = _with_peak(times, live, anchors, cell.begin_ns)
    return Timeline(
        device=device,
        seconds=times / 1e9,
        live_bytes=live,
        peak_index=int(np.argmax(live)),
        decimated=True,
    )


_FEWEST_BUCKETS = 8


def _live_bytes(stretch: Stretch, device: int, begin_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (ns) and live bytes after each change, the begin first."""
    mine = stretch.changes[(stretch.changes["layer"] == Layer.DEVICE) & (stretch.changes["device"] == device)]
    times = np.concatenate(([stretch.begin_ns], mine["time_ns"]))
    return times, begin_bytes + np.concatenate(([0], np.cumsum(mine["delta"])))


def _with_peak(times: np.ndarray, live: np.ndarray, anchors: Anchors, begin_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """The curve cut off at the known peak, and with the peak put in where it is missing."""
    live = np.clip(live, 0, anchors.peak_bytes)
    if anchors.peak_bytes in live:
        return times, live
    peak = np.clip(anchors.peak_ns - begin_ns, 0, times[-1])
    at = int(np.clip(np.searchsorted(times, peak, side="right"), 1, len(times) - 1))
    return np.insert(times, at, np.clip(peak, times[at - 1], times[at])), np.insert(live, at, anchors.peak_bytes)


def thinned(times: np.ndarray, live: np.ndarray, points: int = MAX_POINTS) -> np.ndarray:
    """Indices of at most ``points`` points that draw the same picture: first, last, lowest and highest per bucket.

    Buckets are equal stretches of time, so a spike of one event stays visible, and so does the level at which
    a bucket ends. ``times`` ascends.
    """
    if len(times) <= points:
        return np.arange(len(times))
    buckets = max(points // 4, 1)
    span = max(float(times[-1] - times[0]), 1.0)
    bucket = np.minimum(((times - times[0]) * (buckets / span)).astype(np.int64), buckets - 1)
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    lasts = np.append(starts[1:], len(times)) - 1
    lowest = np.lexsort((live, bucket))[starts]
    highest = np.lexsort((-live, bucket))[starts]
    kept: np.ndarray = np.unique(np.concatenate((starts, lasts, lowest, highest)))
    return kept


def coarse_timeline(
    buckets: np.ndarray, device: int, begin_ns: int, end_ns: int, *, points: int = MAX_POINTS
) -> Timeline:
    """A picture from the buckets that a recording keeps of its whole length, also when its events were folded.

    Within a bucket only the extremes and the last value are known: they are drawn at its begin, the lowest first.

    Args:
        buckets: SERIES_DTYPE of one device, in order of time; at least one.
        device: its ordinal.
        begin_ns: where the picture begins, with the lowest value of the first bucket when that began before.
        end_ns: where it ends.
        points: how many points to keep at most.
    """
    times = np.repeat(buckets["begin_ns"].astype(np.int64), 3)
    live = np.stack([buckets[name] for name in ("min_bytes", "max_bytes", "last_bytes")], axis=1).astype(np.int64)
    live = live.reshape(-1)
    before = live[0] if times[0] <= begin_ns else 0
    times = np.concatenate(([begin_ns], np.clip(times, begin_ns, max(end_ns, begin_ns)), [max(end_ns, begin_ns)]))
    live = np.concatenate(([before], live, live[-1:]))
    kept = thinned(times, live, points)
    return Timeline(
        device=device,
        seconds=(times[kept] - begin_ns) / 1e9,
        live_bytes=live[kept],
        peak_index=int(np.argmax(live[kept])),
        decimated=True,
    )
