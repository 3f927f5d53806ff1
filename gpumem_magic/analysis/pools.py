"""What is inside a framework's pools: in use, rounded up, waiting, and kept for later."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.model.frameworks import UNKNOWN_SIZE, BlockState, SegmentFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpumem_magic.model.frameworks import FrameworkMemory, Pool

_PAGE_BYTES = np.uint64(2 << 20)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """The pools of one framework on one device, in bytes."""

    inside: np.ndarray  # bool per allocation: it belongs to a pool
    knows_ranges: bool  # False for a framework that tells totals: what is not ``inside`` may belong to it too
    is_empty: bool  # it has no pool there
    live: int  # asked for by the program and in use
    rounding: int  # what blocks in use are larger than that
    pending: int  # given back by the program, not yet free for another stream
    returnable: int  # free in ranges, or whole pages of expandable ones, in which nothing is in use
    pieces: int  # free between blocks that are in use
    largest_free: int  # the largest piece of ``pieces``
    command: str  # what gives ``returnable`` back


def live_blocks(memory: FrameworkMemory) -> np.ndarray:
    """The blocks (BLOCK_DTYPE) in use of pools of device memory, by address."""
    blocks = memory.blocks[memory.blocks["state"] == BlockState.LIVE]
    found: np.ndarray = blocks[_is_of_device(memory)[blocks["segment"]]]
    return found


def taken_bytes(memory: FrameworkMemory) -> int:
    """What pools of device memory took from the driver, as far as they tell the ranges."""
    return int(memory.segments["bytes"][_is_of_device(memory)].sum())


def _is_of_device(memory: FrameworkMemory) -> np.ndarray:
    """Per segment, whether it is device memory: not managed, not pinned."""
    kinds = np.array([pool.kind == "device" for pool in memory.pools], bool)
    found: np.ndarray = kinds[memory.segments["pool"]]
    return found


def is_pooled(memories: Iterable[FrameworkMemory], addresses: np.ndarray) -> np.ndarray:
    """Per address (uint64), whether it lies in a range that one of ``memories`` took from the driver."""
    found = np.zeros(len(addresses), bool)
    for memory in memories:
        found |= lies_in(memory.segments, addresses)
    return found


def pooled(memory: FrameworkMemory, device: int, addresses: np.ndarray) -> Pooled:
    """What ``memory`` keeps on ``device``.

    Args:
        memory: what the framework says.
        device: ordinal.
        addresses: of the driver's allocations there (uint64); which of them the pools took is in ``inside``.
    """
    places = [n for n, pool in enumerate(memory.pools) if pool.device == device and pool.kind == "device"]
    is_mine = np.isin(memory.segments["pool"], places)
    segments = memory.segments[is_mine]
    blocks = memory.blocks[np.isin(memory.blocks["segment"], np.flatnonzero(is_mine))]
    live = blocks[blocks["state"] == BlockState.LIVE]
    asked = np.where(live["asked"] == UNKNOWN_SIZE, live["bytes"], np.minimum(live["asked"], live["bytes"]))
    starts, lengths = _free(segments, blocks[blocks["state"] != BlockState.CACHED])
    returnable = _returnable(segments, starts, lengths)
    kept = lengths - returnable
    told = Pooled(
        inside=lies_in(segments, addresses),
        knows_ranges=True,
        is_empty=not len(segments),
        live=int(asked.sum()),
        rounding=int(live["bytes"].sum()) - int(asked.sum()),
        pending=int(blocks["bytes"][blocks["state"] == BlockState.PENDING].sum()),
        returnable=int(returnable.sum()),
        pieces=int(kept.sum()),
        largest_free=int(kept.max(initial=0)),
        command=next((memory.pools[n].empty_with for n in places if memory.pools[n].empty_with), ""),
    )
    return _with_totals(told, [memory.pools[n] for n in places])


def _with_totals(told: Pooled, pools: Sequence[Pool]) -> Pooled:
    """``told`` by the totals of the pools that have such, as these do not tell all their ranges."""
    totals = [pool for pool in pools if pool.reserved_bytes is not None]
    if not totals:
        return told
    reserved = sum(pool.reserved_bytes or 0 for pool in totals)
    used = sum(pool.used_bytes or 0 for pool in totals)
    free = max(reserved - used, 0)
    largest = max((pool.largest_free_bytes or 0 for pool in totals), default=0)
    return dataclasses.replace(
        told,
        knows_ranges=False,
        is_empty=not reserved,
        live=used,
        rounding=0,
        pending=0,
        returnable=min(told.returnable, free),
        pieces=free - min(told.returnable, free),
        largest_free=max(largest, told.largest_free),
    )


def lies_in(segments: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """Per address (uint64), whether it lies in one of ``segments``, ordered by address."""
    if not len(segments):
        return np.zeros(len(addresses), bool)
    place = np.searchsorted(segments["address"], addresses, side="right").astype(np.int64) - 1
    home = segments[np.maximum(place, 0)]
    found: np.ndarray = (place >= 0) & (addresses < home["address"] + home["bytes"])
    return found


def _free(segments: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and length (uint64) of every stretch of ``segments`` that no block of ``used`` covers."""
    begins = np.concatenate((segments["address"], used["address"] + used["bytes"]))
    ends = np.concatenate((used["address"], segments["address"] + segments["bytes"]))
    begins, ends = np.sort(begins), np.sort(ends)
    return begins[ends > begins], (ends - begins)[ends > begins]


def _returnable(segments: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of each free stretch, how much the framework could give back: all of a segment, or whole pages of one."""
    home = segments[np.searchsorted(segments["address"], starts, side="right") - 1]
    whole = (home["address"] == starts) & (home["bytes"] == lengths)
    first = -(-starts.astype(np.int64) // int(_PAGE_BYTES)).astype(np.uint64)
    last = (starts + lengths) // _PAGE_BYTES
    pages = np.where(last > first, last - first, 0).astype(np.uint64) * _PAGE_BYTES
    expandable = (home["flags"] & SegmentFlag.EXPANDABLE) != 0
    found: np.ndarray = np.where(whole, lengths, np.where(expandable, pages, 0)).astype(np.uint64)
    return found
