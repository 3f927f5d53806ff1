"""What was born in a cell by who holds it, and cells that grow: exact numbers, without a search."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.analysis.born import BORN_DTYPE, Born, born_memory
from gpumem_magic.analysis.cell_holders import cell_holders
from gpumem_magic.analysis.cell_table import cell_table
from gpumem_magic.analysis.growth import Growth, growing_cells, with_holder
from gpumem_magic.analysis.raw_memory import raw_memory
from gpumem_magic.analysis.retention import MEMORY_DTYPE, memory_within
from gpumem_magic.model.cell_blocks import CELL_BLOCK_DTYPE, CellBlocks
from gpumem_magic.model.events import Kind
from gpumem_magic.model.frameworks import BLOCK_DTYPE, SEGMENT_DTYPE, BlockState, FrameworkMemory, Pool
from gpumem_magic.model.holders import HeldBy, Holder, Holders, Name
from gpumem_magic.model.snapshot import Gap
from tests.analysis.build import CUBLAS, MIB, Recording, notebook

if TYPE_CHECKING:
    from gpumem_magic.analysis.cell_holders import CellHolders

RAW = "/x/cuda/bindings/cydriver.so"


def holder(address: int, size: int, *paths: str, held_by: HeldBy = HeldBy.NOTEBOOK, path: str = "") -> Holder:
    names = tuple(
        Name(name=each.partition(".")[0].partition(" →")[0], path=each, held_by=held_by, exclusive_bytes=0)
        for each in paths
    )
    return Holder(
        address=address,
        bytes=size,
        device=0,
        frameworks=("torch",),
        type_name="Tensor",
        held_by=held_by,
        names=names,
        name_count=len(names),
        path=path,
    )


def found(*holders: Holder) -> Holders:
    return Holders(holders=holders, bytes=sum(each.bytes for each in holders))


def sizes(held: CellHolders) -> dict[HeldBy | None, int]:
    return {row.held_by: row.bytes for row in held.rows}


def words(held: CellHolders) -> dict[str, int]:
    return {name.name: name.bytes for row in held.rows for name in row.names}


# ---- what was born ----


def torch(segments: list[tuple[int, int]], live: list[tuple[int, int]], kind: str = "device") -> FrameworkMemory:
    starts = [address for address, _ in segments]
    rows = [
        (address, size, size, int(np.searchsorted(starts, address, side="right")) - 1, BlockState.LIVE)
        for address, size in live
    ]
    return FrameworkMemory(
        name="torch",
        version="2.11",
        pools=(Pool(name="default", device=0, kind=kind),),
        segments=np.array([(*each, 0, 0) for each in segments], SEGMENT_DTYPE),
        blocks=np.array(rows, BLOCK_DTYPE),
    )


def blocks(*rows: tuple[int, int, int], **deltas: int) -> CellBlocks:
    """Blocks (address, bytes, cell); ``deltas``: ``c3=-5`` for cell 3."""
    return CellBlocks(
        blocks=np.array([(*row, 0) for row in rows], CELL_BLOCK_DTYPE),
        pooled_delta_bytes={int(name[1:]): value for name, value in deltas.items()},
    )


def test_blocks_allocations_and_what_is_nested() -> None:
    recording = Recording()
    early = recording.alloc(MIB, library=RAW, address=1 << 38)
    with recording.cell(1) as cell:
        segment = recording.alloc(64 * MIB, address=1 << 40)
        workspace = recording.alloc(32 * MIB, library=CUBLAS, address=1 << 41)
        with recording.cell(None, label="inner") as inner:
            raw = recording.alloc(2 * MIB, library=RAW, address=1 << 42)
        recording.alloc(4 * MIB, library=RAW, kind=Kind.ALLOC_HOST)
        recording.alloc(3 * MIB, library=RAW, kind=Kind.CREATE_ARRAY, address=0x55)
        recording.free(recording.alloc(9 * MIB, library=RAW))
    live = [(segment, MIB), (segment + 8 * MIB, 5 * MIB), (segment + 20 * MIB, 7 * MIB)]
    snapshot = dataclasses.replace(recording.snapshot(), frameworks=(torch([(segment, 64 * MIB)], live),))
    known = blocks(
        (segment, MIB, 0),  # from before
        (segment + 8 * MIB, 5 * MIB, cell),
        (segment + 16 * MIB, 2 * MIB, cell),  # gone since
        (segment + 20 * MIB, 7 * MIB, inner),
    )
    born = born_memory(snapshot, [cell], known)
    born.self_check()
    assert born.bytes == (5 + 7 + 32 + 2 + 3) * MIB
    assert born.pools == ("torch",)
    assert set(born.ranges["address"].tolist()) == {segment + 8 * MIB, segment + 20 * MIB, workspace, raw}
    assert early not in born.ranges["address"]
    assert (born.of([cell]).bytes, born.of([99]).bytes, born.of([99]).pools) == (born.bytes, 0, ())
    held = cell_holders(found(holder(raw, 2 * MIB, "raw"), holder(segment + 8 * MIB, 5 * MIB, "model.weight")), born)
    assert sizes(held) == {None: 42 * MIB, HeldBy.NOTEBOOK: 7 * MIB}
    assert words(held) == {
        "cuBLAS": 32 * MIB,
        "torch": 7 * MIB,
        "cuda.bindings (cydriver): array, which has no address": 3 * MIB,
        "model": 5 * MIB,
        "raw": 2 * MIB,
    }


def test_managed_blocks_are_no_device_memory() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        pass
    memory = torch([(1 << 40, 64 * MIB)], [(1 << 40, MIB)], kind="managed")
    snapshot = dataclasses.replace(recording.snapshot(), frameworks=(memory,))
    assert born_memory(snapshot, [cell], blocks((1 << 40, MIB, cell))).bytes == 0


def test_physical_memory_counts_once_mapped_or_not() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        mapped = recording.alloc(4 * MIB, library=RAW, kind=Kind.CREATE_PHYSICAL, address=0x10)
        recording.event(Kind.MAP, address=1 << 41, size=4 * MIB, handle=mapped)
        for handle in (0x20, 0x30):  # nearer to each other than they are large
            recording.alloc(2 * MIB, library=RAW, kind=Kind.CREATE_PHYSICAL, address=handle)
    born = born_memory(recording.snapshot(), [cell], CellBlocks())
    assert born.bytes == 8 * MIB
    held = cell_holders(found(holder(1 << 41, 4 * MIB, "buffer")), born)
    assert sizes(held) == {HeldBy.NOTEBOOK: 4 * MIB, None: 4 * MIB}
    assert raw_memory(recording.snapshot()).tolist() == [(1 << 41, 4 * MIB, 0)]


def test_a_block_that_two_frameworks_tell_of_counts_once() -> None:
    recording = Recording()
    with recording.cell(1) as cell:
        pass
    block = (1 << 40, 2 * MIB)
    told = torch([(1 << 40, 8 * MIB)], [block])
    both = dataclasses.replace(recording.snapshot(), frameworks=(told, dataclasses.replace(told, name="cupy")))
    born = born_memory(both, [cell], blocks((*block, cell)))
    born.self_check()
    assert born.ranges[["address", "bytes"]].tolist() == [block]


# ---- classes ----


def born(*ranges: tuple[int, int], makers: tuple[str, ...] = ("cuBLAS",), cell: int = 1) -> Born:
    rows = np.array([(address, size, cell, 0) for address, size in ranges], BORN_DTYPE)
    return Born(ranges=rows, unplaced=np.empty(0, BORN_DTYPE), makers=makers, pools=())


def test_names_of_each_class() -> None:
    frame = "train_step() in In [3]:4, local logits"
    holders = found(
        holder(10, 5, "model.a", "best"),
        holder(20, 4, "model.b"),
        holder(30, 3, f"sys.last_exc → traceback → {frame}['x']", held_by=HeldBy.EXCEPTION),
        holder(40, 2, f"sys.last_exc.__context__ → traceback → {frame}['y'].z", held_by=HeldBy.EXCEPTION),
        holder(50, 1, "sys.last_value.args[0]", held_by=HeldBy.EXCEPTION),
        holder(60, 6, held_by=HeldBy.GARBAGE, path="<Trainer>.state['<x>']"),
        holder(70, 7, held_by=HeldBy.GARBAGE, path="<<b>x</b>>[0] → <Trainer>"),
        holder(80, 8, held_by=HeldBy.OPAQUE),
        holder(90, 9, "loss → grad_fn MmBackward0: saved mat2", held_by=HeldBy.AUTOGRAD),
        holder(100, 10, held_by=HeldBy.NOTEBOOK),  # too small for a name
    )
    held = cell_holders(holders, born((0, 1000)))
    assert words(held) == {
        "model": 9,
        frame: 5,
        "sys": 1,
        "<Trainer>": 6,
        "<<b>x</b>>": 7,
        "torch": 8,
        "loss": 9,
        "cuBLAS": 1000 - 55,
    }
    in_notebook = next(row for row in held.rows if row.held_by is HeldBy.NOTEBOOK)
    assert (in_notebook.bytes, in_notebook.unnamed_bytes) == (19, 10)
    paths = {name.name: (name.path, name.count) for row in held.rows for name in row.names}
    assert paths["model"] == ("model.a", 2)
    assert paths["loss"] == ("loss → grad_fn MmBackward0: saved mat2", 1)


def test_a_row_and_what_has_no_name() -> None:
    nameless = dataclasses.replace(holder(10, 3), frameworks=())
    held = cell_holders(found(holder(0, 5, "a"), nameless), born((0, 20)))
    row = next(row for row in held.rows if row.held_by is HeldBy.NOTEBOOK)
    assert (row.bytes, row.unnamed_bytes, [name.name for name in row.names]) == (8, 3, ["a"])


pieces = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=8)


def laid_out(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (address, bytes) one after the other, from gaps and lengths."""
    place, made = 0, []
    for gap, length in gaps:
        made.append((place + gap, length))
        place += gap + length
    return made


@given(pieces, pieces)
def test_shared_bytes_as_counted_one_by_one(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    ranges, others = laid_out(ours), laid_out(theirs)
    classes = [each for each in HeldBy if each is not HeldBy.EXCEPTION]
    holders = [
        holder(address, size, f"n{index}", held_by=classes[index % len(classes)])
        for index, (address, size) in enumerate(others)
    ]
    held = cell_holders(found(*reversed(holders)), born(*ranges))
    mine = {byte for address, size in ranges for byte in range(address, address + size)}
    expected = {
        f"n{index}": shared
        for index, (address, size) in enumerate(others)
        if (shared := len(mine & set(range(address, address + size))))
    }
    left = len(mine) - sum(expected.values())
    assert words(held) == expected | ({"cuBLAS": left} if left else {})
    assert held.bytes == len(mine)


@given(pieces, pieces)
def test_memory_within_as_counted_one_by_one(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    memory = np.array([(*each, 0) for each in laid_out(ours)], MEMORY_DTYPE)
    ranges = np.array([(*each, 0) for each in laid_out(theirs)], MEMORY_DTYPE)
    inside = {byte for address, size, _ in ranges.tolist() for byte in range(address, address + size)}
    touched = [bool(inside & set(range(address, address + size))) for address, size, _ in memory.tolist()]
    assert memory_within(memory, ranges).tolist() == [index for index, is_touched in enumerate(touched) if is_touched]


# ---- growth ----


def runs(*changes: list[int], frees: dict[int, list[int]] | None = None) -> tuple[Recording, CellBlocks]:
    """A cell that ran once per item; each allocates what is in it (MiB). ``frees``: per run, what it frees by index."""
    recording = Recording()
    addresses: list[int] = []
    for number, sizes_mib in enumerate(changes):
        with recording.cell(number + 1, "step()", cell_id="c"):
            for size in sizes_mib:
                address = (1 << 40) + (len(addresses) << 32)
                addresses.append(recording.alloc(size * MIB, notebook(1, 1), library=RAW, address=address))
            for place in (frees or {}).get(number, []):
                recording.free(addresses[place])
    return recording, CellBlocks(pooled_delta_bytes=dict.fromkeys(recording.cells, 0))


def growth_of(recording: Recording, known: CellBlocks) -> tuple[Growth, ...]:
    snapshot = recording.snapshot()
    return growing_cells(cell_table(snapshot), snapshot, known)


def only(recording: Recording, known: CellBlocks) -> tuple[int, int, tuple[int, ...]]:
    (one,) = growth_of(recording, known)
    return one.first_run, one.last_run, tuple(each // MIB for each in one.added_bytes)


def test_growth_begins_with_the_third_run() -> None:
    assert growth_of(*runs([5], [5])) == ()
    assert only(*runs([5], [6], [7])) == (1, 3, (5, 6, 7))
    assert only(*runs([], [5], [6], [7])) == (2, 4, (5, 6, 7))


def test_a_run_that_adds_nothing_begins_anew() -> None:
    assert growth_of(*runs([5], [5], [5], [])) == ()
    assert only(*runs([5], [5], [], [5], [5], [5])) == (4, 6, (5, 5, 5))
    assert only(*runs([5], [1], [5], [5], [5], frees={1: [0]})) == (3, 5, (5, 5, 5))


def test_a_first_run_that_made_things_ready_is_left_out() -> None:
    assert only(*runs([90], [5], [6], [7])) == (2, 4, (5, 6, 7))
    assert only(*runs([12], [5], [6], [7])) == (1, 4, (12, 5, 6, 7))
    assert only(*runs([90], [5], [6])) == (1, 3, (90, 5, 6))


def test_what_is_replaced_by_more_still_grows() -> None:
    assert only(*runs([1], [2], [3], [4], frees={1: [0], 2: [1], 3: [2]})) == (1, 4, (1, 1, 1, 1))


def test_what_was_given_back_between_runs_is_no_growth() -> None:
    recording, known = runs([5], [5], [5], [5], [5])
    for address in recording.snapshot().allocations["address"][:2].tolist():
        recording.free(address)
    assert only(recording, known) == (3, 5, (5, 5, 5))
    recording.free(int(recording.snapshot().allocations["address"][0]))
    assert growth_of(recording, known) == ()


def test_runs_that_were_not_looked_at_and_gaps_break_the_row() -> None:
    recording, known = runs([5], [5], [5], [5])
    deltas = {cell: delta for cell, delta in known.pooled_delta_bytes.items() if cell != 2}
    assert growth_of(recording, dataclasses.replace(known, pooled_delta_bytes=deltas)) == ()
    begin = recording.cells[3].begin_ns
    recording.gaps.append(Gap(begin_ns=begin, end_ns=begin + 1, reason="lent"))
    assert growth_of(recording, known) == ()


def test_blocks_count_instead_of_what_pools_took() -> None:
    recording, known = runs([64], [], [], [])  # the first run took a segment, and every run a block of it
    segment = int(recording.snapshot().allocations["address"][0])
    snapshot = dataclasses.replace(
        recording.snapshot(),
        frameworks=(torch([(segment, 64 * MIB)], [(segment + place * 2 * MIB, MIB) for place in range(4)]),),
    )
    rows = [(segment + place * 2 * MIB, MIB, place + 1) for place in range(4)]
    known = blocks(*rows, c1=(1 - 64) * MIB, c2=MIB, c3=MIB, c4=MIB)
    (one,) = growing_cells(cell_table(snapshot), snapshot, known)
    assert one.added_bytes == (MIB,) * 4


def test_the_holder_is_who_holds_something_from_most_runs() -> None:
    growth = Growth(label="In [4]", first_run=1, added_bytes=(1, 1, 1), cells=(1, 2, 3))
    rows = np.array([(0, 5, 1, 0), (10, 5, 2, 0), (20, 5, 3, 0), (30, 900, 3, 0)], BORN_DTYPE)
    every = Born(ranges=rows, unplaced=np.empty(0, BORN_DTYPE), makers=("torch",), pools=())
    listed = [holder(place, 5, f"losses[{place}]") for place in (0, 10, 20)]
    named = [dataclasses.replace(each, names=(dataclasses.replace(each.names[0], name="losses"),)) for each in listed]
    told = with_holder(growth, found(holder(30, 900, "model"), *named), every)
    assert (told.is_searched, told.held_by, told.holder) == (True, HeldBy.NOTEBOOK, "losses")
    nobody = with_holder(growth, found(), every)
    assert (nobody.is_searched, nobody.held_by) == (True, None)
