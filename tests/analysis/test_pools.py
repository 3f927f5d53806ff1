"""What is inside a framework's pools, against counting byte by byte."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.analysis.pools import pooled
from gpumem_magic.model.frameworks import (
    BLOCK_DTYPE,
    SEGMENT_DTYPE,
    UNKNOWN_SIZE,
    BlockState,
    FrameworkMemory,
    Pool,
    SegmentFlag,
)

MIB = 1 << 20
PAGE = 2 * MIB
STEP = MIB // 2  # everything here is a multiple of it, so that counting is quick
DEVICE_POOL = Pool(name="default", device=0, kind="device", empty_with="empty()")


def memory(segments: list[tuple[int, int, int]], blocks: list[tuple[int, int, int, int, int]]) -> FrameworkMemory:
    """segments: (address, bytes, flags); blocks: (address, bytes, asked, segment, state)."""
    rows = np.zeros(len(segments), SEGMENT_DTYPE)
    for row, (address, size, flags) in zip(rows, segments, strict=True):
        row["address"], row["bytes"], row["flags"] = address, size, flags
    made = FrameworkMemory(
        name="torch", version="2", pools=(DEVICE_POOL,), segments=rows, blocks=np.array(blocks, BLOCK_DTYPE)
    )
    made.self_check()
    return made


@st.composite
def pools(draw: st.DrawFn) -> FrameworkMemory:
    segments, blocks, address = [], [], 64 * PAGE
    for number in range(draw(st.integers(1, 4))):
        length = draw(st.integers(1, 16))
        segments.append((address, length * STEP, draw(st.sampled_from([0, int(SegmentFlag.EXPANDABLE)]))))
        at = 0
        while at < length:
            size = min(draw(st.integers(1, 6)), length - at)
            if draw(st.booleans()):
                asked = draw(st.sampled_from([size * STEP, size * STEP - 100, UNKNOWN_SIZE]))
                blocks.append((address + at * STEP, size * STEP, asked, number, draw(st.sampled_from(BlockState))))
            at += size
        address += (length + draw(st.integers(0, 3))) * STEP
    return memory(segments, blocks)


@given(pools())
def test_every_byte_of_a_segment_is_in_one_part(found: FrameworkMemory) -> None:
    parts = pooled(found, 0, np.zeros(0, np.uint64))
    total = parts.live + parts.rounding + parts.pending + parts.returnable + parts.pieces
    assert total == int(found.segments["bytes"].sum())


@given(pools())
def test_parts_are_those_that_counting_gives(found: FrameworkMemory) -> None:
    returnable = pieces = largest = 0
    for number, segment in enumerate(found.segments):
        begin, end = int(segment["address"]), int(segment["address"]) + int(segment["bytes"])
        used = np.zeros((end - begin) // STEP, bool)
        for block in found.blocks[(found.blocks["segment"] == number) & (found.blocks["state"] != BlockState.CACHED)]:
            first = (int(block["address"]) - begin) // STEP
            used[first : first + int(block["bytes"]) // STEP] = True
        if not used.any():
            returnable += end - begin
            continue
        run = 0
        for place in range(len(used) + 1):
            if place < len(used) and not used[place]:
                run += 1
                continue
            low, high = begin + (place - run) * STEP, begin + place * STEP
            pages = max(high // PAGE - -(-low // PAGE), 0) * PAGE if segment["flags"] & SegmentFlag.EXPANDABLE else 0
            returnable += pages
            pieces += high - low - pages
            largest = max(largest, high - low - pages)
            run = 0
    parts = pooled(found, 0, np.zeros(0, np.uint64))
    assert (parts.returnable, parts.pieces, parts.largest_free) == (returnable, pieces, largest)


def test_what_was_asked_for_and_what_waits() -> None:
    found = pooled(
        memory(
            [(PAGE, 4 * PAGE, 0)],
            [
                (PAGE, MIB, 1000, 0, BlockState.LIVE),
                (PAGE + MIB, MIB, UNKNOWN_SIZE, 0, BlockState.LIVE),
                (2 * PAGE, MIB, MIB, 0, BlockState.PENDING),
            ],
        ),
        0,
        np.array([PAGE - 1, PAGE, 3 * PAGE, 5 * PAGE], np.uint64),
    )
    assert (found.live, found.rounding, found.pending) == (MIB + 1000, MIB - 1000, MIB)
    assert found.inside.tolist() == [False, True, True, False]
    assert found.command == "empty()"


def test_a_pool_that_tells_totals_only() -> None:
    pool = Pool(name="BFC", device=1, kind="device", reserved_bytes=100, used_bytes=30, largest_free_bytes=50)
    found = FrameworkMemory(name="jax", version="0", pools=(pool,))
    here = pooled(found, 1, np.array([5], np.uint64))
    assert (here.live, here.pieces, here.largest_free, here.knows_ranges) == (30, 70, 50, False)
    assert pooled(found, 0, np.array([5], np.uint64)).is_empty


def test_totals_count_where_not_all_ranges_are_told() -> None:
    made = memory([(PAGE, PAGE, 0), (4 * PAGE, PAGE, 0)], [(4 * PAGE, MIB, MIB, 1, BlockState.LIVE)])
    pool = dataclasses.replace(DEVICE_POOL, reserved_bytes=10 * PAGE, used_bytes=6 * PAGE)
    found = pooled(dataclasses.replace(made, pools=(pool,)), 0, np.array([PAGE], np.uint64))
    assert (found.live, found.returnable, found.pieces) == (6 * PAGE, PAGE, 3 * PAGE)
    assert not found.knows_ranges
    assert found.inside.tolist() == [True]
