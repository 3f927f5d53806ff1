"""numba-cuda: its allocations, those that it frees later, and the arrays that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.capture.frameworks.reading import Block, Segment
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import BlockState, FrameworkMemory, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DRIVER = "numba.cuda.cudadrv.driver"
_ARRAYS = "numba.cuda.cudadrv.devicearray"
_FREE_LATER = "numba.cuda.current_context().memory_manager.deallocations.clear()"


class Numba:
    """numba.cuda, as the user has imported it."""

    name = "numba"

    def is_imported(self) -> bool:
        return reading.module(_DRIVER) is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        """Arrays and pointers that own. What numba itself keeps until the last of these is gone is no holder."""
        driver, arrays = reading.module(_DRIVER), reading.module(_ARRAYS)
        if not hasattr(driver, "OwnedPointer") or not hasattr(arrays, "DeviceNDArrayBase"):
            return False  # numba's own simulator
        if issubclass(kind, (driver.OwnedPointer, arrays.DeviceNDArrayBase, driver.PinnedMemory)):
            return True
        return issubclass(kind, driver.MemoryPointer) and not issubclass(kind, driver.AutoFreePointer)

    def memory(self) -> FrameworkMemory:
        version = reading.version_of(reading.module("numba_cuda") or reading.module("numba"))
        return reading.told(self.name, version, lambda: self._memory(version))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        driver = reading.module(_DRIVER)
        found: list[Holding] = []
        for index, each in reading.of_types(objects, self.may_hold):
            try:
                held = _held(driver, each)
            except Exception:  # noqa: BLE001, S112  (half made, or freed by numba meanwhile)
                continue
            if held is not None:
                found.append(Holding(index, *held))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return reading.problem_of(self.name, _free_now)

    def _memory(self, version: str) -> FrameworkMemory:
        pools: dict[Pool, int] = {}
        segments: list[Segment] = []
        blocks: list[Block] = []
        for pool, address, size, state in _allocations(reading.module(_DRIVER)):
            blocks.append(Block(address, size, size, len(segments), state))
            segments.append(Segment(address, size, pools.setdefault(pool, len(pools))))
        rows, pieces = reading.in_order(segments, blocks)
        return FrameworkMemory(name=self.name, version=version, pools=tuple(pools), segments=rows, blocks=pieces)


def _allocations(driver: Any) -> Iterator[tuple[Pool, int, int, BlockState]]:
    """(pool, address, bytes, state) of everything that numba allocated in contexts that it has made."""
    for device in list(vars(driver.driver).get("devices", {}).values()):
        context = vars(device).get("primary_context")
        if context is None:
            continue
        manager = _fields(context.memory_manager)  # perhaps of another library, or of the user
        for memory in list(manager.get("allocations", {}).values()):
            pool, fields = _pool(device.id, _kind(driver, type(memory))), _fields(memory)
            yield pool, address_of(fields["handle"]), int(fields["size"]), BlockState.LIVE
        for free, handle, size in list(getattr(manager.get("deallocations"), "_cons", ())):
            if int(size):  # of unknown size are modules, streams and events
                on_host = "Host" in getattr(free, "__name__", "")
                yield (
                    _pool(device.id, "pinned" if on_host else "device"),
                    address_of(handle),
                    int(size),
                    BlockState.PENDING,
                )


def _free_now() -> None:
    """Free what numba has set aside to be freed later, in contexts that it has made."""
    cuda = reading.module("numba.cuda")
    for device in list(vars(reading.module(_DRIVER).driver).get("devices", {}).values()):
        if vars(device).get("primary_context") is not None:
            with cuda.gpus[device.id]:
                cuda.current_context().memory_manager.deallocations.clear()


def _kind(driver: Any, kind: type) -> str:
    if issubclass(kind, driver.MappedMemory):
        return "pinned"
    return "managed" if issubclass(kind, driver.ManagedMemory) else "device"


def _pool(device: int, kind: str) -> Pool:
    return Pool(name="allocations", device=NO_DEVICE if kind == "pinned" else device, kind=kind, empty_with=_FREE_LATER)


def address_of(pointer: Any) -> int:
    """Of what the driver calls a pointer in this release: an integer, one of ctypes or one of cuda.bindings."""
    value = getattr(pointer, "value", pointer)
    return 0 if value is None else int(value)


def _held(driver: Any, each: Any) -> tuple[int, int, int] | None:
    """(address, bytes, device) of the allocation under an array or pointer; None when it is empty."""
    kind = type(each)
    if issubclass(kind, driver.PinnedMemory):
        fields = _fields(each)
        return address_of(fields["host_pointer"]), int(fields["size"]), NO_DEVICE
    if not issubclass(kind, (driver.OwnedPointer, driver.MemoryPointer)):
        each = _fields(each)["gpu_data"]
        kind = type(each)
    memory = _fields(each)["_mem"] if issubclass(kind, driver.OwnedPointer) else each
    address = address_of(memory.device_pointer)
    if not address:
        return None
    on_host = issubclass(kind, driver.MappedOwnedPointer)
    return address, int(memory.size), NO_DEVICE if on_host else memory.context.device.id


def _fields(each: Any) -> dict[str, Any]:
    """Attributes as they are stored, past properties that a user's subclass may have."""
    found: dict[str, Any] = object.__getattribute__(each, "__dict__")
    return found
