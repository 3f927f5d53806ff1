"""Two GPUs: every byte on the device it really is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cuda.bindings import driver as cuda

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _two_gpus() -> None:
    status, count = cuda.cuDeviceGetCount() if int(cuda.cuInit(0)[0]) == 0 else (0, 0)
    if int(status) != 0 or count < 2:
        pytest.skip(f"needs two GPUs, and this machine has {count}")


def test_bytes_per_device_agree_with_the_driver(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(1); first = used()
        use_device(0); zeroth = used()
        gpumem.start()
        with gpumem.track("both") as block:
            a = check(cuda.cuMemAlloc(64 << 20))
            use_device(1)
            b = check(cuda.cuMemAlloc(96 << 20))
            prop = cuda.CUmemPoolProps()
            prop.allocType = cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
            prop.location.type = cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
            prop.location.id = 0
            pool = check(cuda.cuMemPoolCreate(prop))  # memory of GPU 0, asked for with GPU 1 current
            use_device(0)
            c = check(cuda.cuMemAllocFromPoolAsync(32 << 20, pool, 0)); check(cuda.cuCtxSynchronize())
        grown = [used() - zeroth]
        use_device(1); grown.append(used() - first)
        live = gpumem.snapshot().live_bytes_by_device()
        answer(grown=grown, live=[live.get(0, 0), live.get(1, 0)],
               deltas=[block.per_device[0].delta_bytes, block.per_device[1].delta_bytes],
               names=[device.name for device in gpumem.status().devices])
    """)
    assert found["grown"] == found["live"] == found["deltas"] == [96 * MIB, 96 * MIB]
    assert len(found["names"]) == 2


def test_torch_on_the_second_gpu(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import torch
        torch.empty(1, device="cuda:1")
        gpumem.start()
        kept = torch.empty(64 << 20, dtype=torch.uint8, device="cuda:1")
        live = gpumem.snapshot().live_bytes_by_device()
        answer(live=[live.get(0, 0), live.get(1, 0)])
    """)
    assert found["live"] == [0, 64 * MIB]
