"""NVIDIA's own packages: buffers of cuda.core, and addresses that cuda.bindings handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.capture import driver
from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.model.frameworks import FrameworkMemory

if TYPE_CHECKING:
    from collections.abc import Sequence


ADDRESSES = "cuda.bindings"
"""The name of what hands out addresses only: unlike all others, its objects own no memory."""


class CudaCore:
    """cuda.core, as the user has imported it. Its pools are the driver's, which knows each of their allocations."""

    name = "cuda.core"

    def is_imported(self) -> bool:
        return _buffer_type() is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        buffer = _buffer_type()
        return buffer is not None and issubclass(kind, buffer)

    def memory(self) -> FrameworkMemory:
        return FrameworkMemory(name=self.name, version=reading.version_of(reading.module("cuda.core")))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        found: list[Holding] = []
        buffer = _buffer_type()
        for index, each in reading.of_types(objects, self.may_hold):
            handle, size = (reading.descriptor(buffer, name).__get__(each) for name in ("handle", "size"))
            address = int(handle or 0)
            if address:
                found.append(Holding(index, address, int(size), driver.device_of(address)))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return ""


class CudaBindings:
    """Addresses of cuda.bindings. They free nothing when they go, but without them nobody can free the memory."""

    name = ADDRESSES

    def is_imported(self) -> bool:
        return _pointer_type() is not None

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        return kind is _pointer_type()

    def memory(self) -> FrameworkMemory:
        return FrameworkMemory(name=self.name, version=reading.version_of(reading.module("cuda.bindings")))

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        """Of size 0, because an address knows none."""
        found = []
        for index, each in reading.of_types(objects, self.may_hold):
            address = int(each)
            if address:
                found.append(Holding(index, address, 0, driver.device_of(address)))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return ""


def _buffer_type() -> Any:
    """The class of buffers, which older releases have in an experimental module."""
    modules = (reading.module("cuda.core"), reading.module("cuda.core.experimental"))
    return next((vars(each)["Buffer"] for each in modules if each is not None and "Buffer" in vars(each)), None)


def _pointer_type() -> Any:
    return getattr(reading.module("cuda.bindings.driver"), "CUdeviceptr", None)
