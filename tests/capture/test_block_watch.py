"""Which cell a block of a framework's pool is from, by looking before and after cells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture import block_watch
from gpumem_magic.capture.block_watch import BlockWatch
from tests.pooled import Array, PooledArrays

if TYPE_CHECKING:
    from gpumem_magic.model.frameworks import FrameworkMemory

MIB = 1 << 20


@pytest.fixture
def pool() -> PooledArrays:
    made = PooledArrays()
    made.take(1 << 40, 32 * MIB)
    return made


class Cells:
    """Runs cells under a watch."""

    def __init__(self, pool: PooledArrays) -> None:
        self.watch = BlockWatch(lambda: [pool])
        self._count = 0

    def begin(self, around: int = 0, *, asked: bool = False) -> int | None:
        return self.watch.before(around, asked=asked)

    def end(self, before: int | None) -> int:
        self._count += 1
        self.watch.after(self._count, before)
        return self._count

    def cell_of(self, array: Array) -> int:
        rows = self.watch.told().blocks
        (row,) = rows[rows["address"] == array.address]
        assert row["bytes"] == array.size
        return int(row["cell"])


def test_blocks_belong_to_the_cell_in_which_they_appeared(pool: PooledArrays) -> None:
    cells = Cells(pool)
    before = pool.array(MIB)
    start = cells.begin()
    first = pool.array(2 * MIB)
    cell = cells.end(start)
    between = pool.array(MIB)
    start = cells.begin()
    second = pool.array(MIB)
    del first
    other = cells.end(start)
    assert [cells.cell_of(each) for each in (before, between, second)] == [0, 0, other]
    assert len(cells.watch.told().blocks) == 3
    assert cells.watch.told().pooled_delta_bytes == {cell: 2 * MIB, other: -MIB}


def test_what_pools_take_is_counted_against_what_is_in_use(pool: PooledArrays) -> None:
    cells = Cells(pool)
    start = cells.begin()
    pool.take(1 << 41, 64 * MIB)
    kept = pool.array(40 * MIB)
    assert cells.watch.told().pooled_delta_bytes == {}
    assert cells.watch.told().pooled_delta_bytes.get(cells.end(start)) is None
    assert cells.watch.told().pooled_delta_bytes == {1: kept.size - 64 * MIB}


def test_an_address_that_is_used_again(pool: PooledArrays) -> None:
    """With another size it is another block. With the same it looks like the one that was there."""
    cells = Cells(pool)
    old, same = pool.array(MIB), pool.array(MIB)
    start = cells.begin()
    places = old.address, same.address
    del old, same
    new, again = pool.array(MIB // 2), None
    pool.live[places[1]] = MIB
    again = Array(pool, places[1], MIB)
    cell = cells.end(start)
    assert (new.address, again.address) == places
    assert (cells.cell_of(new), cells.cell_of(again)) == (cell, 0)


def test_a_cell_in_a_cell(pool: PooledArrays) -> None:
    cells = Cells(pool)
    outer = cells.begin()
    first = pool.array(MIB)
    inner = cells.begin(around=2, asked=True)  # the outer one will be the second to end
    second = pool.array(MIB)
    assert cells.end(inner) == 1
    third = pool.array(MIB)
    cells.end(outer)
    assert [cells.cell_of(each) for each in (first, second, third)] == [2, 1, 2]


def test_with_many_blocks_only_what_is_asked_for_is_looked_at(
    pool: PooledArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_watch, "MOST_BLOCKS", 2)
    cells = Cells(pool)
    kept = [pool.array(MIB) for _ in range(3)]
    cells.end(cells.begin())
    reads = pool.reads
    assert cells.begin() is None
    cell = cells.end(None)
    assert pool.reads == reads
    assert cell not in cells.watch.told().pooled_delta_bytes
    assert cells.begin(asked=True) is not None
    kept.pop()
    cells.end(cells.begin(asked=True))
    assert cells.begin() is not None


def test_managed_and_pinned_memory_is_left_out(pool: PooledArrays, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pool.array(MIB)
    read = pool.memory

    def managed() -> FrameworkMemory:
        told = read()
        return dataclasses.replace(told, pools=(dataclasses.replace(told.pools[0], kind="managed"),))

    monkeypatch.setattr(pool, "memory", managed)
    cells = Cells(pool)
    cells.end(cells.begin())
    assert len(cells.watch.told().blocks) == 0
    assert cells.watch.told().pooled_delta_bytes == {1: 0}
    assert kept.size == MIB
