"""Every byte of a device: rows that add up, whoever owns them and whatever is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.analysis.byte_ledger import ByteLedger, LedgerRow, byte_ledger, paged_bytes
from gpumem_magic.model.events import Kind
from gpumem_magic.model.frameworks import BLOCK_DTYPE, FrameworkMemory
from gpumem_magic.model.tables import ALLOCATION_DTYPE
from tests.analysis.build import GIB, MIB
from tests.analysis.scenes import every_owner

PAGE = 2 * MIB


def row(ledger: ByteLedger, name: str) -> LedgerRow:
    (found,) = [each for each in ledger.rows() if each.name == name]
    return found


def test_rows_add_up_and_each_has_its_owner() -> None:
    ledger = byte_ledger(every_owner())
    ledger.self_check()
    (device,) = ledger.devices
    assert device.used_bytes == 2 * GIB
    assert row(ledger, "other processes, and the driver itself").bytes == GIB
    assert row(ledger, "CUDA context").bytes == 530 * MIB
    assert row(ledger, "kernels: code and local memory").bytes == 92 * MIB
    assert row(ledger, "torch").bytes == 200 * MIB
    assert row(ledger, "live blocks").bytes == 150 * MIB
    assert row(ledger, "cached, in pieces").bytes == 50 * MIB
    assert row(ledger, "cuBLAS").bytes == 32 * MIB
    assert row(ledger, "kept by the driver's memory pools").bytes == 22 * MIB
    assert row(ledger, "not explained").bytes == device.unexplained_bytes
    assert row(ledger, "rounded up to whole pages").bytes == 2 * MIB
    assert device.unexplained_bytes == GIB - (530 + 92 + 246 + 22 + 2) * MIB


def test_what_can_be_given_back_says_how() -> None:
    made = every_owner()
    empty = np.empty(0, BLOCK_DTYPE)
    idle = dataclasses.replace(made, frameworks=(dataclasses.replace(made.frameworks[0], blocks=empty),))
    cached = row(byte_ledger(idle), "cached, can be given back")
    assert (cached.bytes, cached.command) == (200 * MIB, "%gpumem free cache")


def test_without_the_frameworks_the_libraries_own() -> None:
    ledger = byte_ledger(dataclasses.replace(every_owner(), frameworks=()))
    ledger.self_check()
    assert row(ledger, "torch (libc10_cuda)").bytes == 200 * MIB


def test_places_of_a_library() -> None:
    raw = next(each for each in byte_ledger(every_owner()).rows() if each.name.startswith("cuda"))
    assert [(part.name, part.bytes, part.count) for part in raw.parts] == [
        ("(no Python frame)", 10 * MIB, 1),
        ("raw.py:9 other", 3 * MIB, 1),
        ("raw.py:3 make", MIB, 1),
    ]


def test_what_nobody_measured() -> None:
    nothing = byte_ledger(dataclasses.replace(every_owner(), history=None))
    nothing.self_check()
    assert not nothing.devices[0].is_measured
    assert nothing.devices[0].process_bytes is None
    assert nothing.devices[0].unexplained_bytes == 0
    without_share = byte_ledger(every_owner(process_bytes=-1, context_bytes=-1, code_bytes=-1))
    without_share.self_check()
    assert row(without_share, "other processes, contexts, and what nobody explains").bytes > GIB
    assert without_share.devices[0].used_bytes == 2 * GIB


def test_more_than_the_device_reports_is_told() -> None:
    ledger = byte_ledger(every_owner(process_bytes=100 * MIB, used_bytes=100 * MIB))
    ledger.self_check()
    assert ledger.devices[0].unexplained_bytes < 0


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="There is no GPU 7: there are 0"):
        byte_ledger(every_owner(), [7])


def test_what_a_reader_must_know() -> None:
    broken = FrameworkMemory(name="cupy", version="99", problem="its pools have changed.")
    notes = byte_ledger(dataclasses.replace(every_owner(), frameworks=(broken,))).notes
    assert notes == ("cupy: its pools have changed.",)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20 * PAGE),
            st.one_of(st.integers(0, PAGE - 1), st.integers(PAGE, 5 * PAGE)),
            st.sampled_from([Kind.ALLOC, Kind.ALLOC_PITCH, Kind.CREATE_PHYSICAL, Kind.ALLOC_ASYNC]),
        ),
        max_size=20,
    )
)
def test_pages(made: list[tuple[int, int, Kind]]) -> None:
    rows = np.zeros(len(made), ALLOCATION_DTYPE)
    shared, whole = set(), 0
    for each, (address, size, kind) in zip(rows, made, strict=True):
        each["address"], each["size"], each["kind"] = address, size, kind
        if kind is Kind.ALLOC_ASYNC:
            continue
        if size < PAGE and kind is not Kind.CREATE_PHYSICAL:
            shared |= set(range(address // PAGE, (address + max(size, 1) - 1) // PAGE + 1))
        else:
            whole += -(-size // PAGE)
    assert paged_bytes(rows) == (len(shared) + whole) * PAGE
