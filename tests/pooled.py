"""A framework with a pool, on whatever driver there is: it takes segments and hands out pieces of them as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.capture.frameworks.framework import Holding
from gpumem_magic.model.frameworks import BLOCK_DTYPE, SEGMENT_DTYPE, BlockState, FrameworkMemory, Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.capture.frameworks.framework import HiddenReference


class Array:
    """A piece of the pool, which goes back to it when the last reference goes."""

    __slots__ = ("__weakref__", "_pool", "address", "me", "size")

    def __init__(self, pool: PooledArrays, address: int, size: int) -> None:
        self._pool, self.address, self.size = pool, address, size

    def __del__(self) -> None:
        self._pool.live.pop(self.address, None)


class PooledArrays:
    """Implements the protocol ``Framework``. A block lies in the first hole that is large enough."""

    name = "pooled"

    def __init__(self) -> None:
        self.segments: list[tuple[int, int]] = []
        self.live: dict[int, int] = {}
        self.reads = 0
        self.shows_full = True  # False: segments in which nothing is free are not told, as by CuPy from 14.1 on

    def take(self, address: int, size: int) -> None:
        """Memory of the driver that the pool has from now on."""
        self.segments.append((address, size))
        self.segments.sort()

    def array(self, size: int) -> Array:
        for begin, length in self.segments:
            place = begin
            for address in sorted(each for each in self.live if begin <= each < begin + length):
                if address - place >= size:
                    break
                place = address + self.live[address]
            if begin + length - place >= size:
                self.live[place] = size
                return Array(self, place, size)
        raise MemoryError(size)

    def is_imported(self) -> bool:
        return True

    def may_hold(self, kind: type) -> bool:
        return kind is Array

    def memory(self) -> FrameworkMemory:
        self.reads += 1
        segments = [each for each in self.segments if self.shows_full or self._free(*each)]
        blocks = [
            (address, size, size, home, BlockState.LIVE)
            for home, (begin, length) in enumerate(segments)
            for address, size in sorted(self.live.items())
            if begin <= address < begin + length
        ]
        return FrameworkMemory(
            name=self.name,
            version="1",
            pools=(Pool(name="default", device=0, kind="device"),),
            segments=np.array([(*each, 0, 0) for each in segments], SEGMENT_DTYPE),
            blocks=np.array(blocks, BLOCK_DTYPE),
        )

    def _free(self, begin: int, length: int) -> int:
        return length - sum(size for address, size in self.live.items() if begin <= address < begin + length)

    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        return [
            Holding(index, each.address, each.size, 0)
            for index, each in enumerate(objects)
            if type(each) is Array and each._pool is self
        ]

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:
        return []
