"""Arrays of any other installed library that tells its device memory through ``__cuda_array_interface__``."""

from __future__ import annotations

import math
import pathlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.capture import driver
from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.model.frameworks import FrameworkMemory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_INTERFACE = "__cuda_array_interface__"
_PLACES = frozenset({"site-packages", "dist-packages"})  # folders that hold installed libraries
# Told by files of their own, which know the memory behind a view.
_TOLD_ELSEWHERE = ("torch", "cupy", "jax", "jaxlib", "numba", "rmm")


class ArrayInterface:
    """Any library whose arrays have the interface. Code of the user's own is not run, though it may have it too."""

    name = "array interface"

    def is_imported(self) -> bool:
        return True

    @reading.answering(bool)
    def may_hold(self, kind: type) -> bool:
        definer = next((base for base in reading.mro(kind) if _INTERFACE in reading.namespace(base)), None)
        return definer is not None and _is_told_here(reading.module_name(definer))

    def memory(self) -> FrameworkMemory:
        return FrameworkMemory(name=self.name, version="")

    @reading.answering(list)
    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        found: list[Holding] = []
        for index, each in reading.of_types(objects, self.may_hold):
            try:
                address, size = extent_of(reading.descriptor(type(each), _INTERFACE).__get__(each))
            except Exception:  # noqa: BLE001, S112  (an array on the host, or one that is gone)
                continue
            if address and size:
                found.append(Holding(index, address, size, driver.device_of(address)))
        return found

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002  (it has none)
        return []

    def give_back(self) -> str:
        return ""


def extent_of(interface: Mapping[str, Any]) -> tuple[int, int]:
    """(address, bytes) from the first to the last byte of an array, which may have gaps or negative strides."""
    address = int(interface["data"][0])
    shape = tuple(interface["shape"])
    item = np.dtype(interface["typestr"]).itemsize
    if not math.prod(shape):
        return address, 0
    strides = interface.get("strides")
    if strides is None:
        return address, math.prod(shape) * item
    steps = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    before = sum(step for step in steps if step < 0)
    return address + before, sum(step for step in steps if step > 0) - before + item


def _is_told_here(module: object) -> bool:
    return type(module) is str and module.partition(".")[0] not in _TOLD_ELSEWHERE and is_installed(module)


def is_installed(name: str) -> bool:
    """Whether a module is one of an installed library, or built into Python."""
    if name == "__main__":
        return False
    file = getattr(reading.module(name), "__file__", None)
    if type(file) is not str:
        return name in sys.builtin_module_names
    return not _PLACES.isdisjoint(pathlib.PurePath(file).parts)
