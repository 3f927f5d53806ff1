"""What frameworks tell of their memory, as far as it can be seen without a GPU."""

from __future__ import annotations

import copy
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import pathlib


from gpumem_magic.capture.frameworks import array_interface, imported
from gpumem_magic.capture.frameworks import cupy as cupy_memory
from gpumem_magic.capture.frameworks import jax as jax_memory
from gpumem_magic.capture.frameworks import rmm as rmm_memory
from gpumem_magic.capture.frameworks import torch as torch_memory
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import UNKNOWN_SIZE, BlockState, FrameworkMemory, SegmentFlag
from tests.gpu_process import run_script

MIB = 1 << 20

# As torch.cuda.memory_snapshot() of 2.11 returns them, less the fields that concern history.
SNAPSHOT: list[dict[str, Any]] = [
    {
        "device": 0,
        "address": 0x7F0000400000,
        "total_size": 20 * MIB,
        "allocated_size": 12 * MIB,
        "active_size": 16 * MIB,
        "requested_size": 12 * MIB - 100,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "blocks": [
            {
                "address": 0x7F0000400000,
                "size": 12 * MIB,
                "requested_size": 12 * MIB - 100,
                "state": "active_allocated",
            },
            {"address": 0x7F0001000000, "size": 4 * MIB, "requested_size": 4 * MIB, "state": "active_pending_free"},
            {"address": 0x7F0001400000, "size": 4 * MIB, "requested_size": 7, "state": "inactive"},
        ],
    },
    {
        "device": 0,
        "address": 0x7F0000000000,
        "total_size": 2 * MIB,
        "allocated_size": 512,
        "active_size": 512,
        "requested_size": 4,
        "stream": 0x55,
        "segment_type": "small",
        "segment_pool_id": (0, 3),
        "is_expandable": True,
        "blocks": [
            {"address": 0x7F0000000000, "size": 512, "requested_size": 4, "state": "active_allocated"},
            {"address": 0x7F0000000200, "size": 2 * MIB - 512, "requested_size": 0, "state": "inactive"},
        ],
    },
    {
        "device": 1,
        "address": 0x7F1000000000,
        "total_size": 2 * MIB,
        "stream": 0,
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "blocks": [
            {"address": 0x7F1000000000, "size": 2 * MIB, "requested_size": 2 * MIB, "state": "active_allocated"}
        ],
    },
]


def torch_of(snapshot: list[dict[str, Any]]) -> FrameworkMemory:
    pools, segments, blocks = torch_memory.read_segments(snapshot)
    memory = FrameworkMemory(name="torch", version="2.11", pools=pools, segments=segments, blocks=blocks)
    memory.self_check()
    return memory


def test_a_torch_snapshot() -> None:
    memory = torch_of(SNAPSHOT)
    assert [(pool.name, pool.device, pool.empty_with) for pool in memory.pools] == [
        ("default", 0, "torch.cuda.empty_cache()"),
        ("private pool (0, 3), stream 0x55", 0, ""),
        ("default", 1, "torch.cuda.empty_cache()"),
    ]
    assert memory.segments.tolist() == [
        (0x7F0000000000, 2 * MIB, 1, SegmentFlag.PRIVATE | SegmentFlag.EXPANDABLE),
        (0x7F0000400000, 20 * MIB, 0, 0),
        (0x7F1000000000, 2 * MIB, 2, 0),
    ]
    assert memory.blocks.tolist() == [
        (0x7F0000000000, 512, 4, 0, BlockState.LIVE),
        (0x7F0000000200, 2 * MIB - 512, UNKNOWN_SIZE, 0, BlockState.CACHED),
        (0x7F0000400000, 12 * MIB, 12 * MIB - 100, 1, BlockState.LIVE),
        (0x7F0001000000, 4 * MIB, 4 * MIB, 1, BlockState.PENDING),
        (0x7F0001400000, 4 * MIB, UNKNOWN_SIZE, 1, BlockState.CACHED),
        (0x7F1000000000, 2 * MIB, 2 * MIB, 2, BlockState.LIVE),
    ]


def test_a_torch_snapshot_of_an_older_release() -> None:
    older = copy.deepcopy(SNAPSHOT)
    for segment in older:
        for absent in ("is_expandable", "segment_pool_id", "stream"):
            del segment[absent]
        for block in segment["blocks"]:
            del block["address"], block["requested_size"]
    memory = torch_of(older)
    assert memory.blocks["address"].tolist() == torch_of(SNAPSHOT).blocks["address"].tolist()
    assert set(memory.blocks["asked"].tolist()) == {UNKNOWN_SIZE}


def test_an_empty_torch_snapshot() -> None:
    memory = torch_of([])
    assert (memory.pools, len(memory.segments), len(memory.blocks)) == ((), 0, 0)


def test_a_private_pool_keeps_its_segments() -> None:
    assert list(torch_memory.kept_by_pool(SNAPSHOT, (0, 3))) == [(0x7F0000000000, "private pool (0, 3)")]
    assert list(torch_memory.kept_by_pool(SNAPSHOT, (1, 0))) == []


def test_pinned_memory_of_torch_is_told_in_totals() -> None:
    (pool,) = torch_memory.pinned_pool({"allocated_bytes.current": 4 * MIB, "active_bytes.current": MIB})
    assert (pool.device, pool.kind, pool.reserved_bytes, pool.used_bytes) == (NO_DEVICE, "pinned", 4 * MIB, MIB)
    assert torch_memory.pinned_pool({}) == ()


# ---- CuPy's chunks ----


class Memory(NamedTuple):
    """As cupy.cuda.Memory: one allocation of the driver."""

    ptr: int
    size: int


class Chunk:
    """As CuPy's: a part of an allocation, which knows its neighbours."""

    def __init__(self, mem: Memory, offset: int, size: int, after: Chunk | None = None) -> None:
        self.mem, self.offset, self.size = mem, offset, size
        self.prev, self.next = after, None
        if after is not None:
            after.next = self


def test_chunks_of_cupy_know_their_neighbours() -> None:
    split, whole = Memory(0x1000000, 4096), Memory(0x2000000, 512)
    first = Chunk(split, 0, 1024)
    second = Chunk(split, 1024, 2048, first)
    third = Chunk(split, 3072, 1024, second)
    alone = Chunk(whole, 0, 512)
    expected = {
        (0x1000000, 4096): [
            (0x1000000, 1024, BlockState.CACHED),
            (0x1000400, 2048, BlockState.LIVE),
            (0x1000C00, 1024, BlockState.CACHED),
        ],
        (0x2000000, 512): [(0x2000000, 512, BlockState.CACHED)],
    }
    assert cupy_memory.pieces_of([third, alone, first], BlockState.CACHED) == expected
    in_use = {whole: pieces for whole, pieces in expected.items() if whole[1] == 4096}
    assert cupy_memory.pieces_of([second], BlockState.LIVE) == in_use
    assert cupy_memory.pieces_of([], BlockState.LIVE) == {}


@pytest.fixture
def cupy() -> Any:
    """CuPy, which can be imported without a GPU, and even make arrays in memory that is not its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has much to say of where it runs
        return pytest.importorskip("cupy")


def test_arrays_of_cupy(cupy: Any) -> None:
    memory = cupy.cuda.UnownedMemory(0x7F0000000000, 4096, object(), 1)
    pointer = cupy.cuda.MemoryPointer(memory, 512)

    class Mine(cupy.ndarray):  # type: ignore[misc]
        pass

    arrays = [cupy.ndarray((16,), dtype="u1", memptr=pointer) for _ in range(2)]
    mine = arrays[0].view(Mine)
    Mine.data = property(lambda _: pytest.fail("code of the program ran"))
    objects = [3, *arrays, mine, pointer, memory, cupy.ndarray]
    found = cupy_memory.Cupy().holdings(objects)
    assert [tuple(each) for each in found] == [(index, 0x7F0000000000, 4096, 1) for index in range(1, 6)]


def test_chunks_that_cupy_split(cupy: Any) -> None:
    memory = cupy.cuda.UnownedMemory(0x7F0000000000, 4096, object(), 0)
    chunk = cupy.cuda.memory._Chunk(memory, 0, 4096, None)
    rest = chunk.split(1024)
    assert cupy_memory.pieces_of([rest], BlockState.CACHED) == {
        (0x7F0000000000, 4096): [
            (0x7F0000000000, 1024, BlockState.LIVE),
            (0x7F0000000400, 3072, BlockState.CACHED),
        ],
    }


def test_pinned_memory_of_cupy(cupy: Any) -> None:
    class Pinned(cupy.cuda.PinnedMemory):  # type: ignore[misc]
        def __init__(self, size: int) -> None:
            self.size, self.ptr = size, 0x10000 * size

        def __del__(self) -> None:
            pass  # it is not the driver's

    pool = cupy.cuda.PinnedMemoryPool(lambda size: cupy.cuda.PinnedMemoryPointer(Pinned(size), 0))
    kept = pool.malloc(3000)
    pool.malloc(9000)  # given back at once
    assert cupy_memory.pinned_pieces(Pinned, pool) == {
        (0x10000000, 4096): [(0x10000000, 4096, BlockState.LIVE)],
        (0x40000000, 16384): [(0x40000000, 16384, BlockState.CACHED)],
    }
    assert [tuple(each) for each in cupy_memory.Cupy().holdings([kept.mem])] == [(0, 0x10000000, 4096, NO_DEVICE)]


def test_cupy_without_a_gpu_tells_nothing(cupy: Any) -> None:
    memory = cupy_memory.Cupy().memory()
    assert (memory.problem, memory.pools, memory.version) == ("", (), cupy.__version__)


# ---- objects of torch's CPU build ----


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def on_cpu() -> torch_memory.Torch:
    return torch_memory.Torch(device_type="cpu")


def found(on_cpu: torch_memory.Torch, *objects: object) -> list[tuple[int, int, int]]:
    return [(each.index, each.address, each.size) for each in on_cpu.holdings(objects)]


def labels(on_cpu: torch_memory.Torch, *objects: object) -> dict[tuple[int, int], str]:
    return {(each.index, each.address): each.label for each in on_cpu.hidden_references(objects)}


def test_tensors_are_found_with_their_memory(torch: Any, on_cpu: torch_memory.Torch) -> None:
    tensor = torch.empty(10, 4, dtype=torch.float32)
    parameter = torch.nn.Parameter(torch.empty(3))
    view = tensor[2:4]
    assert found(on_cpu, "text", tensor, None, parameter, view) == [
        (1, tensor.data_ptr(), 160),
        (3, parameter.data_ptr(), 12),
        (4, tensor.data_ptr(), 64),
    ]
    assert found(on_cpu, tensor.untyped_storage()) == [(0, tensor.data_ptr(), 160)]


def test_tensors_elsewhere_are_left_alone(torch: Any, on_cpu: torch_memory.Torch) -> None:
    assert found(on_cpu, torch.empty(5, device="meta"), torch.empty(0), torch.Tensor, torch) == []
    assert torch_memory.Torch().holdings([torch.empty(5)]) == []


def test_a_view_with_gaps_reaches_to_its_last_element(torch: Any, on_cpu: torch_memory.Torch) -> None:
    tensor = torch.empty(10, 10, dtype=torch.uint8)
    assert found(on_cpu, tensor[:, 3]) == [(0, tensor.data_ptr(), 94)]
    assert found(on_cpu, tensor[:0]) == [(0, tensor.data_ptr(), 0)]


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_keep_their_parts(torch: Any, on_cpu: torch_memory.Torch) -> None:
    sparse = torch.eye(4).to_sparse()
    rows = torch.eye(4).to_sparse_csr()
    sizes = [(index, size) for index, _, size in found(on_cpu, sparse, rows)]
    assert sizes == [(0, 64), (0, 16), (1, 40), (1, 64), (1, 16)]


def test_no_storage_object_is_left_behind(torch: Any, on_cpu: torch_memory.Torch) -> None:
    tensors = [torch.empty(4) for _ in range(50)]
    before = sum(type(each) is torch.UntypedStorage for each in gc.get_objects())
    assert len(on_cpu.holdings(tensors)) == 50
    assert sum(type(each) is torch.UntypedStorage for each in gc.get_objects()) == before


def test_wrappers_of_other_tensors_are_not_asked(torch: Any, on_cpu: torch_memory.Torch) -> None:
    class Wrapper(torch.Tensor):  # type: ignore[misc]
        __torch_dispatch__ = None
        __tensor_flatten__ = None

    wrapper = torch.Tensor._make_wrapper_subclass(Wrapper, (4,), device="cpu")
    before = sum(type(each) is torch.UntypedStorage for each in gc.get_objects())
    assert found(on_cpu, wrapper) == []
    assert sum(type(each) is torch.UntypedStorage for each in gc.get_objects()) == before


@pytest.mark.filterwarnings("error")
def test_fake_tensors_are_no_memory(torch: Any, on_cpu: torch_memory.Torch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    with FakeTensorMode():
        fake = torch.empty(4)
    assert found(on_cpu, fake) == []
    assert labels(on_cpu, fake) == {}


def test_no_code_of_a_subclass_runs(torch: Any, on_cpu: torch_memory.Torch) -> None:
    calls = []

    class Meta(type(torch.Tensor)):  # type: ignore[misc]
        def __getattribute__(cls, name: str) -> Any:
            calls.append(name)
            return super().__getattribute__(name)

        __hash__ = None

    class Loud(torch.Tensor, metaclass=Meta):  # type: ignore[misc]
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

        @property
        def device(self) -> Any:
            calls.append("device")
            raise RuntimeError("not for you")

    class Dispatching(torch.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(function)
            return function(*args, **(kwargs or {}))

    class Wrapper(Dispatching):
        def __tensor_flatten__(self) -> Any:
            calls.append("flatten")

    plain = torch.empty(4)
    loud = plain.as_subclass(Loud)
    dispatching = torch.Tensor._make_subclass(Dispatching, plain)
    wrapper = torch.Tensor._make_wrapper_subclass(Wrapper, (4,), dispatch_device=True, device="cpu")
    calls.clear()
    assert found(on_cpu, loud, dispatching, wrapper) == [(0, plain.data_ptr(), 16), (1, plain.data_ptr(), 16)]
    assert on_cpu.hidden_references([loud, wrapper]) == []
    assert calls == []


def test_saved_tensors_are_hidden_references(torch: Any, on_cpu: torch_memory.Torch) -> None:
    left = torch.randn(4, 4, requires_grad=True)
    right = torch.randn(4, 4)
    product = left @ right
    hidden = product.relu()
    loss = hidden.square().sum()
    assert labels(on_cpu, "text", loss) == {
        (1, hidden.data_ptr()): "grad_fn PowBackward0: saved self",
        (1, right.data_ptr()): "grad_fn MmBackward0: saved mat2",
        (1, left.data_ptr()): "grad_fn AccumulateGrad: variable",
    }
    assert labels(on_cpu, loss.grad_fn) == {(0, at): label for (_, at), label in labels(on_cpu, "text", loss).items()}
    assert set(labels(on_cpu, product)) == {(0, right.data_ptr()), (0, left.data_ptr())}
    loss.backward()
    assert labels(on_cpu, loss) == {(0, left.data_ptr()): "grad_fn AccumulateGrad: variable"}
    assert labels(on_cpu, left) == {(0, left.grad.data_ptr()): "grad"}


def test_every_tensor_that_leads_to_memory_is_told(torch: Any, on_cpu: torch_memory.Torch) -> None:
    weight = torch.randn(4, requires_grad=True)
    saved = torch.randn(4)
    first = weight * saved
    second, third = first.exp(), first + 1
    indexes = {index for index, address in labels(on_cpu, first, second, third) if address == saved.data_ptr()}
    assert indexes == {0, 1, 2}


def test_functions_in_python_keep_what_they_saved(torch: Any, on_cpu: torch_memory.Torch) -> None:
    class Twice(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            ctx.save_for_backward(value * 3, None)
            ctx.scratch = value * 5
            return value * 2

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * 2

    result = Twice.apply(torch.ones(4, requires_grad=True))
    told = set(labels(on_cpu, result + 1).values())
    assert told >= {"grad_fn TwiceBackward: saved tensors[0]", "grad_fn TwiceBackward: scratch"}
    result.sum().backward()
    assert "grad_fn TwiceBackward: saved tensors[0]" not in labels(on_cpu, result).values()


def test_tensors_saved_in_lists(torch: Any, on_cpu: torch_memory.Torch) -> None:
    places = torch.tensor([0, 2])
    part = torch.ones(4, requires_grad=True)[places]
    assert labels(on_cpu, part)[0, places.data_ptr()] == "grad_fn IndexBackward0: saved indices[0]"
    part.sum().backward()
    assert (0, places.data_ptr()) not in labels(on_cpu, part)


def test_hooks_that_unpack_do_not_run(torch: Any, on_cpu: torch_memory.Torch) -> None:
    packed = []
    unpacked = []

    def pack(tensor: Any) -> Any:
        packed.append(tensor.clone())
        return ("on disk", packed[-1])

    with torch.autograd.graph.saved_tensors_hooks(pack, unpacked.append):
        result = torch.ones(4, requires_grad=True).exp()
    assert labels(on_cpu, result)[0, packed[0].data_ptr()] == "grad_fn ExpBackward0: saved result"
    assert unpacked == []


def test_a_deep_graph_is_walked(torch: Any, on_cpu: torch_memory.Torch) -> None:
    result = weight = torch.ones(2, requires_grad=True)
    for _ in range(5000):
        result = result.exp()
    assert len(on_cpu.hidden_references([result])) == 5001
    assert weight.data_ptr() in {each.address for each in on_cpu.hidden_references([result])}


def test_nothing_of_the_answer_holds_the_tensors(torch: Any, on_cpu: torch_memory.Torch) -> None:
    weight = torch.ones(2, requires_grad=True)
    result = weight.exp()
    before = [len(gc.get_referrers(each)) for each in (weight, result)]
    answers = on_cpu.holdings([weight, result]), on_cpu.hidden_references([weight, result])
    assert all(answers)
    assert [len(gc.get_referrers(each)) for each in (weight, result)] == before


def test_torch_without_a_gpu_tells_nothing(torch: Any) -> None:
    memory = torch_memory.Torch().memory()
    assert (memory.name, memory.version, memory.problem) == ("torch", torch.__version__, "")
    assert (memory.pools, memory.segments.size, memory.blocks.size) == ((), 0, 0)
    assert not torch.cuda.is_initialized()


# ---- JAX ----

# As Device.memory_stats() of 0.11 returns them.
JAX_STATS = {
    "num_allocs": 3,
    "bytes_in_use": 64 * MIB,
    "peak_bytes_in_use": 64 * MIB,
    "largest_alloc_size": 64 * MIB,
    "bytes_limit": 1024 * MIB,
    "bytes_reserved": 0,
    "largest_free_block_bytes": 48 * MIB,
    "pool_bytes": 128 * MIB,
}


def test_totals_of_jax() -> None:
    pool = jax_memory.pool_of(1, JAX_STATS)
    assert pool is not None
    assert (pool.device, pool.reserved_bytes, pool.used_bytes) == (1, 128 * MIB, 64 * MIB)
    assert pool.largest_free_bytes == 48 * MIB
    assert jax_memory.pool_of(0, None) is None
    assert jax_memory.pool_of(0, {**JAX_STATS, "pool_bytes": 0, "bytes_in_use": 0}) is None


def test_arrays_of_jax() -> None:
    jax = pytest.importorskip("jax")
    array = jax.numpy.ones(1000, dtype="float32")
    array.block_until_ready()
    gone = jax.numpy.ones(10)
    gone.delete()
    found = jax_memory.Jax(platform="cpu").holdings(["x", gone, array])
    assert [(each.index, each.address, each.size) for each in found] == [(2, array.unsafe_buffer_pointer(), 4000)]
    assert jax_memory.Jax().holdings([array]) == []
    memory = jax_memory.Jax().memory()
    assert (memory.problem, memory.pools, memory.version) == ("", (), jax.__version__)


# ---- RMM ----


class PoolMemoryResource:
    """As RMM's."""

    def __init__(self, upstream: object) -> None:
        self.upstream_mr = upstream

    def pool_size(self) -> int:
        return 64 * MIB


class TrackingResourceAdaptor(PoolMemoryResource):
    """As RMM's."""

    pool_size = None  # type: ignore[assignment]

    def get_allocated_bytes(self) -> int:
        return MIB


class ManagedMemoryResource:
    """As RMM's."""


def test_resources_of_rmm() -> None:
    managed = ManagedMemoryResource()
    pool = PoolMemoryResource(managed)
    told = rmm_memory.pool_of(0, [pool, managed])
    assert told is not None
    assert (told.name, told.kind, told.reserved_bytes, told.used_bytes) == (
        "PoolMemoryResource",
        "managed",
        64 * MIB,
        None,
    )
    assert rmm_memory.pool_of(0, [managed]) is None


# ---- numba, cuda.core and raw addresses, which run on the simulator ----


def test_numba_and_cuda_core(recordings_home: pathlib.Path) -> None:
    pytest.importorskip("numba_cuda")
    pytest.importorskip("cuda.core")
    facts = run_script(NUMBA, recordings_home)
    assert facts["frameworks"] == ["numba", "cuda.core", "cuda.bindings", "array interface"]
    array, buffer = facts["array"], facts["buffer"]
    assert facts["found"] == [
        ["numba", 0, array, MIB, 0],
        ["numba", 1, array, MIB, 0],
        ["numba", 2, array, MIB, 0],
        ["numba", 3, facts["managed"], 4096, 0],
        ["numba", 4, facts["mapped"], 4096, 255],
        ["cuda.core", 7, buffer, 2 * MIB, 0],
        ["cuda.bindings", 5, array, 0, 0],
        ["cuda.bindings", 6, facts["on_host"], 0, 255],
    ]
    assert facts["pools"] == [["device", 0], ["managed", 0], ["pinned", 255]]
    assert facts["emptied"] == [[4096, 0], [4096, 0], [MIB, 0]]
    assert facts["blocks"] == [[4096, 0], [4096, 0], [MIB, 0], [2 * MIB, 2]]
    assert facts["problem"] == ""


NUMBA = """
    use_gpu_or_simulate()
    gpumem.start()
    import numpy
    from numba import cuda as numba_cuda
    from gpumem_magic.capture.frameworks import imported
    array = numba_cuda.device_array(1 << 20, dtype=numpy.uint8)
    managed = numba_cuda.managed_array(4096, dtype=numpy.uint8)
    mapped = numba_cuda.mapped_array(4096, dtype=numpy.uint8)
    passing = numba_cuda.device_array(1 << 21, dtype=numpy.uint8)
    del passing
    context = numba_cuda.current_context()
    context.memory_manager.deallocations.add_item(print, "a module, of no known size")
    from cuda.core import Device
    device = Device(0)
    device.set_current()
    buffer = device.memory_resource.allocate(1 << 21, stream=device.default_stream)
    address = array.device_ctypes_pointer.value
    on_host = int(check(cuda.cuMemHostAlloc(4096, 0)))
    pointers = [cuda.CUdeviceptr(address), cuda.CUdeviceptr(on_host)]
    objects = [array, array[5:9], array.gpu_data, managed, mapped, *pointers, buffer,
               *context.memory_manager.allocations.values()]
    found = [[each.name, *holding] for each, holding in imported.holdings_of(objects)]
    def numba_memory():
        return next(each.memory() for each in imported.FRAMEWORKS if each.name == "numba")
    def blocks_of(memory):
        return sorted([int(row["bytes"]), int(row["state"])] for row in memory.blocks)
    memory = numba_memory()
    import numba
    eval(memory.pools[0].empty_with)  # what people are told to run
    names = [each.name for each in imported.imported_frameworks()]
    answer(on_host=on_host, frameworks=names, found=found, array=address,
           managed=managed.device_ctypes_pointer.value, mapped=mapped.device_ctypes_pointer.value,
           buffer=int(buffer.handle), pools=sorted([pool.kind, pool.device] for pool in memory.pools),
           blocks=blocks_of(memory), problem=memory.problem, emptied=blocks_of(numba_memory()))
"""


# ---- any other library ----


@pytest.mark.parametrize(
    ("interface", "extent"),
    [
        ({"data": (4096, False), "shape": (10, 4), "typestr": "<f4"}, (4096, 160)),
        ({"data": (4096, False), "shape": (10, 4), "typestr": "<f4", "strides": (32, 4)}, (4096, 304)),
        ({"data": (4096, True), "shape": (10,), "typestr": "|u1", "strides": (-2,)}, (4078, 19)),
        ({"data": (0, False), "shape": (0, 3), "typestr": "<f8", "strides": None}, (0, 0)),
        ({"data": (64, False), "shape": (), "typestr": "<f8"}, (64, 8)),
    ],
)
def test_extent_of_an_array(interface: dict[str, Any], extent: tuple[int, int]) -> None:
    assert array_interface.extent_of(interface) == extent


class OfTheUser:
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AssertionError("code of the user ran")


def test_the_interface_of_the_users_own_classes_is_left_alone() -> None:
    assert array_interface.ArrayInterface().holdings([OfTheUser()]) == []
    assert array_interface.is_installed("pytest")
    assert array_interface.is_installed("builtins")
    assert not array_interface.is_installed("tests.gpu_process")
    assert not array_interface.is_installed("__main__")


def test_an_installed_library_is_asked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
class Array:
    @property
    def __cuda_array_interface__(self):
        return {"data": (self.address, False), "shape": (8,), "typestr": "|u1"}
"""
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "installed_arrays.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    import installed_arrays  # type: ignore[import-not-found]  # noqa: PLC0415

    class Mine(installed_arrays.Array):  # type: ignore[misc]
        pass

    interface = array_interface.ArrayInterface()
    assert [interface.may_hold(kind) for kind in (installed_arrays.Array, Mine, OfTheUser)] == [True, True, False]


# ---- all of them ----


def test_nothing_is_imported_for_the_user() -> None:
    imported.imported_frameworks()
    for framework in imported.FRAMEWORKS:
        assert framework.holdings([1, "text", object()]) == []
        assert framework.hidden_references([1, "text", object()]) == []


def test_a_framework_that_throws_costs_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        __version__ = "99.0"

    monkeypatch.setitem(sys.modules, "cupy", Broken)
    memory = cupy_memory.Cupy().memory()
    assert memory.problem.startswith("The memory of cupy 99.0 could not be read (AttributeError: ")
    assert memory.pools == ()
    assert not cupy_memory.Cupy().may_hold(list)
    assert cupy_memory.Cupy().holdings([[]]) == []


def test_one_pass_finds_what_each_framework_finds(torch: Any, on_cpu: torch_memory.Torch) -> None:
    tensor = torch.empty(4)
    assert imported.imported_frameworks()[0].name == "torch"
    assert list(imported.holdings_of([tensor, 3])) == []  # it is not on a GPU
    assert on_cpu.may_hold(type(tensor))
