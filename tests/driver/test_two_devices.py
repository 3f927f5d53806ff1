"""Two GPUs: every byte on the device it really is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20


def test_bytes_per_device_agree_with_the_driver(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        check(cuda.cuInit(0))
        if check(cuda.cuDeviceGetCount()) < 2:
            print("ANSWER null"); sys.exit()
        prop = cuda.CUmemPoolProps()
        prop.allocType = cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        prop.location.id = 0
        gpumem.start()

        def allocate():
            use_device(0)
            made = [check(cuda.cuMemAlloc(64 << 20))]
            use_device(1)
            made.append(check(cuda.cuMemAlloc(96 << 20)))
            pool = check(cuda.cuMemPoolCreate(prop))  # memory of GPU 0, made with GPU 1 current
            use_device(0)
            pooled = check(cuda.cuMemAllocFromPoolAsync(32 << 20, pool, 0))
            check(cuda.cuCtxSynchronize())
            return made, pooled, pool

        made, pooled, pool = allocate()  # once before: the driver takes some memory of its own at first use
        for pointer in made: check(cuda.cuMemFree(pointer))
        check(cuda.cuMemFreeAsync(pooled, 0)); check(cuda.cuCtxSynchronize()); check(cuda.cuMemPoolDestroy(pool))
        use_device(1); first = used()
        use_device(0); zeroth = used()
        with gpumem.track("both") as block:
            allocate()
        grown = [used() - zeroth]
        use_device(1); grown.append(used() - first)
        live = gpumem.snapshot().live_bytes_by_device()
        answer(grown=grown, live=[live.get(0, 0), live.get(1, 0)],
               deltas=[block.per_device[0].delta_bytes, block.per_device[1].delta_bytes],
               names=[device.name for device in gpumem.status().devices])
    """)
    if found is None:
        pytest.skip("needs two GPUs, and this machine has one")
    assert found["grown"] == found["live"] == found["deltas"] == [96 * MIB, 96 * MIB]
    assert len(found["names"]) == 2
