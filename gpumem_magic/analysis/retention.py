"""Pure steps on the way from objects that know device memory to who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.model.holders import HeldBy

if TYPE_CHECKING:
    from collections.abc import Collection

MEMORY_DTYPE = np.dtype([("address", "<u8"), ("bytes", "<u8"), ("device", "<i4")])
"""A piece of device memory that some object knows. Pieces are ordered by address and do not overlap."""

FATES = {1: HeldBy.GARBAGE, 2: HeldBy.OPAQUE, 3: HeldBy.LOST}
"""What the native core's fates of memory that no name reaches are called."""

HIDDEN_SHIFT = 16
"""Bits of classes that reach memory through a hidden reference begin here."""


def merge_ranges(ranges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Memory (MEMORY_DTYPE) that ``ranges`` of the same type cover, and per range the index of its memory.

    Ranges that overlap are one memory: views of one buffer keep all of it alive. Ranges without bytes count as one byte
    where they lie, so that they join a memory that has it.
    """
    order = np.argsort(ranges["address"], kind="stable")
    begins = ranges["address"][order]
    ends = np.maximum.accumulate(begins + np.maximum(ranges["bytes"][order], 1))
    starts_new = np.ones(len(order), bool)
    starts_new[1:] = begins[1:] >= ends[:-1]
    group = np.cumsum(starts_new) - 1
    first = np.flatnonzero(starts_new)
    memory = np.empty(len(first), MEMORY_DTYPE)
    memory["address"] = begins[first]
    memory["device"] = ranges["device"][order][first]
    if len(first):
        memory["bytes"] = ends[np.append(first[1:], len(order)) - 1] - begins[first]
    index = np.empty(len(order), np.int64)
    index[order] = group
    return memory, index


def memory_at(memory: np.ndarray, addresses: Collection[int] | np.ndarray) -> np.ndarray:
    """Indices of the memory (MEMORY_DTYPE) in which ``addresses`` lie."""
    wanted = np.fromiter((address for address in addresses if 0 <= address < 1 << 64), np.uint64)
    place = np.searchsorted(memory["address"], wanted, side="right") - 1
    inside = (place >= 0) & (wanted < memory["address"][place] + memory["bytes"][place]) if len(memory) else []
    found: np.ndarray = np.unique(place[inside])
    return found


def memory_within(memory: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Indices of the memory (MEMORY_DTYPE) of which a byte lies in ``ranges``, ordered and apart from each other."""
    if not len(ranges):
        return np.empty(0, np.int64)
    place = np.searchsorted(ranges["address"], memory["address"] + memory["bytes"], side="left").astype(np.int64) - 1
    nearest = ranges[np.maximum(place, 0)]
    found: np.ndarray = np.flatnonzero((place >= 0) & (nearest["address"] + nearest["bytes"] > memory["address"]))
    return found


def classify(reaching: int, fate: int) -> HeldBy:
    """Why memory is there, from the mask of classes that reach it and its fate when none does.

    A name that reaches it without help of the autograd graph comes first: deleting the graph would not free it.
    """
    visible = reaching & ((1 << HIDDEN_SHIFT) - 1)
    if visible:
        return HeldBy((visible & -visible).bit_length() - 1)
    return HeldBy.AUTOGRAD if reaching else FATES[fate]
