"""What PyTorch recorded of its blocks while one cell ran.

A block is what its cache hands out, mostly the memory of one tensor. Blocks lie inside memory of the driver: their
bytes are never added to the driver's.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumem_magic.model.stacks import Frame

NO_STACK = -1
"""In place of a stack: nothing was recorded when the block was made."""


class BlockEvent(enum.IntEnum):
    """What happened to a block."""

    MADE = 0
    FREED = 1  # given back by the program; other streams may still be at work on it


TENSOR_BLOCK_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),  # taken from the cache, alignment included
        ("asked", "<u8"),  # what the program asked for
        ("device", "<i4"),
        ("stack", "<i4"),  # of the call that made it: index into TensorHistory.stacks, or NO_STACK
    ]
)
"""A live block."""

TENSOR_EVENT_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("asked", "<u8"),
        ("device", "<i4"),
        ("stack", "<i4"),  # of the call that made it: index into TensorHistory.stacks; NO_STACK where it was freed
        ("kind", "<i4"),  # BlockEvent
    ]
)
"""One entry of PyTorch's history, in the order of its device."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Blocks that one device's cache handed out, by PyTorch's own counters, which miss none."""

    count: int
    bytes: int  # asked for


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorHistory:
    """What is known of PyTorch's blocks in one cell. Plain data: it refers to nothing of PyTorch's or the user's."""

    stacks: tuple[tuple[Frame, ...], ...] = ()  # innermost frame first
    before: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, TENSOR_BLOCK_DTYPE))  # at the begin
    after: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, TENSOR_BLOCK_DTYPE))  # at the end
    events: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, TENSOR_EVENT_DTYPE))  # the latest ones
    made: Mapping[int, Made] | None = None  # by device; None when the counters do not tell
    notes: tuple[str, ...] = ()  # sentences that a reader must know
    problem: str = ""  # why nothing was recorded, as a sentence; all else is empty then
