"""Live bytes over any stretch of a recording, exact at every event, for a picture that somebody zooms into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.changes import changes
from gpumem_magic.analysis.timelines import MAX_EVENTS, MAX_POINTS, thinned
from gpumem_magic.model.events import Layer
from gpumem_magic.model.history import UNKNOWN, finest

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import EventLog


def exact_bytes(
    log: EventLog, rows: np.ndarray, begin_ns: int, end_ns: int, *, points: int = MAX_POINTS
) -> tuple[np.ndarray, np.ndarray] | None:
    """Tracked bytes of one device after each event of a stretch, a little more at both ends.

    The sum of what the events changed begins at what a sample before the stretch counted, and has to arrive at what a
    sample after it counted.

    Args:
        log: the events of the recording.
        rows: HISTORY_DTYPE of the device, all levels.
        begin_ns: begin and
        end_ns: end of the stretch, on the clock of the events.
        points: how many to return at most; with more events, extremes are kept.

    Returns:
        Times (ns, int64) and bytes (int64, live from that time on), the sample before the stretch first; None when its
        events are too many or no longer kept, or when they do not arrive where they should.
    """
    anchors = finest(rows)
    anchors = anchors[anchors["tracked_bytes"] != UNKNOWN]
    before = anchors[anchors["end_ns"] <= begin_ns][-1:]
    after = anchors[anchors["end_ns"] >= end_ns][:1]
    if not len(after) or not (len(before) or rows["index"].min() == 0):
        return None
    begin = int(before["end_ns"][0]) if len(before) else 0  # a recording begins with nothing
    end = int(after["end_ns"][0])
    if log.first_index and not (begin and log.count_between(0, begin)):
        return None  # what happened then was folded away
    if log.count_between(begin, end) > MAX_EVENTS:
        return None
    found = changes(log.between(begin, end))
    found = found[(found["layer"] == Layer.DEVICE) & (found["device"] == rows["device"][0])]
    times = np.concatenate(([max(begin, int(rows["begin_ns"].min()))], np.maximum.accumulate(found["time_ns"])))
    live = (int(before["tracked_bytes"][0]) if len(before) else 0) + np.concatenate(([0], np.cumsum(found["delta"])))
    if int(live[-1]) != int(after["tracked_bytes"][0]) or (live < 0).any():
        return None
    kept = thinned(times, live, points)
    return times[kept], live[kept]
