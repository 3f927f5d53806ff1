"""NVML tells the same story as the driver, to the byte."""

from __future__ import annotations

import os

import pynvml
import pytest
from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, GiB, MiB, ok, start
from tests.simulator.fresh_process import in_fresh_process

RESERVED = 256 * MiB


@in_fresh_process()
def test_memory_agrees_with_the_driver() -> None:
    start(memory="1GiB")
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    ok(driver.cuMemAlloc(8 * MiB))
    free, total = ok(driver.cuMemGetInfo())
    first = pynvml.nvmlDeviceGetMemoryInfo(device)
    second = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)
    assert total == GiB
    assert (first.total, first.used, first.free) == (GiB + RESERVED, RESERVED + CONTEXT + 8 * MiB, free)
    assert (second.total, second.reserved, second.used, second.free) == (
        GiB + RESERVED, RESERVED, CONTEXT + 8 * MiB, free,
    )  # fmt: skip


@in_fresh_process()
def test_processes_are_this_one_and_the_scripted_ones() -> None:
    start(memory="1GiB")
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    simulator.set_other_process_bytes(0, pid=4242, bytes=100 * MiB)

    def processes() -> dict[int, int | None]:
        return {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}

    assert processes() == {os.getpid(): CONTEXT, 4242: 100 * MiB}
    memory = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)
    assert memory.used == CONTEXT + 100 * MiB
    assert memory.free == ok(driver.cuMemGetInfo())[0]
    simulator.hide_process_memory()
    assert processes() == {os.getpid(): None, 4242: None}
    ok(driver.cuDevicePrimaryCtxReset(0))
    assert list(processes()) == [4242]
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(device) == []


@in_fresh_process()
def test_devices_are_the_drivers_devices() -> None:
    start(devices=2)
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 2
    device = pynvml.nvmlDeviceGetHandleByIndex(1)
    assert pynvml.nvmlDeviceGetName(device) == "Simulated GPU 1"
    uuid = pynvml.nvmlDeviceGetUUID(device)
    assert uuid.replace("-", "") == "GPU" + ok(driver.cuDeviceGetUuid(1)).bytes.hex()
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == 1
    bus = ok(driver.cuDeviceGetPCIBusId(16, 1)).split(b"\0")[0]
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(bus.decode())) == 1
    assert pynvml.nvmlDeviceGetPciInfo(device).busId.endswith(bus.decode()[4:])
    assert pynvml.nvmlDeviceGetUtilizationRates(device).gpu == 0
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 13000
    with pytest.raises(pynvml.NVMLError, match="Invalid Argument"):
        pynvml.nvmlDeviceGetHandleByIndex(2)


@in_fresh_process()
def test_init_comes_first() -> None:
    start()
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError, match="Uninitialized"):
        pynvml.nvmlDeviceGetCount()
