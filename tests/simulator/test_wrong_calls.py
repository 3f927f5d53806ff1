"""Errors of wrong calls, as a real driver (580.159.04) gave them."""

from __future__ import annotations

import ctypes

from cuda.bindings import driver

from tests.simulator.driver import MiB, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process

INVALID_VALUE, NOT_SUPPORTED, NOT_FOUND = 1, 801, 500


@in_fresh_process()
def test_frees_that_are_wrong() -> None:
    start()
    pointer = ok(driver.cuMemAlloc(4096))
    assert status(driver.cuMemFree(int(pointer) + 512)) == INVALID_VALUE
    ok(driver.cuMemFree(pointer))
    assert status(driver.cuMemFree(pointer)) == INVALID_VALUE
    assert status(driver.cuMemFreeAsync(pointer, 0)) == INVALID_VALUE
    ok(driver.cuMemFree(0))
    ok(driver.cuMemFreeAsync(0, 0))
    mine = ctypes.create_string_buffer(64)
    assert status(driver.cuMemFree(ctypes.addressof(mine))) == INVALID_VALUE
    pinned = ok(driver.cuMemAllocHost(4096))
    assert status(driver.cuMemFree(pinned)) == INVALID_VALUE
    assert status(driver.cuMemFreeAsync(pinned, 0)) == INVALID_VALUE
    assert status(driver.cuMemFreeHost(int(pinned) + 64)) == INVALID_VALUE
    ok(driver.cuMemFreeHost(pinned))
    assert status(driver.cuMemFreeHost(pinned)) == INVALID_VALUE


@in_fresh_process()
def test_each_kind_of_memory_may_be_freed_its_own_way_and_some_others() -> None:
    start()
    ok(driver.cuMemFreeAsync(ok(driver.cuMemAlloc(MiB)), 0))
    assert used() == 0
    ok(driver.cuMemFree(ok(driver.cuMemAllocAsync(MiB, 0))))
    assert used() == 0
    attach = driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL
    managed = ok(driver.cuMemAllocManaged(MiB, attach))
    assert status(driver.cuMemFreeAsync(managed, 0)) == NOT_SUPPORTED
    ok(driver.cuMemFree(managed))


@in_fresh_process()
def test_requests_that_make_no_sense() -> None:
    start()
    assert status(driver.cuMemAlloc(0)) == INVALID_VALUE
    assert int(ok(driver.cuMemAllocAsync(0, 0))) == 0
    assert status(driver.cuMemAlloc(2**50)) == 2
    assert status(driver.cuMemAllocAsync(2**50, 0)) == 2
    assert status(driver.cuMemAllocPitch(10, 0, 4)) == INVALID_VALUE
    assert status(driver.cuMemAllocPitch(10, 10, 3)) == INVALID_VALUE
    assert ok(driver.cuMemAllocPitch(513, 10, 4))[1] == 1024
    assert status(driver.cuStreamDestroy(0)) == 400


@in_fresh_process()
def test_copies_out_of_range_are_refused() -> None:
    start()
    host = ctypes.create_string_buffer(8192)
    pointer = int(ok(driver.cuMemAlloc(64)))
    address = ctypes.addressof(host)
    ok(driver.cuMemcpyDtoH(address, pointer, 64))
    assert status(driver.cuMemcpyDtoH(address, pointer, 65)) == INVALID_VALUE
    assert status(driver.cuMemcpyHtoD(pointer + 1, address, 64)) == INVALID_VALUE
    assert status(driver.cuMemsetD8(pointer, 1, 65)) == INVALID_VALUE
    assert status(driver.cuMemcpyDtoH(address, 0x1234, 8)) == INVALID_VALUE
    ok(driver.cuMemFree(pointer))
    assert status(driver.cuMemcpyDtoH(address, pointer, 8)) == INVALID_VALUE


@in_fresh_process()
def test_kernels_load_but_do_not_launch() -> None:
    start()
    library = ok(driver.cuLibraryLoadData(b"any", [], [], 0, [], [], 0))
    kernel = ok(driver.cuLibraryGetKernel(library, b"saxpy"))
    function = ok(driver.cuKernelGetFunction(kernel))
    assert ok(driver.cuFuncGetName(function)) == b"saxpy"
    launch = driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    assert status(launch) == NOT_SUPPORTED


@in_fresh_process()
def test_what_an_address_belongs_to() -> None:
    start()
    pointer = int(ok(driver.cuMemAlloc(5 * MiB + 1)))
    base, size = ok(driver.cuMemGetAddressRange(pointer + 100))
    assert (int(base), size) == (pointer, 5 * MiB + 1)
    assert status(driver.cuMemGetAddressRange(pointer + size)) == NOT_FOUND
    a = driver.CUpointer_attribute
    assert ok(driver.cuPointerGetAttribute(a.CU_POINTER_ATTRIBUTE_RANGE_SIZE, pointer + 9)) == size
    assert status(driver.cuPointerGetAttribute(a.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 0x1234)) == INVALID_VALUE
