"""Physical bytes: pages, slabs, capacity; the figures were measured on a real GPU."""

from __future__ import annotations

import ctypes

import pytest
from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, GiB, MiB, ok, raw, start, status, used
from tests.simulator.fresh_process import in_fresh_process


@in_fresh_process()
def test_small_requests_share_pages_and_large_ones_round_up() -> None:
    start()
    for size, count, expected in [
        (1, 20, 2 * MiB),
        (MiB, 20, 20 * MiB),
        (1536 * 1024, 4, 8 * MiB),
        (2 * MiB - 1, 1, 2 * MiB),
        (2 * MiB, 20, 40 * MiB),
        (2 * MiB + 1, 20, 80 * MiB),
    ]:
        pointers = [ok(driver.cuMemAlloc(size)) for _ in range(count)]
        assert used() == expected, size
        for pointer in pointers:
            ok(driver.cuMemFree(pointer))
        assert used() == 0, size


@in_fresh_process()
def test_out_of_memory_comes_exactly_at_capacity() -> None:
    start(memory="1GiB")
    free, total = ok(driver.cuMemGetInfo())
    assert (free, total) == (GiB - CONTEXT, GiB)
    assert status(driver.cuMemAlloc(free + 1)) == 2
    pointer = ok(driver.cuMemAlloc(free))
    assert ok(driver.cuMemGetInfo())[0] == 0
    assert status(driver.cuMemAlloc(1)) == 2
    ok(driver.cuMemFree(pointer))
    assert ok(driver.cuMemGetInfo())[0] == free


@in_fresh_process()
def test_modules_arrays_and_mipmaps_take_memory() -> None:
    start()
    module = ok(driver.cuModuleLoadData(b"any image"))
    assert used() == 4 * MiB
    ok(driver.cuModuleUnload(module))

    shape = driver.CUDA_ARRAY3D_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels = 1024, 1024, 1
    shape.Format = driver.CUarray_format.CU_AD_FORMAT_FLOAT
    array = ok(driver.cuArray3DCreate(shape))
    assert used() == 4 * MiB
    ok(driver.cuArrayDestroy(array))
    mipmap = ok(driver.cuMipmappedArrayCreate(shape, 5))
    assert used() == 6 * MiB
    level = ok(driver.cuMipmappedArrayGetLevel(mipmap, 1))
    assert ok(driver.cuArray3DGetDescriptor(level)).Width == 512
    assert status(driver.cuArrayDestroy(level)) == 400
    ok(driver.cuMipmappedArrayDestroy(mipmap))
    assert used() == 0


@in_fresh_process()
def test_host_memory_takes_nothing_of_the_device_and_managed_only_where_prefetched() -> None:
    start()
    pinned = ok(driver.cuMemAllocHost(10 * MiB))
    attach = driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL
    managed = ok(driver.cuMemAllocManaged(20 * MiB, attach))
    assert used() == 0
    on_device_0 = (ctypes.c_uint64(int(managed)), ctypes.c_size_t(20 * MiB), 0, None)
    assert raw().cuMemPrefetchAsync(*on_device_0) == 0
    assert used() == 20 * MiB
    ok(driver.cuMemFree(managed))
    ok(driver.cuMemFreeHost(pinned))
    assert used() == 0


@pytest.mark.parametrize("devices", [0, 9])
def test_one_to_eight_devices(devices: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 8"):
        simulator.activate(devices=devices)


@in_fresh_process()
def test_devices_are_apart() -> None:
    start(devices=3, memory="1GiB")
    assert ok(driver.cuDeviceGetCount()) == 3
    assert ok(driver.cuDeviceGetName(16, 2)).rstrip(b"\0 ") == b"Simulated GPU 2"
    assert status(driver.cuDeviceGet(3)) == 101
    ok(driver.cuMemAlloc(8 * MiB))
    assert [simulator.used_bytes(d) for d in range(3)] == [CONTEXT + 8 * MiB, 0, 0]
    assert len({ok(driver.cuDeviceGetUuid(d)).bytes for d in range(3)}) == 3
