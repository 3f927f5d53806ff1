"""What frameworks keep inside driver memory: their pools, the ranges these took from the driver, the blocks in them.

Driver bytes are the truth about a device; blocks explain what is inside a pool. The two are never added up.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

UNKNOWN_SIZE = (1 << 64) - 1
"""In ``BLOCK_DTYPE["asked"]``: the framework does not tell what was asked for."""


class BlockState(enum.IntEnum):
    """What becomes of a block."""

    LIVE = 0  # handed out to the program
    CACHED = 1  # free inside the pool, to be handed out again
    PENDING = 2  # given back by the program, kept until another stream is done with it


class SegmentFlag(enum.IntFlag):
    """What is special about a segment."""

    EXPANDABLE = 1  # mapped page by page into one reserved range: free pages can be given back singly
    PRIVATE = 2  # of a pool that a CUDA graph or the user set apart


SEGMENT_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),
        ("pool", "<u4"),  # index into FrameworkMemory.pools
        ("flags", "<u4"),  # SegmentFlag
    ]
)
"""A range that a pool took from the driver. Ranges of one framework do not overlap."""

BLOCK_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),  # taken from the pool, alignment included
        ("asked", "<u8"),  # what the program asked for, or UNKNOWN_SIZE
        ("segment", "<u4"),  # index into FrameworkMemory.segments
        ("state", "<u4"),  # BlockState
    ]
)
"""A piece of a segment. Blocks do not overlap; what no block covers of a segment is free too."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool of a framework on one device."""

    name: str  # "default", "private pool (0, 3)"; what the framework's documentation calls it
    device: int  # ordinal; NO_DEVICE for pinned host memory
    kind: str  # "device", "managed" or "pinned"
    empty_with: str = (
        ""  # the call that gives its cache back, such as "torch.cuda.empty_cache()"; "" when there is none
    )
    # Totals of a pool that does not tell all its ranges; None when its segments and blocks are all there is.
    reserved_bytes: int | None = None  # taken from the driver
    used_bytes: int | None = None  # of these, handed out to the program
    largest_free_bytes: int | None = None  # the largest piece that it could hand out without the driver


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkMemory:
    """What one framework says of its memory at one moment. Arrays are ordered by address."""

    name: str  # "torch", "cupy", "jax", "numba", "rmm"
    version: str
    pools: tuple[Pool, ...] = ()
    segments: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, SEGMENT_DTYPE))
    blocks: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, BLOCK_DTYPE))
    problem: str = ""  # what could not be read, and why, as a sentence

    def self_check(self) -> None:
        """Assert that segments and blocks are in order, apart from each other, and blocks inside their segments."""
        for rows in (self.segments, self.blocks):
            ends = rows["address"] + rows["bytes"]
            assert (rows["address"][1:] >= ends[:-1]).all(), f"{self.name}: rows overlap or are out of order"
        if len(self.segments):
            assert int(self.segments["pool"].max()) < len(self.pools), f"{self.name}: a segment of an unknown pool"
        home = self.segments[self.blocks["segment"]]
        assert (self.blocks["address"] >= home["address"]).all(), f"{self.name}: a block before its segment"
        ends = self.blocks["address"] + self.blocks["bytes"]
        assert (ends <= home["address"] + home["bytes"]).all(), f"{self.name}: a block beyond its segment"
