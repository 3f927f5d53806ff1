"""PyTorch: segments and blocks of its caching allocator, tensors, and what the autograd graph keeps."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from gpumem_magic.capture.frameworks import autograd, reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.capture.frameworks.reading import Block, Segment
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import UNKNOWN_SIZE, BlockState, FrameworkMemory, Pool, SegmentFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np

_STATES = {
    "active_allocated": BlockState.LIVE,
    "active_pending_free": BlockState.PENDING,
    "active_awaiting_free": BlockState.PENDING,  # the documentation's word for it
    "inactive": BlockState.CACHED,
}
_DEFAULT_POOL = (0, 0)
_NO_SNAPSHOT = {
    "cudaMallocAsync": "",  # every tensor is an allocation of the driver: there is nothing to tell in addition
    "pluggable": "PyTorch uses an allocator of another library, which does not tell its blocks.",
}
# Where a sparse tensor keeps its memory, by layout. These methods copy nothing.
_PARTS = {
    "torch.sparse_coo": ("_indices", "_values"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}


class Torch:
    """PyTorch, as the user has imported it. ``device_type`` is "cuda" but for tests of what needs no GPU."""

    name = "torch"

    def __init__(self, device_type: str = "cuda") -> None:
        self._device_type = device_type

    def is_imported(self) -> bool:
        return reading.module("torch") is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        torch = reading.module("torch")
        return torch is not None and issubclass(kind, (torch.Tensor, torch.UntypedStorage))

    def memory(self) -> FrameworkMemory:
        torch = reading.module("torch")
        version = reading.version_of(torch)
        return reading.told(self.name, version, lambda: _memory(torch, version))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        torch = reading.module("torch")
        found: list[Holding] = []
        if torch is None:
            return found
        with _without_user_code(torch):
            ranges = Ranges(torch, self._device_type)
            for index, each in reading.of_types(objects, self.may_hold):
                found += (Holding(index, *part) for part in ranges.of(each))
        return found

    @reading.answering(list)
    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:
        torch = reading.module("torch")
        if torch is None:
            return []
        with _without_user_code(torch):
            ranges = Ranges(torch, self._device_type)
            starts = reading.of_types(objects, lambda kind: ranges.is_tensor(kind) or autograd.is_node(torch, kind))
            return [*autograd.references(torch, starts, ranges.of), *_private_pools(torch, objects)]

    def give_back(self) -> str:
        cuda = reading.module("torch").cuda
        return reading.problem_of(self.name, cuda.empty_cache) if cuda.is_initialized() else ""


@contextlib.contextmanager
def _without_user_code(torch: Any) -> Iterator[None]:
    """Neither ``__torch_function__`` nor ``__torch_dispatch__`` of subclasses and modes runs in here."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():  # noqa: SLF001
        yield


# ---- pools ----


def _memory(torch: Any, version: str) -> FrameworkMemory:
    if not torch.cuda.is_initialized():
        return FrameworkMemory(name="torch", version=version)
    backend = torch.cuda.get_allocator_backend()
    if backend in _NO_SNAPSHOT:
        return FrameworkMemory(
            name="torch", version=version, pools=pinned_pool(_host_totals(torch)), problem=_NO_SNAPSHOT[backend]
        )
    pools, segments, blocks = read_segments(segments_of(torch))
    return FrameworkMemory(
        name="torch",
        version=version,
        pools=pools + pinned_pool(_host_totals(torch)),
        segments=segments,
        blocks=blocks,
        problem=autograd.problem(torch),
    )


def segments_of(torch: Any) -> list[dict[str, Any]]:
    """The allocator's state without its history, which may be long. Releases before 2.11 cannot leave it out."""
    segments: list[dict[str, Any]]
    try:
        # As an argument this pool means: all of them. The public function of some releases asks for the history.
        segments = torch._C._cuda_memorySnapshot((*_DEFAULT_POOL, False))["segments"]  # noqa: SLF001
    except (RuntimeError, TypeError):
        segments = torch.cuda.memory_snapshot()
    return segments


def read_segments(
    snapshot: Iterable[Mapping[str, Any]],
) -> tuple[tuple[Pool, ...], np.ndarray, np.ndarray]:
    """Pools, segments and blocks from the ``segments`` of a snapshot in PyTorch's documented form.

    A pool is told apart by device, id and stream, because what is cached for one stream serves no other.
    """
    pools: dict[tuple[int, tuple[int, int], int], Pool] = {}
    places: dict[tuple[int, tuple[int, int], int], int] = {}
    segments: list[Segment] = []
    blocks: list[Block] = []
    for each in snapshot:
        pool_id = tuple(each.get("segment_pool_id", _DEFAULT_POOL))
        key = (each["device"], pool_id, each.get("stream", 0))
        if key not in pools:
            places[key] = len(pools)
            pools[key] = _pool(*key)
        flags = SegmentFlag.EXPANDABLE if each.get("is_expandable") else 0
        flags |= SegmentFlag.PRIVATE if pool_id != _DEFAULT_POOL else 0
        blocks += _blocks(each, len(segments))
        segments.append(Segment(each["address"], each["total_size"], places[key], flags))
    return tuple(pools.values()), *reading.in_order(segments, blocks)


def _pool(device: int, pool_id: tuple[int, int], stream: int) -> Pool:
    private = pool_id != _DEFAULT_POOL
    name = f"private pool ({pool_id[0]}, {pool_id[1]})" if private else "default"
    return Pool(
        name=f"{name}, stream {stream:#x}" if stream else name,
        device=device,
        kind="device",
        # A private pool keeps its cache for as long as its graph or its MemPool lives.
        empty_with="" if private else "torch.cuda.empty_cache()",
    )


def _blocks(segment: Mapping[str, Any], index: int) -> Iterator[Block]:
    address = segment["address"]
    for each in segment["blocks"]:  # they cover the segment without a hole
        state = _STATES[each["state"]]
        asked = each.get("requested_size") or UNKNOWN_SIZE
        yield Block(address, each["size"], UNKNOWN_SIZE if state is BlockState.CACHED else asked, index, state)
        address += each["size"]


def _host_totals(torch: Any) -> Mapping[str, Any]:
    """Totals of pinned host memory; empty before PyTorch 2.6, which does not tell them."""
    stats = getattr(torch.cuda, "host_memory_stats", None)
    found: Mapping[str, Any] = stats() if stats is not None else {}
    return found


def pinned_pool(totals: Mapping[str, Any]) -> tuple[Pool, ...]:
    """The pool of pinned host memory from ``host_memory_stats()``, which tells no addresses; none when it is empty."""
    reserved = int(totals.get("allocated_bytes.current", 0))
    if not reserved:
        return ()
    used = totals.get("active_bytes.current")
    return (
        Pool(
            name="pinned",
            device=NO_DEVICE,
            kind="pinned",
            empty_with="torch._C._host_emptyCache()",
            reserved_bytes=reserved,
            used_bytes=None if used is None else int(used),
        ),
    )


@reading.answering(list)
def _private_pools(torch: Any, objects: Sequence[object]) -> list[HiddenReference]:
    """Memory that captured graphs and the user's own pools keep, whether tensors are in it or not."""
    kinds = tuple(vars(torch._C)[name] for name in ("_CUDAGraph", "_MemPool") if name in vars(torch._C))  # noqa: SLF001
    keepers = list(reading.of_types(objects, lambda kind: issubclass(kind, kinds)))
    found: list[HiddenReference] = []
    if not keepers or not torch.cuda.is_initialized() or torch.cuda.get_allocator_backend() in _NO_SNAPSHOT:
        return found
    snapshot = segments_of(torch)
    for index, each in keepers:
        try:
            pool_id = _pool_id(torch, each)
        except RuntimeError:  # a graph that captured nothing yet
            continue
        found += (HiddenReference(index, *kept) for kept in kept_by_pool(snapshot, pool_id))
    return found


def _pool_id(torch: Any, keeper: Any) -> tuple[int, int]:
    """Asked of PyTorch's own class, because a user's subclass may have a method of this name."""
    core = torch._C  # noqa: SLF001
    is_graph = issubclass(type(keeper), core._CUDAGraph)  # noqa: SLF001
    found: tuple[int, int] = core._CUDAGraph.pool(keeper) if is_graph else core._MemPool.id.__get__(keeper)  # noqa: SLF001
    return found


def kept_by_pool(snapshot: Iterable[Mapping[str, Any]], pool_id: Sequence[int]) -> Iterator[tuple[int, str]]:
    """(address, label) of the segments of one private pool."""
    title = f"private pool ({pool_id[0]}, {pool_id[1]})"
    same = (each for each in snapshot if tuple(each.get("segment_pool_id", _DEFAULT_POOL)) == tuple(pool_id))
    yield from ((each["address"], title) for each in same)


# ---- objects ----


class Range(NamedTuple):
    """Device memory that an object keeps."""

    address: int
    bytes: int
    device: int


class Ranges:
    """Tells the memory of tensors and storages. Lives for one call.

    No storage object is made where a tensor has none yet: PyTorch would keep it for as long as the memory lives. So
    the size of a range is how far the tensor reaches into its storage, from the storage's first byte.
    """

    def __init__(self, torch: Any, device_type: str) -> None:
        self._torch = torch
        self._tensor = torch.Tensor.__mro__[1]  # the C++ class: its methods are not those of a user's subclass
        self._device_type = device_type
        self._start = getattr(torch._C, "_data_address", self._first_byte)  # noqa: SLF001  (reading copies nothing)
        self._ordinary: dict[int, bool] = {}

    def is_tensor(self, kind: type) -> bool:
        return issubclass(kind, self._torch.Tensor)

    def of(self, each: Any) -> list[Range]:
        """Of a tensor or a storage; empty for memory that is not of this kind of device, and for fake tensors."""
        try:
            kind = type(each)
            if self.is_tensor(kind):
                return self._of_tensor(each) if self._is_ordinary(kind) else self._of_unusual(each)
            return self._of_storage(each) if issubclass(kind, self._torch.UntypedStorage) else []
        except Exception:  # noqa: BLE001  (a tensor without storage: which kinds these are differs from release to release)
            return []

    def _of_tensor(self, tensor: Any) -> list[Range]:
        base = self._tensor
        device = base.device.__get__(tensor)
        if device.type != self._device_type:
            return []
        layout = str(base.layout.__get__(tensor))
        if layout in _PARTS:
            parts = (getattr(base, name)(tensor) for name in _PARTS[layout])
            return [found for part in parts for found in self._of_tensor(part)]
        address = self._start(tensor)
        return [Range(address, self._reach(tensor), device.index or 0)] if address else []

    def _first_byte(self, tensor: Any) -> int:
        """Address of a tensor's storage, where PyTorch does not tell it without making an object for the storage."""
        base = self._tensor
        return int(base.data_ptr(tensor) - base.storage_offset(tensor) * base.element_size(tensor))

    def _reach(self, tensor: Any) -> int:
        """Bytes from the first of a tensor's storage to the end of the tensor's last element."""
        base = self._tensor
        shape = base.shape.__get__(tensor)
        elements = base.storage_offset(tensor)
        if math.prod(shape):
            steps = zip(shape, base.stride(tensor), strict=True)
            elements += 1 + sum((length - 1) * stride for length, stride in steps)
        return int(elements * base.element_size(tensor))

    def _of_unusual(self, tensor: Any) -> list[Range]:
        """Of a tensor whose class answers for itself: only its storage can be asked without running that code."""
        if self._wraps(type(tensor)):
            return []
        return self._of_storage(self._tensor.untyped_storage(tensor))

    def _of_storage(self, storage: Any) -> list[Range]:
        base = self._torch._C.StorageBase  # noqa: SLF001
        device = base.device.__get__(storage)
        size = base.nbytes(storage)
        address = base.data_ptr(storage) if device.type == self._device_type and size else 0
        return [Range(address, size, device.index or 0)] if address else []

    def _is_ordinary(self, kind: type) -> bool:
        """Whether attributes such as the device are read without calling ``__torch_dispatch__`` of its class."""
        known = self._ordinary.get(id(kind))
        if known is None:
            known = not any("__torch_dispatch__" in reading.namespace(base) for base in self._own_classes(kind))
            self._ordinary[id(kind)] = known
        return known

    def _wraps(self, kind: type) -> bool:
        """Whether it has no memory but that of other tensors, which it holds as attributes."""
        return any("__tensor_flatten__" in reading.namespace(base) for base in self._own_classes(kind))

    def _own_classes(self, kind: type) -> list[type]:
        ours = {id(base) for base in reading.mro(self._torch.Tensor)}
        return [base for base in reading.mro(kind) if id(base) not in ours]
