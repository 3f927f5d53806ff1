"""Who allocated: sites that look alike to a reader, added up."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpumem_magic.analysis.frames import NO_FRAME, OUTSIDE, distinct_names, shown_frames, where
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.model.events import BIRTHS, KIND_LABELS, EventFlag, Kind, Layer, layer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumem_magic.analysis.timelines import Stretch
    from gpumem_magic.model.snapshot import Snapshot
    from gpumem_magic.model.stacks import Frame


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Allocator:
    """Who allocated: one row per Python line, library, kind and device."""

    stack: tuple[Frame, ...]  # innermost first, our own and IPython's frames left out; empty for a native thread
    where: str  # "train.py:12 forward", "In [7]:3", or "(no Python frame)"
    frames: tuple[str, ...]  # one label per frame of the stack, in its order
    library: str  # short name such as "torch (libc10_cuda)"; "" when unknown
    kind: str  # KIND_LABELS; the name of the call for a row that only failed
    layer: int  # Layer
    device: int
    count: int
    allocated_bytes: int
    live_count: int
    live_bytes: int  # still live at the time of the snapshot
    peak_bytes: int  # an upper bound when peak_is_bound
    peak_is_bound: bool  # several sites in this row, and the events that would tell their joint peak are not kept
    failed_count: int
    background: bool  # every birth that is known was made by another thread than the one that ran the cell


class _Key(NamedTuple):
    """What a row stands for."""

    stack: tuple[Frame, ...]
    is_native: bool
    library: str
    kind: int
    device: int


def allocators(
    snapshot: Snapshot,
    sites: np.ndarray,
    labels: Mapping[str, str],
    *,
    depth: int | None = None,
    stretch: Stretch | None = None,
) -> tuple[Allocator, ...]:
    """Rows for ``sites`` (SITE_DTYPE, any selection), device layer first, then by allocated bytes.

    Args:
        snapshot: where stacks, libraries and live allocations come from.
        sites: the sites to add up.
        labels: cell labels by file name.
        depth: tell stacks apart by this many innermost shown frames only; by all when None.
        stretch: the events in which the sites came about; gives exact joint peaks where several sites share a row.
    """
    groups: dict[_Key, list[int]] = collections.defaultdict(list)
    for row, site in enumerate(sites[list(_SITE_FIELDS)].tolist()):
        groups[_key(snapshot, dict(zip(_SITE_FIELDS, site, strict=True)), depth)].append(row)
    peaks = _joint_peaks(sites, list(groups.values()), stretch)
    background = _background_rows(snapshot, sites, stretch)
    made = [
        _allocator(key, sites[rows], labels, peak, background=background.issuperset(rows))
        for (key, rows), peak in zip(groups.items(), peaks, strict=True)
    ]
    return tuple(sorted(_told_apart(made), key=_rank))


_SITE_FIELDS = ("stack", "cell", "library", "kind", "device")


def _key(snapshot: Snapshot, site: Mapping[str, int], depth: int | None) -> _Key:
    frames = snapshot.stacks.frames(site["stack"])
    index = site["library"]
    path = snapshot.libraries[index] if index < len(snapshot.libraries) else ""
    return _Key(shown_frames(frames, depth), not frames, library_name(path), site["kind"], site["device"])


def _allocator(
    key: _Key, sites: np.ndarray, labels: Mapping[str, str], joint_peak: int | None, *, background: bool
) -> Allocator:
    total = {name: int(sites[name].sum()) for name in sites.dtype.names or ()}
    bound = min(total["peak_bytes"], total["allocated_bytes"])
    return Allocator(
        stack=key.stack,
        where=_where(key, labels),
        frames=tuple(where([frame], labels) for frame in key.stack),
        library=key.library,
        kind=kind_label(key.kind),
        layer=layer_of(key.kind, key.device) if key.kind in BIRTHS else Layer.DEVICE,
        device=key.device,
        count=total["allocated_count"],
        allocated_bytes=total["allocated_bytes"],
        live_count=total["allocated_count"] - total["freed_count"],
        live_bytes=total["allocated_bytes"] - total["freed_bytes"],
        peak_bytes=bound if joint_peak is None else joint_peak,
        peak_is_bound=joint_peak is None,
        failed_count=total["failed_count"],
        background=background,
    )


def _where(key: _Key, labels: Mapping[str, str]) -> str:
    if key.stack:
        return where(key.stack, labels)
    return NO_FRAME if key.is_native else OUTSIDE


def kind_label(kind: int) -> str:
    """``cuMemAlloc``, ``stream-ordered`` for a birth; ``free`` or ``map`` for another call; a number if unknown."""
    if kind in BIRTHS:
        return KIND_LABELS[Kind(kind)]
    known = {int(each): each.name.lower().replace("_", " ") for each in Kind}
    return known.get(kind, f"kind {kind}")


def _rank(row: Allocator) -> tuple[int, int, int, int, str, str]:
    return (row.layer, -row.allocated_bytes, -row.count, -row.failed_count, row.where, row.library)


def _told_apart(rows: Sequence[Allocator]) -> list[Allocator]:
    """``rows`` with the callers that make the difference added where they would otherwise read alike."""
    alike: dict[tuple[str, str, int], list[Allocator]] = collections.defaultdict(list)
    for row in rows:
        alike[row.library, row.kind, row.device].append(row)
    return [
        dataclasses.replace(row, where=name)
        for group in alike.values()
        for row, name in zip(
            group, distinct_names([row.where for row in group], [row.frames for row in group]), strict=True
        )
    ]


# Joint peaks


def _joint_peaks(sites: np.ndarray, groups: Sequence[Sequence[int]], stretch: Stretch | None) -> list[int | None]:
    """Per group its exact peak: a single site's own, or from the events; None when neither knows."""
    alone = [int(sites["peak_bytes"][rows[0]]) if len(rows) == 1 else None for rows in groups]
    if stretch is None or None not in alone:
        return alone
    group_of_site = np.zeros(len(sites), np.int64)
    for group, rows in enumerate(groups):
        group_of_site[list(rows)] = group
    peaks, allocated = _peaks_of_changes(stretch, _group_of_event(sites, group_of_site, stretch.events), len(groups))
    expected = [int(sites["allocated_bytes"][list(rows)].sum()) for rows in groups]
    known = (allocated == expected) & ~(stretch.events["kind"] == Kind.CONTEXT_DESTROY).any()
    return [own if own is not None else int(peaks[group]) if known[group] else None for group, own in enumerate(alone)]


def _group_of_event(sites: np.ndarray, group_of_site: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Per event the group of its site, -1 when it is of none."""
    of_sites, of_events = _site_numbers(sites, events)
    group_of_number = np.full(max(len(sites) + len(events), 1), -1, np.int64)
    group_of_number[of_sites] = group_of_site
    groups: np.ndarray = group_of_number[of_events]
    return groups


def _site_numbers(*tables: np.ndarray) -> list[np.ndarray]:
    """For every row of every table a number, equal where the site is the same."""
    high = np.concatenate([(table["stack"].astype(np.uint64) << np.uint64(32)) | table["cell"] for table in tables])
    low = np.concatenate([_low_half(table) for table in tables])
    _, high_number = np.unique(high, return_inverse=True)
    _, number = np.unique((high_number.astype(np.uint64) << np.uint64(32)) | low, return_inverse=True)
    return list(np.split(number, np.cumsum([len(table) for table in tables])[:-1]))


def _low_half(table: np.ndarray) -> np.ndarray:
    library = table["library"].astype(np.uint64) << np.uint64(16)
    packed: np.ndarray = library | (table["kind"].astype(np.uint64) << np.uint64(8)) | table["device"]
    return packed


def _peaks_of_changes(stretch: Stretch, group_of_event: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Per group the highest sum of its changes, and the bytes of its births."""
    known = stretch.changes[stretch.changes["birth"] >= 0]
    group = group_of_event[known["birth"]]
    known, group = known[group >= 0], group[group >= 0]
    order = np.argsort(group, kind="stable")
    delta, group = known["delta"][order], group[order]
    allocated = np.bincount(group, np.maximum(delta, 0), groups).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    total = np.cumsum(delta)
    before = np.repeat(total[starts] - delta[starts], np.diff(np.append(starts, len(group))))
    peaks = np.zeros(groups, np.int64)
    if len(starts):
        peaks[group[starts]] = np.maximum.reduceat(total - before, starts)
    return peaks, allocated


# Background work


def _background_rows(snapshot: Snapshot, sites: np.ndarray, stretch: Stretch | None) -> set[int]:
    """Rows of ``sites`` of which every birth that we still know was made by a background thread."""
    events = snapshot.allocations[:0] if stretch is None else stretch.events[is_birth(stretch.events)]
    of_sites, *of_births = _site_numbers(sites, snapshot.allocations, events)
    births = np.concatenate(of_births)
    flags = np.concatenate((snapshot.allocations["flags"], events["flags"]))
    is_background = (flags & EventFlag.BACKGROUND) != 0
    only = np.setdiff1d(births[is_background], births[~is_background])
    return set(np.flatnonzero(np.isin(of_sites, only)).tolist())


def is_birth(table: np.ndarray) -> np.ndarray:
    """Per row of a table with ``kind``, whether it is one of a birth."""
    found: np.ndarray = np.isin(table["kind"], [int(kind) for kind in BIRTHS])
    return found
