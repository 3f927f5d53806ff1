"""Allocation sites as a table that is refreshed while a program runs: each row a stack, a cell, a library, a kind."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.allocators import kind_label
from gpumem_magic.analysis.frames import NO_FRAME, OUTSIDE, distinct_names, shown_frames, where
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.model.units import format_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumem_magic.model.snapshot import Snapshot
    from gpumem_magic.model.stacks import Frame

MOST_ROWS = 300
_KEY = ("stack", "cell", "library", "kind", "device")
_BEYOND = -1  # in the place of a stack
_COUNTS = ("allocated_count", "allocated_bytes", "freed_count", "freed_bytes", "peak_bytes", "failed_count")

SiteKey = tuple[int, int, int, int, int]
"""Stack, cell, library, kind, device: ids of the recording."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SiteName:
    """What never changes about a site."""

    where: str
    function: str  # of the innermost frame a reader wants to see; "" without one
    frames: tuple[Frame, ...]  # innermost first, without machinery
    library: str
    kind: str
    cell: str  # label of the span; "" outside any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One site at one moment. Bytes are of all layers: ``name.kind`` tells which."""

    key: SiteKey
    name: SiteName
    count: int
    live_count: int
    live_bytes: int
    peak_bytes: int
    allocated_bytes: int
    failed_count: int
    oldest_ns: int | None  # birth of the oldest live allocation; None when none lives or nobody looked
    threads: tuple[int, ...]  # that made what is live, by number; empty when nobody looked


class SiteTable:
    """Makes the rows anew at each call and remembers what does not change. Not thread-safe."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._names: dict[SiteKey, SiteName] = {}

    def rows(self, snapshot: Snapshot, labels: Mapping[str, str]) -> tuple[SiteRow, ...]:
        """The sites with most live bytes, then those with the highest peaks; at most as many as the table holds.

        Those beyond are added up in a row for each kind and device, so that sums over all rows are whole.

        Args:
            snapshot: its sites; ages and threads come from its allocations, if it has them.
            labels: cell labels by file name (``analysis.frames.notebook_labels``), for names not known yet.
        """
        sites = snapshot.sites
        live = sites["allocated_bytes"].astype(np.int64) - sites["freed_bytes"].astype(np.int64)
        order, beyond = np.split(np.lexsort((-sites["peak_bytes"].astype(np.int64), -live)), [self._most])
        facts = _live_facts(snapshot)
        cells = {cell.id: cell.label for cell in snapshot.cells}
        chosen = sites[order]
        columns = zip(*(chosen[name].tolist() for name in (*_KEY, *_COUNTS)), strict=True)
        rows = [self._row(snapshot, values, facts, labels, cells) for values in columns]
        return (*_told_apart(_together(rows), labels), *_beyond(sites[beyond]))

    def _row(
        self,
        snapshot: Snapshot,
        values: Sequence[int],
        facts: Mapping[SiteKey, tuple[int, tuple[int, ...]]],
        labels: Mapping[str, str],
        cells: Mapping[int, str],
    ) -> SiteRow:
        stack, cell, library, kind, device, *counts = values
        key = (stack, cell, library, kind, device)
        if key not in self._names:
            self._names[key] = _name(snapshot, key, labels, cells)
        count, allocated, freed_count, freed, peak, failed = counts
        oldest, threads = facts.get(key, (None, ()))
        return SiteRow(
            key=key,
            name=self._names[key],
            count=count,
            live_count=count - freed_count,
            live_bytes=allocated - freed,
            peak_bytes=peak,
            allocated_bytes=allocated,
            failed_count=failed,
            oldest_ns=oldest,
            threads=threads,
        )


def _beyond(sites: np.ndarray) -> list[SiteRow]:
    """A row for each kind and device. Their joint peak is not known: what is live now is a lower bound."""
    rows = []
    for kind, device in np.unique(sites[["kind", "device"]]).tolist():
        mine = sites[(sites["kind"] == kind) & (sites["device"] == device)]
        count, allocated, freed_count, freed, _, failed = (int(mine[name].sum()) for name in _COUNTS)
        where = f"{format_count(len(mine))} other places, {kind_label(kind)}"
        rows.append(
            SiteRow(
                key=(_BEYOND, 0, 0, kind, device),
                name=SiteName(where=where, function="", frames=(), library="", kind=kind_label(kind), cell=""),
                count=count,
                live_count=count - freed_count,
                live_bytes=allocated - freed,
                peak_bytes=max(allocated - freed, int(mine["peak_bytes"].max())),
                allocated_bytes=allocated,
                failed_count=failed,
                oldest_ns=None,
                threads=(),
            )
        )
    return sorted(rows, key=lambda row: -row.live_bytes)


def _name(snapshot: Snapshot, key: SiteKey, labels: Mapping[str, str], cells: Mapping[int, str]) -> SiteName:
    stack, cell, library, kind, _device = key
    frames = snapshot.stacks.frames(stack)
    shown = shown_frames(frames)
    path = snapshot.libraries[library] if library < len(snapshot.libraries) else ""
    return SiteName(
        where=where(shown, labels) if shown else OUTSIDE if frames else NO_FRAME,
        function=shown[0].function.rpartition("<locals>.")[2] if shown else "",
        frames=shown,
        library=library_name(path),
        kind=kind_label(kind),
        cell=cells.get(cell, ""),
    )


_MOST_THREADS = 4


def _together(rows: Sequence[SiteRow]) -> list[SiteRow]:
    """``rows`` with those added up that differ by no line, such as two calls of one function on the same line.

    Their joint peak is not known: the row has the highest of what is, so it is a lower bound.
    """
    groups: dict[tuple[object, ...], list[SiteRow]] = {}
    for row in rows:
        name = row.name
        groups.setdefault((name.frames, name.library, name.kind, name.cell, row.key[-1], name.where), []).append(row)
    return [group[0] if len(group) == 1 else _sum(group) for group in groups.values()]


def _sum(group: Sequence[SiteRow]) -> SiteRow:
    born = [row.oldest_ns for row in group if row.oldest_ns is not None]
    added = ("count", "live_count", "live_bytes", "allocated_bytes", "failed_count")
    totals = {name: sum(getattr(row, name) for row in group) for name in added}
    return dataclasses.replace(
        min(group, key=lambda row: row.key),  # the key stays the same when the order of the group changes
        **totals,
        peak_bytes=max(totals["live_bytes"], *(row.peak_bytes for row in group)),
        oldest_ns=min(born, default=None),
        threads=tuple(dict.fromkeys(thread for row in group for thread in row.threads))[:_MOST_THREADS],
    )


def _told_apart(rows: Sequence[SiteRow], labels: Mapping[str, str]) -> tuple[SiteRow, ...]:
    """``rows`` with the callers that make the difference added where they would otherwise read alike."""
    names = [row.name.where for row in rows]
    alike = collections.Counter(names)
    stacks = [
        [where([frame], labels) for frame in row.name.frames] if alike[row.name.where] > 1 else [] for row in rows
    ]
    return tuple(
        row if name == row.name.where else dataclasses.replace(row, name=dataclasses.replace(row.name, where=name))
        for row, name in zip(rows, distinct_names(names, stacks), strict=True)
    )


def _live_facts(snapshot: Snapshot) -> dict[SiteKey, tuple[int, tuple[int, ...]]]:
    """Per site the oldest birth and the threads of what is live."""
    rows = snapshot.allocations
    if not len(rows):
        return {}
    _, first, group = np.unique(rows[list(_KEY)], return_index=True, return_inverse=True)
    oldest = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(oldest, group, rows["birth_ns"].astype(np.int64))
    pairs = np.unique(np.stack([group.astype(np.int64), rows["thread"].astype(np.int64)]), axis=1)
    threads: dict[int, list[int]] = {}
    for site, thread in pairs.T.tolist():
        threads.setdefault(site, []).append(thread)
    keys = rows[first][list(_KEY)].tolist()
    return {
        key: (born, tuple(threads[number][:_MOST_THREADS]))
        for number, (key, born) in enumerate(zip(keys, oldest.tolist(), strict=True))
    }
