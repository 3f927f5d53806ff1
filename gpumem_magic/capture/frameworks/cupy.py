"""CuPy: its memory pools as far as they can be looked into, arrays, and the memory under them."""

from __future__ import annotations

import gc
import types
import weakref
from typing import TYPE_CHECKING, Any

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.capture.frameworks.reading import Block, Segment
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import UNKNOWN_SIZE, BlockState, FrameworkMemory, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Range = tuple[int, int]  # address, bytes
    Piece = tuple[int, int, BlockState]  # address, bytes, state

_OTHER = {BlockState.LIVE: BlockState.CACHED, BlockState.CACHED: BlockState.LIVE}
_CONTAINERS = (tuple, list, set, dict)


class Cupy:
    """CuPy, as the user has imported it."""

    name = "cupy"

    def is_imported(self) -> bool:
        return reading.module("cupy") is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        return issubclass(kind, _holders(reading.module("cupy")))

    def memory(self) -> FrameworkMemory:
        cupy = reading.module("cupy")
        version = reading.version_of(cupy)
        return reading.told(self.name, version, lambda: _memory(cupy, version))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        cupy = reading.module("cupy")
        found: list[Holding] = []
        for index, each in reading.of_types(objects, self.may_hold):
            held = _held(cupy, each)
            if held is not None:
                found.append(Holding(index, *held))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return reading.problem_of(self.name, lambda: _empty_pools(reading.module("cupy")))


# ---- pools ----


class _Tables:
    """Pools, segments and blocks while they are gathered."""

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        self.segments: list[Segment] = []
        self.blocks: list[Block] = []

    def add(self, pool: Pool, pieces: dict[Range, list[Piece]]) -> None:
        """A pool with what is known of its ranges and of the blocks in them."""
        for (address, size), blocks in pieces.items():
            self.blocks += (
                Block(start, length, UNKNOWN_SIZE, len(self.segments), state) for start, length, state in blocks
            )
            self.segments.append(Segment(address, size, len(self.pools)))
        self.pools.append(pool)


def _memory(cupy: Any, version: str) -> FrameworkMemory:
    tables = _Tables()
    for pool, name, call in _pools(cupy):
        for single in _instances(cupy.cuda.memory.SingleDeviceMemoryPool, gc.get_referents(pool)):
            if single.total_bytes():
                tables.add(_device_pool(cupy, single, name, call), _pieces(cupy, single))
        for asynchronous in _async_pools(cupy, pool, name, call):
            tables.add(asynchronous, {})
    _add_pinned(cupy, tables)
    segments, blocks = reading.in_order(tables.segments, tables.blocks)
    return FrameworkMemory(name="cupy", version=version, pools=tuple(tables.pools), segments=segments, blocks=blocks)


def _pools(cupy: Any) -> Iterator[tuple[Any, str, str]]:
    """(pool, name, how to reach it) of the default pool, and of the one in use if that is another."""
    default = cupy.get_default_memory_pool()
    yield default, "default", "cupy.get_default_memory_pool()"
    allocator = cupy.cuda.get_allocator()
    current = allocator.__self__ if type(allocator) in (types.BuiltinFunctionType, types.MethodType) else None
    if current is not default and type(current) in (cupy.cuda.MemoryPool, cupy.cuda.MemoryAsyncPool):
        yield current, "current", "cupy.cuda.get_allocator().__self__"


def _empty_pools(cupy: Any) -> None:
    """On the devices where pools have memory: to make another one current would make a context there."""
    used = {pool.device for pool in _memory(cupy, "").pools if pool.kind != "pinned"}
    for pool, _, _ in _pools(cupy):
        for device in sorted(used):
            with cupy.cuda.Device(device):
                pool.free_all_blocks()


def _instances(kind: type, objects: Iterable[Any]) -> Iterator[Any]:
    """Those of one type, looking into containers."""
    for each in objects:
        if type(each) is kind:
            yield each
        elif issubclass(type(each), _CONTAINERS):
            values = dict.values(each) if issubclass(type(each), dict) else each
            yield from _instances(kind, list(values))


def _device_pool(cupy: Any, single: Any, name: str, call: str) -> Pool:
    managed = any(each is cupy.cuda.malloc_managed for each in gc.get_referents(single))
    return Pool(
        name=name,
        device=single._device_id,  # noqa: SLF001  (the public functions speak of the current device only)
        kind="managed" if managed else "device",
        empty_with=_emptying(call, single._device_id),  # noqa: SLF001
        reserved_bytes=single.total_bytes(),
        used_bytes=single.used_bytes(),
    )


def _emptying(call: str, device: int) -> str:
    """The command that gives back what a pool keeps for later. It works on the current device, by default the first."""
    return f"with cupy.cuda.Device({device}): {call}.free_all_blocks()" if device else f"{call}.free_all_blocks()"


def _async_pools(cupy: Any, pool: Any, name: str, call: str) -> Iterator[Pool]:
    """Of a pool that the driver keeps. Each of its blocks is an allocation of the driver."""
    if type(pool) is not cupy.cuda.MemoryAsyncPool:
        return
    runtime = cupy.cuda.runtime
    for device, handle in enumerate(pool._pools):  # noqa: SLF001  (the public functions speak of the current device only)
        reserved = runtime.memPoolGetAttribute(handle, runtime.cudaMemPoolAttrReservedMemCurrent)
        if reserved:
            yield Pool(
                name=name,
                device=device,
                kind="device",
                empty_with=_emptying(call, device),
                reserved_bytes=reserved,
                used_bytes=runtime.memPoolGetAttribute(handle, runtime.cudaMemPoolAttrUsedMemCurrent),
            )


def _pieces(cupy: Any, single: Any) -> dict[Range, list[Piece]]:
    """Blocks of a pool for one device: CuPy from 14.1 shows the free ones, before 14 those in use."""
    kind = cupy.cuda.memory._Chunk  # noqa: SLF001
    dictionaries = [each.copy() for each in gc.get_referents(single) if type(each) is dict]
    in_use = [chunk for each in dictionaries for chunk in each.values() if type(chunk) is kind]
    if in_use:
        return pieces_of(in_use, BlockState.LIVE)
    show = getattr(single, "_debug_arena_get_index", None)
    if show is None:
        return {}
    arenas = [(key, arena) for each in dictionaries for key, arena in each.items()]
    streams = [key for key, arena in arenas if type(arena) is weakref.ref and arena() is not None]
    return pieces_of([chunk for stream in streams for _, chunk in show(stream)], BlockState.CACHED)


def pieces_of(chunks: Iterable[Any], state: BlockState) -> dict[Range, list[Piece]]:
    """Blocks by the allocation that they are parts of, from all chunks that are in one state.

    A chunk knows its neighbours in the same allocation: those that are not among ``chunks`` are in the other state.
    """
    shown = list(chunks)
    same = {id(chunk) for chunk in shown}
    found: dict[Range, dict[int, Piece]] = {}
    for chunk in shown:
        memory = chunk.mem
        pieces = found.setdefault((memory.ptr, memory.size), {})
        for each in _row_of(chunk) if chunk.offset not in pieces else ():
            pieces[each.offset] = (
                memory.ptr + each.offset,
                each.size,
                state if id(each) in same else _OTHER[state],
            )
    return {whole: [piece for _, piece in sorted(pieces.items())] for whole, pieces in found.items()}


def _row_of(chunk: Any) -> Iterator[Any]:
    """A chunk and all others of its allocation, in the order of their addresses."""
    while chunk.prev is not None:
        chunk = chunk.prev
    while chunk is not None:
        yield chunk
        chunk = chunk.next


def _add_pinned(cupy: Any, tables: _Tables) -> None:
    """The pool of pinned host memory."""
    pieces = pinned_pieces(cupy.cuda.PinnedMemory, cupy.get_default_pinned_memory_pool())
    if pieces:
        call = "cupy.get_default_pinned_memory_pool().free_all_blocks()"
        tables.add(Pool(name="pinned", device=NO_DEVICE, kind="pinned", empty_with=call), pieces)


def pinned_pieces(kind: type, pool: Any) -> dict[Range, list[Piece]]:
    """Memory that a pinned pool has, by its range. What it keeps for later lies in lists by size."""
    pieces: dict[Range, list[Piece]] = {}
    for each in gc.get_referents(pool):
        if not issubclass(type(each), (dict, set)):
            continue
        for value in list(dict.values(each) if issubclass(type(each), dict) else each):
            state = BlockState.CACHED if type(value) is list else BlockState.LIVE
            for memory in _instances(kind, [value]):
                pieces[memory.ptr, memory.size] = [(memory.ptr, memory.size, state)]
    return pieces


# ---- objects ----


def _holders(cupy: Any) -> tuple[type, ...]:
    if cupy is None:
        return ()
    return (cupy.ndarray, cupy.cuda.MemoryPointer, cupy.cuda.BaseMemory, cupy.cuda.PinnedMemory)


def _held(cupy: Any, each: Any) -> tuple[int, int, int] | None:
    """(address, bytes, device) of the memory under an array, a pointer or a piece of memory; None when it is empty.

    Attributes are read as CuPy's own classes define them, because a user's subclass may have others of these names.
    """
    cuda = cupy.cuda
    if issubclass(type(each), cuda.PinnedMemory):
        fields = object.__getattribute__(each, "__dict__")
        return (fields["ptr"], fields["size"], NO_DEVICE) if fields.get("ptr") else None
    if issubclass(type(each), cupy.ndarray):
        each = _field(cupy.ndarray, "data", each)
    if each is not None and issubclass(type(each), cuda.MemoryPointer):
        each = _field(cuda.MemoryPointer, "mem", each)
    if each is None:
        return None
    address, size, device = (_field(cuda.BaseMemory, name, each) for name in ("ptr", "size", "device_id"))
    return (address, size, device) if address and size and device >= 0 else None


def _field(kind: type, name: str, each: Any) -> Any:
    return reading.descriptor(kind, name).__get__(each)
