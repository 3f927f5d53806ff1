"""Short forms for tests of the driver through cuda.bindings."""

from __future__ import annotations

import ctypes
from typing import Any

from cuda.bindings import driver

from gpumem_magic import simulator

KiB, MiB, GiB = 2**10, 2**20, 2**30

# What a context costs before anything is allocated in it.
CONTEXT = 64 * MiB


def start(**options: Any) -> Any:
    """Activate the simulator, make device 0's primary context current, return it."""
    simulator.activate(**options)
    ok(driver.cuInit(0))
    context = ok(driver.cuDevicePrimaryCtxRetain(0))
    ok(driver.cuCtxSetCurrent(context))
    return context


def ok(result: tuple[Any, ...]) -> Any:
    """Check the status; return the value, or the values if there are several."""
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else tuple(values)


def status(result: tuple[Any, ...]) -> int:
    """The status alone, as a number."""
    return int(result[0])


def used(device: int = 0) -> int:
    """Bytes in use on the device beyond one context."""
    return simulator.used_bytes(device) - CONTEXT


def raw() -> ctypes.CDLL:
    """The driver library itself, for what cuda.bindings would not let through."""
    return ctypes.CDLL("libcuda.so.1")


def new_context() -> Any:
    """Make a context current; cuda.bindings 12 and 13 ask for different arguments."""
    context = ctypes.c_void_p()
    assert raw().cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
    return driver.CUcontext(context.value)


def device_prop(handle_types: int = 0) -> Any:
    """Properties of pinned memory on device 0."""
    prop = driver.CUmemAllocationProp()
    prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    prop.location.id = 0
    prop.requestedHandleTypes = driver.CUmemAllocationHandleType(handle_types)
    return prop
