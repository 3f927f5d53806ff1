"""Virtual memory management: handles, reservations, mappings, access, sharing."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from cuda.bindings import driver

from tests.simulator.driver import MiB, device_prop, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process

POSIX_FD = driver.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
INVALID_VALUE, NOT_SUPPORTED = 1, 801


def create(size: int, handle_types: int = 0) -> Any:
    return ok(driver.cuMemCreate(size, device_prop(handle_types), 0))


def reserve(size: int) -> int:
    return int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))


def grant(address: int, size: int) -> int:
    access = driver.CUmemAccessDesc()
    access.location = device_prop().location
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return status(driver.cuMemSetAccess(address, size, [access], 1))


def write(address: int, data: bytes) -> int:
    return status(driver.cuMemcpyHtoD(address, data, len(data)))


def read(address: int, size: int) -> bytes:
    data = ctypes.create_string_buffer(size)
    ok(driver.cuMemcpyDtoH(ctypes.addressof(data), address, size))
    return data.raw


@in_fresh_process()
def test_bytes_are_taken_by_the_handle_and_kept_by_the_mapping() -> None:
    start()
    handle = create(4 * MiB)
    assert used() == 4 * MiB
    address = reserve(16 * MiB)
    ok(driver.cuMemMap(address, 4 * MiB, 0, handle, 0))
    ok(driver.cuMemRelease(handle))
    assert used() == 4 * MiB
    assert status(driver.cuMemAddressFree(address, 16 * MiB)) == INVALID_VALUE
    ok(driver.cuMemUnmap(address, 4 * MiB))
    assert used() == 0
    assert status(driver.cuMemAddressFree(address, 8 * MiB)) == INVALID_VALUE
    ok(driver.cuMemAddressFree(address, 16 * MiB))
    assert status(driver.cuMemAddressFree(address, 16 * MiB)) == INVALID_VALUE


@in_fresh_process()
def test_maps_that_are_refused() -> None:
    start()
    handle, address = create(4 * MiB), reserve(16 * MiB)
    ok(driver.cuMemMap(address, 4 * MiB, 0, handle, 0))
    for at, size, offset, expected in [
        (address, 4 * MiB, 0, INVALID_VALUE),
        (address + 4 * MiB, 2 * MiB, 0, NOT_SUPPORTED),
        (address + 4 * MiB, 2 * MiB, 2 * MiB, NOT_SUPPORTED),
        (address + 14 * MiB, 4 * MiB, 0, INVALID_VALUE),
        (address + 1024 * MiB, 4 * MiB, 0, INVALID_VALUE),
        (address + 4096, 4 * MiB, 0, INVALID_VALUE),
    ]:
        assert status(driver.cuMemMap(at, size, offset, handle, 0)) == expected
    assert status(driver.cuMemUnmap(address, 2 * MiB)) == INVALID_VALUE
    assert status(driver.cuMemCreate(MiB, device_prop(), 0)) == INVALID_VALUE
    assert status(driver.cuMemFree(address)) == INVALID_VALUE


@in_fresh_process()
def test_access_comes_with_a_grant_and_two_mappings_show_the_same_bytes() -> None:
    start()
    handle, address = create(2 * MiB), reserve(8 * MiB)
    twin = address + 2 * MiB
    ok(driver.cuMemMap(address, 2 * MiB, 0, handle, 0))
    ok(driver.cuMemMap(twin, 2 * MiB, 0, handle, 0))
    assert write(address, b"x") == INVALID_VALUE
    assert grant(address, 8 * MiB) == INVALID_VALUE  # has holes
    assert grant(address, 4 * MiB) == 0
    assert write(address + 5, b"aliased") == 0
    assert read(twin + 5, 7) == b"aliased"
    assert write(twin - 2, b"over") == 0  # across the border of two mappings
    assert read(address, 2) == b"er"


@in_fresh_process()
def test_a_retained_handle_must_be_released_once_more() -> None:
    start()
    handle, address = create(2 * MiB), reserve(2 * MiB)
    ok(driver.cuMemMap(address, 2 * MiB, 0, handle, 0))
    assert int(ok(driver.cuMemRetainAllocationHandle(address))) == int(handle)
    ok(driver.cuMemRelease(handle))
    ok(driver.cuMemUnmap(address, 2 * MiB))
    assert used() == 2 * MiB
    ok(driver.cuMemRelease(handle))
    assert used() == 0
    assert status(driver.cuMemRelease(handle)) == INVALID_VALUE


@in_fresh_process()
def test_a_handle_exported_and_imported_in_one_process_is_the_same_memory() -> None:
    start()
    assert status(driver.cuMemExportToShareableHandle(create(2 * MiB), POSIX_FD, 0)) == 1
    handle = create(2 * MiB, POSIX_FD)
    fd = int(ok(driver.cuMemExportToShareableHandle(handle, POSIX_FD, 0)))
    before = used()
    twin = ok(driver.cuMemImportFromShareableHandle(fd, POSIX_FD))
    os.close(fd)
    assert used() == before
    address = reserve(4 * MiB)
    ok(driver.cuMemMap(address, 2 * MiB, 0, handle, 0))
    ok(driver.cuMemMap(address + 2 * MiB, 2 * MiB, 0, twin, 0))
    assert grant(address, 4 * MiB) == 0
    assert write(address, b"shared") == 0
    assert read(address + 2 * MiB, 6) == b"shared"
