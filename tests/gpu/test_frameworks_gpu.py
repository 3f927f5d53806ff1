"""Frameworks on a real GPU: what their pools take from the driver, with the line and the library that took it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20

TORCH = """
    import torch
    torch.empty(1, device="cuda")
    gpumem.start()
    before, tracked = used(), live()
    def make():
        return torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    with gpumem.track("block") as block:
        kept = make()
        for _ in range(3):
            passing = make()
        del passing
    report = block.report()
    torch.cuda.synchronize()
    answer(seen=live() - tracked, grown=used() - before, libraries=sorted({row.library for row in report.allocators}),
           functions=sorted({frame.function for row in report.allocators for frame in row.stack}))
"""


@pytest.mark.parametrize("settings", ["", "expandable_segments:True"])
def test_torch_pool(on_gpu: OnGpu, settings: str) -> None:
    found = on_gpu(TORCH, PYTORCH_CUDA_ALLOC_CONF=settings)
    assert found["seen"] == found["grown"] > 0
    assert any("c10_cuda" in library for library in found["libraries"]), found
    assert "make" in found["functions"]


def test_torch_async_backend_shows_every_tensor(on_gpu: OnGpu) -> None:
    found = on_gpu(TORCH, PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync")
    assert found["seen"] == 64 * MIB
    assert "make" in found["functions"]


def test_torch_out_of_memory_is_a_counted_failure(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import torch
        gpumem.start()
        try:
            torch.empty(1 << 42, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            failed = True
        answer(failed=failed, failures=gpumem.snapshot().counters["failures"])
    """)
    assert found["failed"]
    assert found["failures"] >= 1


def test_torch_backward_belongs_to_the_cell(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import torch
        gpumem.start()
        with gpumem.track("step") as block:
            weights = torch.randn(4096, 4096, device="cuda", requires_grad=True)
            (weights @ weights).relu().square().mean().backward()
        snapshot = gpumem.snapshot()
        cells = set(snapshot.sites["cell"].tolist()) - {0}
        answer(cells=len(cells), peak=block.peak_bytes,
               background=any(row.background for row in block.report().allocators))
    """)
    assert found["cells"] == 1
    assert found["peak"] >= 3 * 64 * MIB


def test_cupy_pool_and_library(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import cupy
        cupy.empty(1)
        cupy.get_default_memory_pool().free_all_blocks()
        gpumem.start()
        before, tracked = used(), live()
        with gpumem.track("block") as block:
            kept = cupy.empty(64 << 20, dtype=cupy.uint8)
        made = [used() - before, live() - tracked]
        del kept
        cupy.get_default_memory_pool().free_all_blocks()
        answer(made=made, end=[used() - before, live() - tracked],
               libraries=sorted({row.library for row in block.report().allocators}))
    """)
    assert found["made"] == [64 * MIB] * 2
    assert found["end"] == [0, 0]
    assert any("cupy" in library.lower() for library in found["libraries"]), found


def test_numba_arrays(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import numpy
        from numba import cuda as numba_cuda
        numba_cuda.device_array(1)
        gpumem.start()
        before, tracked = used(), live()
        kept = numba_cuda.device_array(32 << 20, dtype=numpy.uint8)
        made = [used() - before, live() - tracked]
        answer(made=made)
    """)
    assert found["made"] == [32 * MIB] * 2


def test_jax_pool(on_gpu: OnGpu) -> None:
    found = on_gpu(
        """
        gpumem.start()
        import jax, jax.numpy
        before = None
        with gpumem.track("first use") as block:
            kept = jax.numpy.ones((4096, 4096)); kept.block_until_ready()
        answer(live=live(), libraries=sorted({row.library for row in block.report().allocators}))
        """,
        XLA_PYTHON_CLIENT_PREALLOCATE="false",
    )
    assert found["live"] >= 64 * MIB
    assert any("jax" in library.lower() or "xla" in library.lower() for library in found["libraries"]), found


def test_torch_on_the_second_gpu(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import torch
        if torch.cuda.device_count() < 2:
            print("ANSWER null"); sys.exit()
        torch.empty(1, device="cuda:1")
        gpumem.start()
        kept = torch.empty(64 << 20, dtype=torch.uint8, device="cuda:1")
        live = gpumem.snapshot().live_bytes_by_device()
        answer(live=[live.get(0, 0), live.get(1, 0)])
    """)
    if found is None:
        pytest.skip("needs two GPUs, and this machine has one")
    assert found["live"] == [0, 64 * MIB]


def test_modules_are_noted(on_gpu: OnGpu) -> None:
    found = on_gpu("""
        import torch
        gpumem.start()
        a = torch.ones(256, 256, device="cuda"); (a @ a).sum().item()
        events = gpumem.snapshot().events.between(0, 2**63)
        loads = events[events["kind"] == Kind.MODULE_LOAD]
        answer(modules=len(loads), bytes=int(loads["size"].sum()))
    """)
    assert found["modules"] > 0
    assert found["bytes"] > 0
