"""JAX: totals of its device pools and the buffers of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import FrameworkMemory, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BRIDGE = "jax._src.xla_bridge"


class Jax:
    """JAX, as the user has imported it. ``platform`` is "cuda" but for tests of what needs no GPU."""

    name = "jax"

    def __init__(self, platform: str = "cuda") -> None:
        self._platform = platform

    def is_imported(self) -> bool:
        return reading.module("jax") is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        array = _array_type()
        return array is not None and issubclass(kind, array)

    def memory(self) -> FrameworkMemory:
        version = reading.version_of(reading.module("jax"))
        return reading.told(self.name, version, lambda: self._memory(version))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        found: list[Holding] = []
        for index, each in reading.of_types(objects, self.may_hold):
            try:
                buffers = [Holding(index, *buffer) for buffer in self._buffers(each)]
            except Exception:  # noqa: BLE001, S112  (deleted by another thread, or of a kind that has no address)
                continue
            found += buffers
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return ""

    def _memory(self, version: str) -> FrameworkMemory:
        devices = [device for client in _clients() for device in client.local_devices() if self._is_ours(device)]
        pools = [pool for device in devices if (pool := pool_of(device.local_hardware_id, device.memory_stats()))]
        return FrameworkMemory(name=self.name, version=version, pools=tuple(pools))

    def _is_ours(self, device: Any) -> bool:
        return self._platform in device.client.platform_version

    def _buffers(self, array: Any) -> Iterator[tuple[int, int, int]]:
        """(address, bytes, device) of the parts of an array. One that is still being computed has no address yet."""
        if not array.is_ready():
            return
        on_host = getattr(array.sharding, "memory_kind", None) == "pinned_host"
        for part in array._arrays:  # noqa: SLF001  (JAX keeps this list itself; its public twin makes a cycle)
            (device,) = part.devices()
            if self._is_ours(device):
                ordinal = NO_DEVICE if on_host else device.local_hardware_id
                yield part.unsafe_buffer_pointer(), part.on_device_size_in_bytes(), ordinal


def _array_type() -> type | None:
    """The class of arrays that are no tracers."""
    found: type | None = getattr(reading.module("jax._src.array"), "ArrayImpl", None)
    return found


def _clients() -> list[Any]:
    """Those that JAX has started. Asking in public would start them."""
    return list(getattr(reading.module(_BRIDGE), "_backends", {}).values())


def pool_of(device: int, stats: Mapping[str, int] | None) -> Pool | None:
    """The pool of a device from ``Device.memory_stats()``; None when JAX has none there or has not begun to use it.

    ``pool_bytes`` is what was taken from the driver. Allocators that do not tell it take memory piece by piece.
    """
    if not stats or not (stats.get("pool_bytes") or stats.get("bytes_in_use")):
        return None
    return Pool(
        name="default",
        device=device,
        kind="device",
        reserved_bytes=stats.get("pool_bytes") or stats["bytes_in_use"],
        used_bytes=stats["bytes_in_use"],
        largest_free_bytes=stats.get("largest_free_block_bytes"),
    )
