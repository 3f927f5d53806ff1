"""The table of allocation sites that is refreshed while a program runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.site_table import SiteRow, SiteTable
from gpumem_magic.model.events import Kind
from tests.analysis.build import MIB, Recording, notebook

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot

BATCH = ("/home/ada/train.py", "make_batch", 12)
TRAIN = ("/home/ada/train.py", "train", 40)
EVALUATE = ("/home/ada/train.py", "evaluate", 60)


def rows(snapshot: Snapshot, most: int = 300) -> dict[str, SiteRow]:
    return {row.name.where: row for row in SiteTable(most).rows(snapshot, notebook_labels(snapshot))}


def test_a_row_has_the_exact_numbers_of_its_site() -> None:
    recording = Recording()
    with recording.cell(1, "train()"):
        first = recording.alloc(8 * MIB, BATCH, thread=11)
        second = recording.alloc(4 * MIB, BATCH, thread=12)
        recording.free(first)
        recording.fail(1 << 40, BATCH)
    found = rows(recording.snapshot())["train.py:12 make_batch"]
    assert (found.count, found.live_count, found.live_bytes) == (2, 1, 4 * MIB)
    assert (found.peak_bytes, found.allocated_bytes, found.failed_count) == (12 * MIB, 12 * MIB, 1)
    assert (found.name.library, found.name.kind, found.name.cell) == ("torch (libc10_cuda)", "cuMemAlloc", "In [1]")
    assert found.name.function == "make_batch"
    assert found.threads == (12,)
    (birth,) = recording.ledger.allocations["birth_ns"]
    assert found.oldest_ns == birth
    assert second


def test_without_allocations_age_and_threads_are_not_known() -> None:
    recording = Recording()
    recording.alloc(MIB, BATCH)
    snapshot = recording.snapshot()
    (found,) = SiteTable().rows(dataclasses.replace(snapshot, allocations=snapshot.allocations[:0]), {})
    assert (found.live_bytes, found.oldest_ns, found.threads) == (MIB, None, ())


def test_rows_that_would_read_alike_name_the_caller_that_differs() -> None:
    recording = Recording()
    recording.alloc(2 * MIB, BATCH, TRAIN)
    recording.alloc(MIB, BATCH, EVALUATE)
    assert list(rows(recording.snapshot())) == [
        "train.py:12 make_batch ← train.py:40 train",
        "train.py:12 make_batch ← train.py:60 evaluate",
    ]


def test_the_most_live_come_first_then_the_highest_peaks() -> None:
    recording = Recording()
    gone = recording.alloc(64 * MIB, ("/home/ada/a.py", "gone", 1))
    recording.free(gone)
    recording.free(recording.alloc(32 * MIB, ("/home/ada/a.py", "less", 2)))
    recording.alloc(MIB, ("/home/ada/a.py", "small", 3))
    recording.alloc(2 * MIB, ("/home/ada/a.py", "large", 4))
    assert [where.split()[-1] for where in rows(recording.snapshot())] == ["large", "small", "gone", "less"]
    most = rows(recording.snapshot(), most=2)
    assert list(most) == ["a.py:4 large", "a.py:3 small", "2 other places, cuMemAlloc"]


def test_what_has_no_row_of_its_own_is_added_up() -> None:
    recording = Recording(("GPU", "16GiB"), ("GPU", "16GiB"))
    for line in range(20):
        recording.alloc((line + 1) * MIB, ("/home/ada/a.py", "site", line), device=line % 2)
    recording.fail(1 << 40, ("/home/ada/a.py", "site", 0))
    snapshot = recording.snapshot()
    all_of_them, few = (SiteTable(most).rows(snapshot, {}) for most in (300, 5))
    assert len(few) == 7
    for device in (0, 1):
        for name in ("count", "live_count", "live_bytes", "allocated_bytes", "failed_count"):
            whole, short = (
                sum(getattr(row, name) for row in rows if row.key[-1] == device) for rows in (all_of_them, few)
            )
            assert short == whole, name
    assert [(row.name.where, row.live_bytes) for row in few[5:]] == [
        ("8 other places, cuMemAlloc", 64 * MIB),
        ("7 other places, cuMemAlloc", 56 * MIB),
    ]


def test_a_site_of_a_cell_and_one_of_a_native_thread() -> None:
    recording = Recording()
    with recording.cell(7, "x = make()", source_file="/tmp/ipykernel_4242/77.py"):
        recording.alloc(MIB, notebook(77, 3))
    recording.alloc(MIB, library="/usr/lib/libnccl.so.2")
    found = rows(recording.snapshot())
    assert found["In [7]:3"].name.cell == "In [7]"
    assert found["(no Python frame)"].name.library == "NCCL"
    assert found["(no Python frame)"].name.cell == ""


def test_the_live_bytes_of_all_rows_are_those_of_the_snapshot() -> None:
    recording = Recording(("A", "16GiB"), ("B", "16GiB"))
    generator = np.random.default_rng(7)
    kept: list[int] = []
    for step in range(200):
        line = int(generator.integers(1, 9))
        kept.append(recording.alloc(int(generator.integers(1, MIB)), ("/a.py", "f", line), device=step % 2))
        if step % 3 == 0:
            recording.free(kept.pop(int(generator.integers(len(kept)))))
    snapshot = recording.snapshot()
    assert sum(row.live_bytes for row in SiteTable().rows(snapshot, {})) == snapshot.live_bytes


def test_two_calls_on_one_line_are_one_row() -> None:
    recording = Recording()
    recording.alloc(2 * MIB, BATCH)
    # The same file, function and line at another instruction: another stack to the tracker, the same to a reader.
    recording._codes[99] = recording._codes[1]
    recording._nodes[0, 99] = node = len(recording._nodes) + 1
    recording.event(Kind.ALLOC, address=1 << 40, size=3 * MIB, stack=node, library=1, thread=5)
    recording.free(recording.alloc(4 * MIB, BATCH))
    (found,) = SiteTable().rows(recording.snapshot(), {})
    assert (found.name.where, found.live_bytes, found.live_count, found.count) == (
        "train.py:12 make_batch",
        5 * MIB,
        2,
        3,
    )
    assert found.peak_bytes == 6 * MIB  # of the first alone; at least 5 MiB, which are live now
    assert set(found.threads) == {0, 5}
