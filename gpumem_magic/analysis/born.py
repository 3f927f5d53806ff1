"""What was born in a cell and is still live: its own allocations, and the blocks that pools handed out in it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.byte_ledger import mapped_addresses
from gpumem_magic.analysis.cell_report import descendants, is_device_layer
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.analysis.pools import is_pooled, live_blocks
from gpumem_magic.analysis.raw_memory import has_address
from gpumem_magic.model.events import KIND_LABELS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gpumem_magic.model.cell_blocks import CellBlocks
    from gpumem_magic.model.snapshot import Snapshot

BORN_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),
        ("cell", "<u4"),  # one of those that were asked for
        ("maker", "<u4"),  # index into Born.makers
    ]
)
"""A range of device memory. Ranges are ordered by address and do not overlap."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """Device memory that was born in some cells, or in what is nested in them, and is live now.

    Of what lies in a framework's pool the blocks count, not what the pool took from the driver. What a pool that does
    not tell its ranges took counts whole.
    """

    ranges: np.ndarray  # BORN_DTYPE
    unplaced: np.ndarray  # BORN_DTYPE; memory that has a handle and no address: ``address`` is 0
    makers: tuple[str, ...]  # a framework whose pool handed it out, or the library that called the driver
    pools: tuple[str, ...]  # frameworks whose blocks are among it

    @property
    def bytes(self) -> int:
        return int(self.ranges["bytes"].sum()) + int(self.unplaced["bytes"].sum())

    def of(self, cells: Collection[int]) -> Born:
        """What of it is from these cells."""
        wanted = list(cells)
        ranges = self.ranges[np.isin(self.ranges["cell"], wanted)]
        makers = {self.makers[index] for index in np.unique(ranges["maker"]).tolist()}
        return dataclasses.replace(
            self,
            ranges=ranges,
            unplaced=self.unplaced[np.isin(self.unplaced["cell"], wanted)],
            pools=tuple(name for name in self.pools if name in makers),
        )

    def self_check(self) -> None:
        """Assert that no byte is counted twice."""
        ends = self.ranges["address"] + self.ranges["bytes"]
        assert (self.ranges["address"][1:] >= ends[:-1]).all(), "what was born is counted twice"


def born_memory(snapshot: Snapshot, cells: Sequence[int], blocks: CellBlocks) -> Born:
    """What was born in ``cells`` and is live.

    Args:
        snapshot: with its allocations, and with what the frameworks say of their pools.
        cells: spans, none of them nested in another.
        blocks: which cell the frameworks' blocks are from.
    """
    homes = {each: cell for cell in cells for each in descendants(snapshot.cells, cell)}
    makers: dict[str, int] = {}
    pools = []
    parts = []
    known = _settled(snapshot, blocks.blocks)
    for memory in snapshot.frameworks:
        rows = _of_pool(live_blocks(memory), known, homes)
        if len(rows):
            pools.append(memory.name)
            rows["maker"] = makers.setdefault(memory.name, len(makers))
            parts.append(rows)
    placed, unplaced = _raw(snapshot, homes, makers)
    return Born(
        ranges=_apart(np.concatenate([*parts, placed])),
        unplaced=unplaced,
        makers=tuple(makers),
        pools=tuple(pools),
    )


def _settled(snapshot: Snapshot, blocks: np.ndarray) -> np.ndarray:
    """``blocks`` with the cell in which the driver gave the memory, for those that may have been there before.

    CuPy from 14.1 tells only segments in which something is free: when a block is given back, all others of its
    segment appear.
    """
    unsure = np.flatnonzero(blocks["is_unsure"])
    rows = snapshot.allocations[is_device_layer(snapshot.allocations)]
    if not len(unsure) or not len(rows):
        return blocks
    addresses = mapped_addresses(snapshot, rows)
    order = np.argsort(addresses)
    begins = blocks["address"][unsure]
    place = np.searchsorted(addresses[order], begins, side="right") - 1
    home = order[np.maximum(place, 0)]
    is_seen = (place >= 0) & (begins < addresses[home] + rows["size"][home])
    settled = blocks.copy()
    settled["cell"][unsure[is_seen]] = rows["cell"][home[is_seen]]
    return settled


def _of_pool(live: np.ndarray, known: np.ndarray, homes: dict[int, int]) -> np.ndarray:
    """Blocks of ``live`` that are from one of the cells ``homes``."""
    mine = known[np.isin(known["cell"], list(homes))]
    if not len(mine):
        return np.empty(0, BORN_DTYPE)
    place = np.minimum(np.searchsorted(mine["address"], live["address"]), len(mine) - 1)
    same = (mine["address"][place] == live["address"]) & (mine["bytes"][place] == live["bytes"])
    rows = np.zeros(int(same.sum()), BORN_DTYPE)
    rows["address"], rows["bytes"] = live["address"][same], live["bytes"][same]
    rows["cell"] = [homes[cell] for cell in mine["cell"][place[same]].tolist()]
    return rows


def _raw(snapshot: Snapshot, homes: dict[int, int], makers: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Allocations in no pool: those that have an address, and those that have none."""
    every = snapshot.allocations
    mine = every[np.isin(every["cell"], list(homes)) & is_device_layer(every)]
    addresses = mapped_addresses(snapshot, mine)
    placed = has_address(mine, addresses)
    rows = np.zeros(len(mine), BORN_DTYPE)
    rows["address"], rows["bytes"] = np.where(placed, addresses, np.uint64(0)), mine["size"]
    rows["cell"] = [homes[cell] for cell in mine["cell"].tolist()]
    columns = (mine["library"].tolist(), mine["kind"].tolist(), placed.tolist())
    names = [_maker(snapshot, *each) for each in zip(*columns, strict=True)]
    rows["maker"] = [makers.setdefault(name, len(makers)) for name in names]
    pooled = is_pooled(snapshot.frameworks, addresses)
    return rows[placed & ~pooled], rows[~placed]


def _maker(snapshot: Snapshot, library: int, kind: int, is_placed: bool) -> str:  # noqa: FBT001  (a column's value)
    name = library_name(snapshot.libraries[library]) if library < len(snapshot.libraries) else ""
    return name if is_placed else f"{name}: {KIND_LABELS[Kind(kind)]}, which has no address".removeprefix(": ")


def _apart(ranges: np.ndarray) -> np.ndarray:
    """``ranges`` by address, what two of them share left to the first."""
    ordered = np.sort(ranges, order="address")
    ends = np.maximum.accumulate(ordered["address"] + ordered["bytes"])
    begins = ordered["address"].copy()
    begins[1:] = np.maximum(begins[1:], ends[:-1])
    own_ends = ordered["address"] + ordered["bytes"]
    kept = own_ends > begins
    apart: np.ndarray = ordered[kept]
    apart["address"], apart["bytes"] = begins[kept], (own_ends - begins)[kept]
    return apart
