"""Copies and memsets move real bytes."""

from __future__ import annotations

import ctypes
import resource
from typing import Any

import numpy as np
from cuda.bindings import driver

from tests.simulator.driver import GiB, MiB, ok, start, status
from tests.simulator.fresh_process import in_fresh_process

TYPE = driver.CUmemorytype


def device_copy_of(data: np.ndarray[Any, Any]) -> int:
    pointer = int(ok(driver.cuMemAlloc(data.nbytes)))
    ok(driver.cuMemcpyHtoD(pointer, data.ctypes.data, data.nbytes))
    return pointer


def host_copy_of(pointer: int, size: int) -> bytes:
    data = ctypes.create_string_buffer(size)
    ok(driver.cuMemcpyDtoH(ctypes.addressof(data), pointer, size))
    return data.raw


@in_fresh_process()
def test_there_and_back_by_way_of_other_devices_and_streams() -> None:
    context = start(devices=2)
    data = np.random.default_rng(0).integers(0, 255, 5 * MiB, dtype=np.uint8)
    first = device_copy_of(data)
    other = ok(driver.cuDevicePrimaryCtxRetain(1))
    ok(driver.cuCtxPushCurrent(other))
    second = int(ok(driver.cuMemAlloc(data.nbytes)))
    ok(driver.cuCtxPopCurrent())
    ok(driver.cuMemcpyPeer(second, other, first, context, data.nbytes))
    stream = ok(driver.cuStreamCreate(0))
    third = int(ok(driver.cuMemAllocAsync(data.nbytes, stream)))
    ok(driver.cuMemcpyDtoDAsync(third, second, data.nbytes, stream))
    assert host_copy_of(third, data.nbytes) == data.tobytes()


@in_fresh_process()
def test_unified_copies_take_host_memory_on_either_side() -> None:
    start()
    source, target = ctypes.create_string_buffer(b"unified"), ctypes.create_string_buffer(8)
    pointer = int(ok(driver.cuMemAlloc(8)))
    ok(driver.cuMemcpy(pointer, ctypes.addressof(source), 8))
    ok(driver.cuMemcpyAsync(ctypes.addressof(target), pointer, 8, 0))
    assert target.value == b"unified"


@in_fresh_process()
def test_memsets_of_every_width_and_of_rows() -> None:
    start()
    pointer, pitch = ok(driver.cuMemAllocPitch(4, 3, 4))
    base = int(pointer)
    ok(driver.cuMemsetD8(base, 0, 3 * pitch))
    ok(driver.cuMemsetD2D8(base, pitch, 0x41, 2, 3))
    ok(driver.cuMemsetD16(base + 4, 0x4342, 2))
    ok(driver.cuMemsetD32(base + 8, 0x47464544, 1))
    assert host_copy_of(base, 12) == b"AA\0\0BCBCDEFG"
    assert host_copy_of(base + pitch, 4) == b"AA\0\0"
    assert status(driver.cuMemsetD32(base + 1, 0, 1)) == 1


@in_fresh_process()
def test_a_box_of_rows_goes_through_an_array() -> None:
    start()
    shape = driver.CUDA_ARRAY_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels = 8, 4, 1
    shape.Format = driver.CUarray_format.CU_AD_FORMAT_UNSIGNED_INT8
    array = ok(driver.cuArrayCreate(shape))
    source = np.arange(32, dtype=np.uint8).reshape(4, 8)
    target = np.zeros((2, 3), dtype=np.uint8)

    there = driver.CUDA_MEMCPY2D()
    there.srcMemoryType, there.srcHost, there.srcPitch = TYPE.CU_MEMORYTYPE_HOST, source.ctypes.data, 8
    there.dstMemoryType, there.dstArray = TYPE.CU_MEMORYTYPE_ARRAY, array
    there.WidthInBytes, there.Height = 8, 4
    ok(driver.cuMemcpy2D(there))

    back = driver.CUDA_MEMCPY2D()
    back.srcMemoryType, back.srcArray, back.srcXInBytes, back.srcY = TYPE.CU_MEMORYTYPE_ARRAY, array, 2, 1
    back.dstMemoryType, back.dstHost, back.dstPitch = TYPE.CU_MEMORYTYPE_HOST, target.ctypes.data, 3
    back.WidthInBytes, back.Height = 3, 2
    ok(driver.cuMemcpy2D(back))
    assert target.tolist() == source[1:3, 2:5].tolist()
    back.srcY = 3
    assert status(driver.cuMemcpy2D(back)) == 1


@in_fresh_process()
def test_memory_that_is_never_touched_costs_the_host_nothing() -> None:
    start(memory="80GiB")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pointer = int(ok(driver.cuMemAlloc(64 * GiB)))
    ok(driver.cuMemsetD8(pointer + 32 * GiB, 7, 1))
    assert host_copy_of(pointer + 32 * GiB, 1) == b"\x07"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 16 * 1024
