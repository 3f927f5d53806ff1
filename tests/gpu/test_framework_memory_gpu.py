"""What frameworks say of their memory on a real GPU, against what they were asked for and what the driver gave them.

Each script asks many questions. One that fails is answered by its error, so that the others are still seen.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20

HELPERS = """
import gc, time, traceback
from gpumem_magic.capture.frameworks import imported
from gpumem_magic.model.frameworks import BlockState, SegmentFlag, UNKNOWN_SIZE

MIB = 1 << 20
facts = {}

def note(name, ask):
    try:
        facts[name] = ask()
    except Exception as error:
        traceback.print_exc()
        facts[name] = f"failed: {error!r}"

def framework(name):
    return next(each for each in imported.FRAMEWORKS if each.name == name)

def taken():
    '''Merged ranges that the driver gave, as the tracker saw them.'''
    snapshot = gpumem.snapshot()
    rows = [(int(row["address"]), int(row["size"])) for row in snapshot.allocations if row["address"]]
    rows += [(int(row["address"]), int(row["size"])) for row in snapshot.mappings]
    merged = []
    for start, size in sorted(rows):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], start + size)
        else:
            merged.append([start, start + size])
    return merged

def outside(ranges):
    '''Those of (address, size) that do not lie in memory that the driver gave.'''
    known = taken()
    return [each for each in ranges if not any(low <= each[0] and sum(each) <= high for low, high in known)]

def segments(memory):
    return [(int(row["address"]), int(row["bytes"])) for row in memory.segments]

def sum_of(memory, state):
    return int(memory.blocks["bytes"][memory.blocks["state"] == state].sum())

def pools(memory):
    return [[pool.name, pool.device, pool.kind, pool.reserved_bytes, pool.used_bytes] for pool in memory.pools]

def found(name, *objects):
    return [[each.index, each.address, each.size, each.device] for each in framework(name).holdings(objects)]

def timed(ask):
    begin = time.perf_counter()
    ask()
    return round((time.perf_counter() - begin) * 1e3, 2)
"""


def facts_of(on_gpu: OnGpu, script: str, needs: str, **environment: str) -> dict[str, Any]:
    """What a script noted. Skips where ``needs`` is not installed."""
    guard = f"""
import importlib.util
if importlib.util.find_spec("{needs}") is None:
    print("ANSWER null"); sys.exit()
"""
    facts = on_gpu(guard + HELPERS + textwrap.dedent(script) + "\nanswer(**facts)\n", **environment)
    if facts is None:
        pytest.skip(f"{needs} is not installed")
    print(f"{needs}: {facts}")
    return facts


# ---- torch ----

TORCH = """
    import torch
    gpumem.start()
    torch_memory = framework("torch")
    note("before", lambda: [torch_memory.memory().problem, pools(torch_memory.memory()), torch.cuda.is_initialized()])
    kept = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    small = torch.empty(1000, dtype=torch.uint8, device="cuda")
    passing = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    del passing
    view = kept[MIB:2 * MIB]
    note("first_read_ms", lambda: timed(torch_memory.memory))
    note("next_read_ms", lambda: timed(torch_memory.memory))
    memory = torch_memory.memory()
    note("problem", lambda: memory.problem)
    note("pools", lambda: pools(memory))
    note("live", lambda: [sum_of(memory, BlockState.LIVE), torch.cuda.memory_allocated()])
    note("reserved", lambda: [int(memory.segments["bytes"].sum()), torch.cuda.memory_reserved()])
    note("cached", lambda: sum_of(memory, BlockState.CACHED))
    note("outside", lambda: [len(memory.segments), outside(segments(memory))])
    note("flags", lambda: sorted({int(flag) for flag in memory.segments["flags"]}))
    note("asked", lambda: sorted(int(each) for each in memory.blocks["asked"] if each != UNKNOWN_SIZE))
    note("blocks_at", lambda: [each.data_ptr() in set(memory.blocks["address"].tolist()) for each in (kept, small)])
    note("holdings", lambda: found("torch", kept, "x", view, small))
    note("expected", lambda: [[0, kept.data_ptr(), 64 * MIB, 0], [2, kept.data_ptr(), 2 * MIB, 0],
                              [3, small.data_ptr(), 1000, 0]])
    note("others", lambda: sorted({each.name for each, _ in imported.holdings_of([kept, view])}))
"""


@pytest.mark.parametrize("settings", ["", "expandable_segments:True"])
def test_torch_pool(on_gpu: OnGpu, settings: str) -> None:
    facts = facts_of(on_gpu, TORCH, "torch", PYTORCH_CUDA_ALLOC_CONF=settings)
    assert facts["before"] == ["", [], False]
    assert facts["problem"] == ""
    assert facts["live"][0] == facts["live"][1] > 64 * MIB
    assert facts["reserved"][0] == facts["reserved"][1]
    assert facts["cached"] == facts["reserved"][0] - facts["live"][0]
    assert facts["outside"][0] > 0
    assert facts["outside"][1] == []
    assert facts["flags"] == [1 if settings else 0]
    assert facts["asked"] == [1000, 64 * MIB]
    assert facts["blocks_at"] == [True, True]
    assert facts["holdings"] == facts["expected"]
    assert facts["others"] == ["torch"]
    assert facts["next_read_ms"] < 20
    assert facts["first_read_ms"] < 500


def test_torch_async_backend_has_no_pool_of_its_own(on_gpu: OnGpu) -> None:
    facts = facts_of(on_gpu, TORCH, "torch", PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync")
    assert facts["problem"] == ""
    assert facts["pools"] == []
    assert facts["holdings"] == facts["expected"]


def test_torch_streams_graphs_and_pinned_memory(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import torch
        gpumem.start()
        torch_memory = framework("torch")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            on_stream = torch.empty(4 * MIB, dtype=torch.uint8, device="cuda")
        fixed = torch.ones(8 * MIB, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = fixed + 1
        pinned = torch.empty(3 * MIB, dtype=torch.uint8, pin_memory=True)
        memory = torch_memory.memory()
        note("problem", lambda: memory.problem)
        note("pools", lambda: pools(memory))
        note("empty_with", lambda: {pool.name: pool.empty_with for pool in memory.pools})
        note("host", lambda: {key: value for key, value in torch.cuda.host_memory_stats().items() if "bytes" in key})
        private = memory.segments[(memory.segments["flags"] & SegmentFlag.PRIVATE) != 0]
        note("private", lambda: int(private["bytes"].sum()))
        hidden = framework("torch").hidden_references
        note("graph_keeps", lambda: sorted(each.address for each in hidden([graph])) == private["address"].tolist())
        note("empty_graph", lambda: hidden([torch.cuda.CUDAGraph(), torch.cuda.MemPool()]))
        note("live", lambda: [sum_of(memory, BlockState.LIVE), torch.cuda.memory_allocated()])
        note("outside", lambda: outside(segments(memory)))
        note("holdings", lambda: found("torch", on_stream, made)
             == [[0, on_stream.data_ptr(), 4 * MIB, 0], [1, made.data_ptr(), 8 * MIB, 0]])
        torch.cuda.memory._record_memory_history(max_entries=100000)
        for _ in range(20000):
            torch.empty(16, device="cuda")
        note("read_with_history_ms", lambda: timed(torch_memory.memory))
        note("read_with_history_again_ms", lambda: timed(torch_memory.memory))
        torch.cuda.memory._record_memory_history(None)
        """,
        "torch",
    )
    assert facts["problem"] == ""
    names = [pool[0] for pool in facts["pools"]]
    assert "default" in names
    assert any(name.startswith("default, stream 0x") for name in names), facts
    assert any(name.startswith("private pool (") for name in names), facts
    assert [pool[1:] for pool in facts["pools"] if pool[0] == "pinned"] == [[255, "pinned", 4 * MIB, 4 * MIB]], facts
    assert facts["private"] >= 8 * MIB
    assert facts["graph_keeps"] is True
    assert facts["empty_graph"] == []
    assert facts["live"][0] == facts["live"][1]
    assert facts["outside"] == []
    assert facts["holdings"] is True
    assert facts["read_with_history_again_ms"] < 50


def test_torch_autograd_graph(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import torch
        gpumem.start()
        weight = torch.randn(512, 512, device="cuda", requires_grad=True)
        data = torch.randn(512, 512, device="cuda")
        hidden = (data @ weight).relu()
        loss = hidden.square().sum()
        ask = lambda each: {ref.address: ref.label for ref in framework("torch").hidden_references([each])}
        addresses = {"data": data.data_ptr(), "hidden": hidden.data_ptr(), "weight": weight.data_ptr()}
        note("graph", lambda: {name: ask(loss).get(address, "") for name, address in addresses.items()})
        before = torch.cuda.memory_allocated()
        note("walk", lambda: [ask(loss) != {}, torch.cuda.memory_allocated() - before])
        loss.backward()
        note("after", lambda: [sorted(ask(loss).values()), ask(weight) == {weight.grad.data_ptr(): "grad"}])
        with torch.autograd.graph.save_on_cpu():
            offloaded = (data * weight).sum()
        before = torch.cuda.memory_allocated()
        note("offloaded", lambda: [sorted(ask(offloaded).values()), torch.cuda.memory_allocated() - before])
        """,
        "torch",
    )
    assert facts["graph"] == {
        "data": "grad_fn MmBackward0: saved self",
        "hidden": "grad_fn PowBackward0: saved self",
        "weight": "grad_fn AccumulateGrad: variable",
    }
    assert facts["walk"] == [True, 0]
    assert facts["after"] == [["grad_fn AccumulateGrad: variable"], True]
    assert facts["offloaded"] == [["grad_fn AccumulateGrad: variable"], 0]


# ---- CuPy ----


def test_cupy_pool(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import cupy
        gpumem.start()
        cupy_memory = framework("cupy")
        note("before", lambda: [cupy_memory.memory().problem, pools(cupy_memory.memory())])
        pool = cupy.get_default_memory_pool()
        kept = cupy.empty(64 * MIB, dtype=cupy.uint8)
        passing = cupy.empty(32 * MIB, dtype=cupy.uint8)
        del passing
        part = cupy.empty(8 * MIB, dtype=cupy.uint8)  # of the 32 MiB that are free again
        view = kept[1000:2000]
        class Mine(cupy.ndarray):
            pass
        mine = kept.view(Mine)
        Mine.data = property(lambda self: 1 / 0)
        pinned = cupy.cuda.alloc_pinned_memory(3 * MIB)
        cupy.cuda.alloc_pinned_memory(MIB)  # given back at once
        memory = cupy_memory.memory()
        note("version", lambda: memory.version)
        note("problem", lambda: memory.problem)
        note("pools", lambda: pools(memory))
        note("totals", lambda: [pool.total_bytes(), pool.used_bytes(), pool.free_bytes()])
        note("referents", lambda: [type(each).__name__ for each in gc.get_referents(pool)])
        single = next(iter(each for each in gc.get_referents(pool) if type(each) is tuple), [None])[0]
        note("single", lambda: [type(each).__name__ for each in gc.get_referents(single)])
        note("gc_tracked", lambda: [gc.is_tracked(each) for each in (kept, kept.data, kept.data.mem)])
        def blocks(kind):
            rows = memory.blocks.tolist()
            kinds = [memory.pools[memory.segments[home]["pool"]].kind for _, _, _, home, _ in rows]
            return sorted([size, state] for (_, size, _, _, state), its in zip(rows, kinds) if its == kind)
        note("blocks", lambda: blocks("device"))
        note("outside", lambda: outside(segments(memory)))
        note("kinds", lambda: [memory.pools[row["pool"]].kind for row in memory.segments])
        note("pinned", lambda: blocks("pinned"))
        note("holdings", lambda: found("cupy", kept, view, kept.data, kept.data.mem, mine, part, pinned.mem))
        note("expected", lambda: [[i, kept.data.ptr, 64 * MIB, 0] for i in range(5)]
             + [[5, part.data.ptr, 8 * MIB, 0], [6, pinned.ptr, 4 * MIB, 255]])
        note("others", lambda: sorted({each.name for each, _ in imported.holdings_of([kept, view])}))
        note("time_ms", lambda: timed(cupy_memory.memory))
        """,
        "cupy",
    )
    assert facts["before"] == ["", []]
    assert facts["problem"] == ""
    assert facts["totals"] == [96 * MIB, 72 * MIB, 24 * MIB]
    assert ["default", 0, "device", 96 * MIB, 72 * MIB] in facts["pools"]
    assert facts["blocks"] == [[8 * MIB, 0], [24 * MIB, 1]]  # the full 64 MiB show no part, but count in the totals
    assert facts["outside"] == []
    assert facts["pinned"] == [[MIB, 1], [4 * MIB, 0]]
    assert facts["holdings"] == facts["expected"]
    assert facts["others"] == ["cupy"]


def test_cupy_other_allocators(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import cupy
        gpumem.start()
        cupy_memory = framework("cupy")
        managed_pool = cupy.cuda.MemoryPool(cupy.cuda.malloc_managed)
        cupy.cuda.set_allocator(managed_pool.malloc)
        managed = cupy.empty(16 * MIB, dtype=cupy.uint8)
        note("managed", lambda: [pools(cupy_memory.memory()), cupy_memory.memory().problem])
        note("managed_holding", lambda: found("cupy", managed) == [[0, managed.data.ptr, 16 * MIB, 0]])
        async_pool = cupy.cuda.MemoryAsyncPool()
        cupy.cuda.set_allocator(async_pool.malloc)
        asynchronous = cupy.empty(16 * MIB, dtype=cupy.uint8)
        note("async", lambda: [pools(cupy_memory.memory()), cupy_memory.memory().problem])
        note("async_holding", lambda: found("cupy", asynchronous) == [[0, asynchronous.data.ptr, 16 * MIB, 0]])
        note("async_outside", lambda: outside([(asynchronous.data.ptr, 16 * MIB)]))
        cupy.cuda.set_allocator(None)
        plain = cupy.empty(16 * MIB, dtype=cupy.uint8)
        note("none", lambda: [pools(cupy_memory.memory()), cupy_memory.memory().problem])
        note("none_holding", lambda: found("cupy", plain) == [[0, plain.data.ptr, 16 * MIB, 0]])
        """,
        "cupy",
    )
    assert facts["managed"] == [[["current", 0, "managed", 16 * MIB, 16 * MIB]], ""]
    (pool,), problem = facts["async"]
    assert pool[:3] == ["current", 0, "device"]
    assert pool[3] >= pool[4] >= 16 * MIB
    assert problem == ""
    assert facts["none"] == [[], ""]
    assert facts["async_outside"] == []
    assert [facts[name] for name in ("managed_holding", "async_holding", "none_holding")] == [True] * 3


# ---- JAX ----


@pytest.mark.parametrize("preallocate", ["false", "true"])
def test_jax_pool(on_gpu: OnGpu, preallocate: str) -> None:
    facts = facts_of(
        on_gpu,
        """
        gpumem.start()
        import jax, jax.numpy
        jax_memory = framework("jax")
        note("before", lambda: [jax_memory.memory().problem, pools(jax_memory.memory())])
        kept = jax.numpy.ones((4096, 4096), dtype="float32")
        kept.block_until_ready()
        device = jax.devices()[0]
        note("version", lambda: jax.__version__)
        note("platform", lambda: [device.platform, device.client.platform, device.client.platform_version])
        note("stats", lambda: device.memory_stats())
        memory = jax_memory.memory()
        note("problem", lambda: memory.problem)
        note("pools", lambda: pools(memory))
        note("seen", lambda: live())
        note("holdings", lambda: found("jax", kept, "x"))
        note("expected", lambda: [[0, kept.unsafe_buffer_pointer(), 64 * MIB, 0]])
        note("outside", lambda: outside([(kept.unsafe_buffer_pointer(), 64 * MIB)]))
        note("live_arrays", lambda: len(jax.live_arrays()))
        note("live_arrays_after", lambda: [len(found("jax", *jax.live_arrays())), len(jax.live_arrays())])
        note("others", lambda: sorted({each.name for each, _ in imported.holdings_of([kept])}))
        work = jax.jit(lambda x: jax.lax.fori_loop(0, 2000, lambda _, y: y @ y * 1e-9, x))
        pending = work(kept)
        note("pending", lambda: [pending.is_ready(), timed(lambda: found("jax", pending))])
        pending.block_until_ready()
        note("done", lambda: len(found("jax", pending)))
        pending.delete()
        note("deleted", lambda: found("jax", pending))
        """,
        "jax",
        XLA_PYTHON_CLIENT_PREALLOCATE=preallocate,
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.1",
    )
    assert facts["before"] == ["", []]
    assert facts["problem"] == ""
    ((name, device, kind, reserved, used),) = facts["pools"]
    assert (name, device, kind) == ("default", 0, "device")
    assert reserved >= used >= 64 * MIB
    assert facts["seen"] >= reserved
    assert facts["holdings"] == facts["expected"]
    assert facts["outside"] == []
    assert facts["others"] == ["jax"]
    assert facts["pending"][1] < 100
    assert facts["done"] == 1
    assert facts["deleted"] == []


# ---- the rest ----


def test_numba(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import numpy
        from numba import cuda as numba_cuda
        gpumem.start()
        numba_memory = framework("numba")
        note("before", lambda: [numba_memory.memory().problem, pools(numba_memory.memory())])
        kept = numba_cuda.device_array(32 * MIB, dtype=numpy.uint8)
        part = kept[1000:2000]
        managed = numba_cuda.managed_array(4 * MIB, dtype=numpy.uint8)
        mapped = numba_cuda.mapped_array(4096, dtype=numpy.uint8)
        pinned = numba_cuda.pinned_array(4096, dtype=numpy.uint8)
        passing = numba_cuda.device_array(8 * MIB, dtype=numpy.uint8)
        del passing
        memory = numba_memory.memory()
        note("problem", lambda: memory.problem)
        note("pools", lambda: sorted(pool[:3] for pool in pools(memory)))
        note("live", lambda: sum_of(memory, BlockState.LIVE))
        note("pending", lambda: sum_of(memory, BlockState.PENDING))
        note("outside", lambda: outside(segments(memory)))
        address = kept.device_ctypes_pointer.value
        note("holdings", lambda: found("numba", kept, part, kept.gpu_data, managed))
        note("expected", lambda: [[0, address, 32 * MIB, 0], [1, address, 32 * MIB, 0], [2, address, 32 * MIB, 0],
                                  [3, managed.device_ctypes_pointer.value, 4 * MIB, 0]])
        note("on_host", lambda: [each[2:] for each in found("numba", mapped, pinned.base)])
        note("others", lambda: sorted({each.name for each, _ in imported.holdings_of([kept])}))
        numba = sys.modules["numba"]
        note("command", lambda: eval(memory.pools[0].empty_with))
        note("emptied", lambda: sum_of(numba_memory.memory(), BlockState.PENDING))
        """,
        "numba",
    )
    assert facts["before"] == ["", []]
    assert facts["problem"] == ""
    assert facts["pools"] == [
        ["allocations", 0, "device"],
        ["allocations", 0, "managed"],
        ["allocations", 255, "pinned"],
    ]
    assert facts["live"] == 36 * MIB + 4096
    assert facts["pending"] == 8 * MIB
    assert facts["emptied"] == 0
    assert facts["outside"] == []
    assert facts["holdings"] == facts["expected"]
    assert facts["on_host"] == [[4096, 255], [4096, 255]]
    assert facts["others"] == ["numba"]


def test_rmm(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import rmm
        gpumem.start()
        rmm_memory = framework("rmm")
        note("before", lambda: [rmm_memory.memory().problem, pools(rmm_memory.memory())])
        pool = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), 64 * MIB, 256 * MIB)
        rmm.mr.set_current_device_resource(rmm.mr.StatisticsResourceAdaptor(pool))
        kept = rmm.DeviceBuffer(size=16 * MIB)
        memory = rmm_memory.memory()
        note("problem", lambda: memory.problem)
        note("pools", lambda: pools(memory))
        note("holdings", lambda: found("rmm", kept) == [[0, kept.ptr, 16 * MIB, 0]])
        note("outside", lambda: outside([(kept.ptr, 16 * MIB)]))
        """,
        "rmm",
    )
    assert facts["before"] == ["", []]
    assert facts["problem"] == ""
    assert facts["pools"] == [["PoolMemoryResource", 0, "device", 64 * MIB, 16 * MIB]]
    assert facts["holdings"] is True
    assert facts["outside"] == []


def test_cuda_core_and_raw_addresses(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        gpumem.start()
        use_device()
        pointer = check(cuda.cuMemAlloc(4 * MIB))
        note("raw", lambda: found("cuda.bindings", pointer, int(pointer)) == [[0, int(pointer), 0, 0]])
        try:
            from cuda.core import Device
        except ImportError:
            from cuda.core.experimental import Device
        device = Device(0)
        device.set_current()
        buffer = device.memory_resource.allocate(4 * MIB, stream=device.default_stream)
        note("buffer", lambda: found("cuda.core", buffer) == [[0, int(buffer.handle), 4 * MIB, 0]])
        note("outside", lambda: outside([(int(pointer), 4 * MIB), (int(buffer.handle), 4 * MIB)]))
        """,
        "cuda.core",
    )
    assert facts == {"raw": True, "buffer": True, "outside": []}


def test_shared_memory_has_both_owners(on_gpu: OnGpu) -> None:
    facts = facts_of(
        on_gpu,
        """
        import cupy, torch
        gpumem.start()
        array = cupy.empty(16 * MIB, dtype=cupy.uint8)
        tensor = torch.from_dlpack(array)
        tensor_first = torch.empty(16 * MIB, dtype=torch.uint8, device="cuda")
        taken_over = cupy.asarray(tensor_first)
        rows = list(imported.holdings_of([array, tensor, tensor_first, taken_over]))
        note("addresses", lambda: [[each.name, holding.index, holding.size] for each, holding in rows])
        note("same", lambda: [len({holding.address for _, holding in rows if holding.index in pair})
                              for pair in ((0, 1), (2, 3))])
        """,
        "cupy",
    )
    assert facts["same"] == [1, 1]
    assert sorted(facts["addresses"]) == [
        ["cupy", 0, 16 * MIB],
        ["cupy", 3, 16 * MIB],
        ["torch", 1, 16 * MIB],
        ["torch", 2, 16 * MIB],
    ]
