"""cuda.core and numba-cuda run unchanged.

numba looks for a driver when it is imported, so the simulator is active before that.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import gc
import importlib.util

import numpy as np
import pytest

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, MiB
from tests.simulator.fresh_process import in_fresh_process

needs_cuda_core = pytest.mark.skipif(not importlib.util.find_spec("cuda.core"), reason="no cuda.core here")
needs_numba = pytest.mark.skipif(not importlib.util.find_spec("numba_cuda"), reason="no numba-cuda here")


@needs_cuda_core
@in_fresh_process()
def test_cuda_core_devices_streams_and_resources() -> None:
    simulator.activate()
    from cuda import core  # noqa: PLC0415 -- not before activate()

    device = core.Device()
    device.set_current()
    assert device.name == "Simulated GPU 0"
    assert tuple(device.compute_capability) == (9, 0)
    stream = device.create_stream()
    buffer = device.allocate(40 * MiB, stream=stream)
    assert simulator.used_bytes(0) == CONTEXT + 64 * MiB
    buffer.close(stream)
    stream.sync()

    options = core.DeviceMemoryResourceOptions(max_size=64 * MiB)
    pool = core.DeviceMemoryResource(device, options)
    before = simulator.used_bytes(0)
    block = pool.allocate(5 * MiB, stream=stream)
    assert simulator.used_bytes(0) == before + 32 * MiB
    assert pool.attributes.used_mem_current == 5 * MiB
    block.close(stream)
    stream.sync()

    before = simulator.used_bytes(0)
    virtual = core.VirtualMemoryResource(device).allocate(5 * MiB, stream=stream)
    assert simulator.used_bytes(0) == before + 6 * MiB
    assert virtual.size == 6 * MiB
    pinned = core.LegacyPinnedMemoryResource().allocate(100)
    assert pinned.is_host_accessible


@needs_numba
@in_fresh_process()
def test_numba_arrays_go_there_and_back() -> None:
    simulator.activate()
    from numba import cuda  # noqa: PLC0415 -- not before activate()

    data = np.arange(2**20, dtype=np.float32)
    on_device = cuda.to_device(data)
    assert simulator.used_bytes(0) == CONTEXT + 4 * MiB
    assert on_device.copy_to_host().tolist() == data.tolist()
    empty = cuda.device_array((10, 10))
    assert simulator.used_bytes(0) == CONTEXT + 6 * MiB
    del on_device, empty
    gc.collect()
    cuda.current_context().memory_manager.deallocations.clear()
    assert simulator.used_bytes(0) == CONTEXT


@needs_numba
@in_fresh_process()
def test_numba_host_and_managed_arrays_and_contexts() -> None:
    simulator.activate(devices=2)
    from numba import cuda  # noqa: PLC0415 -- not before activate()

    pinned, mapped, managed = cuda.pinned_array(10), cuda.mapped_array(10), cuda.managed_array(10)
    for array in (pinned, mapped, managed):
        array[:] = 3
        assert array.sum() == 30
    stream = cuda.stream()
    there = cuda.to_device(pinned, stream=stream)
    stream.synchronize()
    assert there.copy_to_host(stream=stream).sum() == 30
    with cuda.gpus[1]:
        free, total = cuda.current_context().get_memory_info()
        assert total - free == CONTEXT
    cuda.close()
    assert [simulator.used_bytes(device) for device in (0, 1)] == [0, 0]
