"""Which cell the blocks in frameworks' pools are from: plain data that refers to none of the objects in them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

CELL_BLOCK_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),
        ("cell", "<u4"),  # the span that it appeared in; 0 for one that was there before, or came between two cells
        ("is_unsure", "u1"),  # its segment appeared with it: it may be older, where a pool does not tell all segments
    ]
)
"""A block that was live at the latest look. Ordered by address; blocks do not overlap."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellBlocks:
    """What was seen by looking at the pools at the begin and at the end of cells. Blocks of device memory only.

    A block that was freed and handed out again between two looks, at the same address and with the same size, looks
    like one that stayed: it counts to the cell in which the first of the two appeared. A pool that does not tell its
    full segments (CuPy from 14.1 on) hides the blocks in them: they count to the cell that took the segment.
    """

    blocks: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, CELL_BLOCK_DTYPE))
    pooled_delta_bytes: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Per cell that was looked at: how much more was live in blocks at its end than at its begin, less what pools took.

    Added to the change of what the driver handed out, it gives the change of what the program itself holds.
    """
