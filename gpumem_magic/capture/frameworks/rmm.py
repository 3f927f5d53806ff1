"""RMM: what its memory resources tell of their pools, and its buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.capture import driver
from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import FrameworkMemory, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_RESOURCES = 16  # one may be built on another, but not on itself


class Rmm:
    """RMM, as the user has imported it."""

    name = "rmm"

    def is_imported(self) -> bool:
        return reading.module("rmm") is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        buffer = getattr(reading.module("rmm"), "DeviceBuffer", None)
        return buffer is not None and issubclass(kind, buffer)

    def memory(self) -> FrameworkMemory:
        rmm = reading.module("rmm")
        version = reading.version_of(rmm)
        return reading.told(self.name, version, lambda: _memory(rmm, version))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        rmm = reading.module("rmm")
        found: list[Holding] = []
        for index, each in reading.of_types(objects, self.may_hold):
            address, size = (reading.descriptor(rmm.DeviceBuffer, name).__get__(each) for name in ("ptr", "size"))
            if address and size:
                found.append(Holding(index, address, size, driver.device_of(address)))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return ""


def _memory(rmm: Any, version: str) -> FrameworkMemory:
    pools = []
    for device in driver.devices():
        pool = pool_of(device.ordinal, list(_chain(rmm.mr.get_per_device_resource(device.ordinal))))
        pools += [pool] if pool is not None else []
    return FrameworkMemory(name="rmm", version=version, pools=tuple(pools))


def _chain(resource: Any) -> Iterator[Any]:
    """A memory resource and those that it is built on, as far as they are RMM's own."""
    for _ in range(_MOST_RESOURCES):
        if not str(reading.module_name(type(resource))).startswith("rmm."):
            return
        yield resource
        resource = getattr(resource, "upstream_mr", None)


def pool_of(device: int, resources: Sequence[Any]) -> Pool | None:
    """The pool among the resources of a device, the outermost first; None when each allocation is the driver's own.

    How much of it is in use is known only where a statistics, tracking or limiting adaptor counts it.
    """
    names = [reading.type_name(type(each)) for each in resources]
    holder = next((each for each in resources if hasattr(each, "pool_size")), None)
    used = next((count for each in resources if (count := _used(each)) is not None), None)
    pooled = {"PoolMemoryResource", "ArenaMemoryResource", "FixedSizeMemoryResource", "BinningMemoryResource"}
    if not pooled & set(names):
        return None
    kind = (
        "managed" if "ManagedMemoryResource" in names else "pinned" if "PinnedHostMemoryResource" in names else "device"
    )
    return Pool(
        name=next(name for name in names if name in pooled),
        device=NO_DEVICE if kind == "pinned" else device,
        kind=kind,
        reserved_bytes=None if holder is None else int(holder.pool_size()),
        used_bytes=used,
    )


def _used(resource: Any) -> int | None:
    if hasattr(resource, "get_allocated_bytes"):
        return int(resource.get_allocated_bytes())
    counts = getattr(resource, "allocation_counts", None)
    return None if counts is None else int(counts.current_bytes)
