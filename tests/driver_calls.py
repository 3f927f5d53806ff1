"""Calls of the driver as tests write them, as source: they run in scripts and cells of other processes."""

DRIVER_CALLS = """
def check(result):
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else values

def use_device(ordinal=0):
    check(cuda.cuInit(0))
    device = check(cuda.cuDeviceGet(ordinal))
    check(cuda.cuCtxSetCurrent(check(cuda.cuDevicePrimaryCtxRetain(device))))
    return device

def alloc(size):
    return check(cuda.cuMemAlloc(size))

def free(*pointers):
    for pointer in pointers:
        check(cuda.cuMemFree(pointer))
"""
"""Need the name ``cuda``: ``from cuda.bindings import driver as cuda``."""
