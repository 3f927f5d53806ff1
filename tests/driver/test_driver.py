"""Calls of cuda.bindings: the ledger against cuMemGetInfo, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20


def test_plain_memory_agrees_to_the_byte(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        before, tracked = used(), live()
        pointers = [check(cuda.cuMemAlloc(64 << 20)) for _ in range(5)]
        grown, seen = used() - before, live() - tracked
        with gpumem.track("peak") as block:
            extra = check(cuda.cuMemAlloc(256 << 20)); check(cuda.cuMemFree(extra))
        for pointer in pointers: check(cuda.cuMemFree(pointer))
        answer(grown=grown, seen=seen, peak=block.peak_bytes, left=live() - tracked, unused=used() - before,
               status=gpumem.status().state)
    """)
    assert found["status"] == "on"
    assert found["grown"] == found["seen"] == 320 * MIB
    assert found["peak"] == 576 * MIB
    assert found["left"] == found["unused"] == 0


def test_small_allocations_share_slabs(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        before = used()
        for _ in range(20): check(cuda.cuMemAlloc(1 << 20))
        answer(grown=used() - before, seen=live())
    """)
    assert found == {"grown": 20 * MIB, "seen": 20 * MIB}


KINDS = {
    "managed": ("check(cuda.cuMemAllocManaged(8 << 20, 1))", "cuda.cuMemFree(made)", 8 * MIB, "MANAGED"),
    "pinned": ("check(cuda.cuMemHostAlloc(8 << 20, 0))", "cuda.cuMemFreeHost(made)", 8 * MIB, "HOST"),
    "async": ("check(cuda.cuMemAllocAsync(8 << 20, 0))", "cuda.cuMemFreeAsync(made, 0)", 8 * MIB, "DEVICE"),
    "pitched": ("check(cuda.cuMemAllocPitch(1000, 512, 4))[0]", "cuda.cuMemFree(made)", 512 * 1024, "DEVICE"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_seen_from_birth_to_death(on_gpu: OnGpu, kind: str) -> None:
    make, free, size, layer = KINDS[kind]
    found = on_gpu(f"""
        use_device(); gpumem.start()
        made = {make}
        row = gpumem.snapshot().allocations[0]
        alive = sum(gpumem.snapshot().live_bytes_by_device(Layer.{layer}).values())
        check({free})
        answer(alive=alive, left=len(gpumem.snapshot().allocations), size=int(row["size"]))
    """)
    assert found == {"alive": size, "left": 0, "size": size}


def test_array_has_its_size(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        description = cuda.CUDA_ARRAY_DESCRIPTOR()
        description.Width, description.Height, description.NumChannels = 1024, 512, 4
        description.Format = cuda.CUarray_format.CU_AD_FORMAT_FLOAT
        array = check(cuda.cuArrayCreate(description))
        alive = live()
        check(cuda.cuArrayDestroy(array))
        answer(alive=alive, left=live())
    """)
    assert found == {"alive": 1024 * 512 * 4 * 4, "left": 0}


def test_virtual_memory_counts_once_and_lives_while_mapped(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        prop = cuda.CUmemAllocationProp()
        prop.type = cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        prop.location.id = 0
        before = used()
        size = 32 << 20
        handle = check(cuda.cuMemCreate(size, prop, 0))
        range_ = check(cuda.cuMemAddressReserve(2 * size, 0, 0, 0))
        check(cuda.cuMemMap(range_, size, 0, handle, 0))
        check(cuda.cuMemMap(int(range_) + size, size, 0, handle, 0))
        check(cuda.cuMemRelease(handle))
        mapped = [used() - before, live()]
        check(cuda.cuMemUnmap(range_, size))
        half = [used() - before, live()]
        check(cuda.cuMemUnmap(int(range_) + size, size))
        answer(mapped=mapped, half=half, end=[used() - before, live()])
    """)
    assert found == {"mapped": [32 * MIB] * 2, "half": [32 * MIB] * 2, "end": [0, 0]}


def test_destroyed_pool_keeps_what_is_live(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        prop = cuda.CUmemPoolProps()
        prop.allocType = cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        prop.location.id = 0
        pool = check(cuda.cuMemPoolCreate(prop))
        before = used()
        made = check(cuda.cuMemAllocFromPoolAsync(64 << 20, pool, 0))
        check(cuda.cuMemPoolDestroy(pool))
        check(cuda.cuCtxSynchronize())
        destroyed = [used() - before, live()]
        check(cuda.cuMemFreeAsync(made, 0)); check(cuda.cuCtxSynchronize())
        answer(destroyed=destroyed, end=[used() - before, live()])
    """)
    assert found == {"destroyed": [64 * MIB] * 2, "end": [0, 0]}


def test_context_takes_its_memory_along(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        device = use_device(); gpumem.start()
        before = used()
        try:
            own = check(cuda.cuCtxCreate(None, 0, device))
        except TypeError:
            own = check(cuda.cuCtxCreate(0, device))
        check(cuda.cuMemAlloc(64 << 20)); check(cuda.cuMemHostAlloc(4 << 20, 0))
        pooled = check(cuda.cuMemAllocAsync(32 << 20, 0)); check(cuda.cuCtxSynchronize())
        alive = live()
        check(cuda.cuCtxDestroy(own))
        use_device()
        after = [used() - before, live()]
        snapshot = gpumem.snapshot()
        answer(alive=alive, after=after, deaths=snapshot.counters["context_deaths"],
               kinds=[int(kind) for kind in snapshot.allocations["kind"]])
    """)
    assert found["alive"] == 96 * MIB
    assert found["deaths"] == 2
    assert found["after"] == [32 * MIB] * 2, found  # pooled memory belongs to the device's pool


def test_primary_context_reset(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        device = use_device(); gpumem.start()
        base = used()
        check(cuda.cuMemAlloc(64 << 20)); check(cuda.cuMemAllocAsync(32 << 20, 0)); check(cuda.cuCtxSynchronize())
        alive = [used() - base, live()]
        check(cuda.cuDevicePrimaryCtxReset(device))
        use_device()
        answer(alive=alive, after=[used() - base, live()],
               kinds=[int(kind) for kind in gpumem.snapshot().allocations["kind"]])
    """)
    assert found["alive"] == [96 * MIB] * 2
    assert found["after"] == [32 * MIB] * 2, found  # the pool outlives the reset
    assert found["kinds"] == [4]


def test_graph_memory_is_live_from_launch_to_free(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        stream = check(cuda.cuStreamCreate(1))
        check(cuda.cuStreamBeginCapture(stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
        kept = check(cuda.cuMemAllocAsync(16 << 20, stream))
        passing = check(cuda.cuMemAllocAsync(8 << 20, stream))
        check(cuda.cuMemFreeAsync(passing, stream))
        graph = check(cuda.cuStreamEndCapture(stream))
        captured = live()
        runnable = check(cuda.cuGraphInstantiate(graph, 0))
        check(cuda.cuGraphLaunch(runnable, stream)); check(cuda.cuStreamSynchronize(stream))
        launched = live()
        check(cuda.cuMemFreeAsync(kept, stream)); check(cuda.cuStreamSynchronize(stream))
        answer(captured=captured, launched=launched, freed=live())
    """)
    assert found == {"captured": 0, "launched": 16 * MIB, "freed": 0}


def test_failed_call_and_wrong_free_are_counted(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        status, _ = cuda.cuMemAlloc(1 << 45)
        wrong, = cuda.cuMemFree(0x1234)
        snapshot = gpumem.snapshot()
        answer(status=int(status), wrong=int(wrong), failures=snapshot.counters["failures"], live=live(snapshot))
    """)
    assert found["status"] == 2
    assert found["wrong"] != 0
    assert (found["failures"], found["live"]) == (2, 0)


def test_gap_is_reconciled_with_the_driver(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        use_device(); gpumem.start()
        from gpumem_magic import api
        stay, go = check(cuda.cuMemAlloc(8 << 20)), check(cuda.cuMemAlloc(16 << 20))
        pooled, host = check(cuda.cuMemAllocAsync(4 << 20, 0)), check(cuda.cuMemHostAlloc(1 << 20, 0))
        api.session().pause()
        check(cuda.cuMemFree(go))
        api.session().resume()
        snapshot = gpumem.snapshot()
        answer(live=live(snapshot), absent=snapshot.counters["absent"], count=len(snapshot.allocations))
    """)
    assert found == {"live": 12 * MIB, "absent": 1, "count": 3}
