"""Looks at the blocks of frameworks' pools at both ends of a cell, and so tells which cell each is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpumem_magic.analysis.pools import lies_in, live_blocks, taken_bytes
from gpumem_magic.capture.frameworks.imported import imported_frameworks
from gpumem_magic.model.cell_blocks import CELL_BLOCK_DTYPE, CellBlocks
from gpumem_magic.model.frameworks import SEGMENT_DTYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpumem_magic.capture.frameworks.framework import Framework

MOST_BLOCKS = 10_000
"""With more blocks than that only cells that ask for it are looked at.

Torch tells its blocks in 0.6 us each, and putting them into tables took another 1.1 us (10,000 blocks: 11 ms, on the
machine that tests ran on), so that a cell pays 35 ms at most for its two looks.
"""


class _Look(NamedTuple):
    """The pools at one moment."""

    blocks: np.ndarray  # CELL_BLOCK_DTYPE, nobody's yet
    segments: np.ndarray  # SEGMENT_DTYPE of all pools, by address
    pooled_bytes: int  # live in blocks, less what the pools took from the driver


class BlockWatch:
    """Follows the blocks from cell to cell. For the thread that runs cells. Keeps numbers, and none of the objects.

    A look gives every block that was not there at the look before to the span that was open in between. See
    ``CellBlocks`` for what addresses alone cannot tell.
    """

    def __init__(self, frameworks: Callable[[], Sequence[Framework]] = imported_frameworks) -> None:
        self._frameworks = frameworks
        self._known = np.empty(0, CELL_BLOCK_DTYPE)
        self._segments = np.empty(0, SEGMENT_DTYPE)
        self._deltas: dict[int, int] = {}

    def before(self, around: int, *, asked: bool) -> int | None:
        """Look before a cell begins. What came since the last look is from the span ``around``, 0 for none.

        Returns what ``after`` wants to know; None when nobody looked. ``asked``: look however long it takes.
        """
        return self._look(around) if asked or self._is_cheap() else None

    def after(self, span: int, before: int | None) -> None:
        """Look after cell ``span`` ended, if it was looked at before it began."""
        if before is not None:
            self._deltas[span] = self._look(span) - before

    def told(self) -> CellBlocks:
        """What is known now."""
        return CellBlocks(blocks=self._known, pooled_delta_bytes=dict(self._deltas))

    def _is_cheap(self) -> bool:
        return len(self._known) <= MOST_BLOCKS

    def _look(self, span: int) -> int:
        now = _look(self._frameworks())
        now.blocks["cell"] = span
        now.blocks["is_unsure"] = ~lies_in(self._segments, now.blocks["address"])
        _keep(self._known, now.blocks)
        self._known, self._segments = now.blocks, now.segments
        return now.pooled_bytes


def _look(frameworks: Iterable[Framework]) -> _Look:
    parts, segments, pooled = [np.empty(0, CELL_BLOCK_DTYPE)], [np.empty(0, SEGMENT_DTYPE)], 0
    for memory in (framework.memory() for framework in frameworks):
        if not len(memory.segments):
            continue
        live = live_blocks(memory)
        rows = np.zeros(len(live), CELL_BLOCK_DTYPE)
        rows["address"], rows["bytes"] = live["address"], live["bytes"]
        parts.append(rows)
        segments.append(memory.segments)
        pooled += int(live["bytes"].sum()) - taken_bytes(memory)
    blocks, taken = (np.sort(np.concatenate(each), order="address") for each in (parts, segments))
    return _Look(blocks, taken, pooled)


def _keep(known: np.ndarray, now: np.ndarray) -> None:
    """What was known of the blocks of ``now`` stays."""
    if len(known):
        place = np.minimum(np.searchsorted(known["address"], now["address"]), len(known) - 1)
        same = (known["address"][place] == now["address"]) & (known["bytes"][place] == now["bytes"])
        now[same] = known[place[same]]
