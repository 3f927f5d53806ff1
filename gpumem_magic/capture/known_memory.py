"""Which device memory Python objects know, and which of them: frameworks' arrays, hidden references, raw pointers."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.analysis.retention import merge_ranges
from gpumem_magic.capture.frameworks.cuda_python import ADDRESSES
from gpumem_magic.capture.frameworks.imported import holdings_of
from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.frameworks import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpumem_magic.capture.frameworks.framework import Framework

_RAW = -1  # in ``framework``: no framework's
_NOBODY = -1  # in ``node``: known from the framework or the driver, not from an object
_RANGE_DTYPE = np.dtype(
    [
        ("address", "<u8"),
        ("bytes", "<u8"),
        ("device", "<i4"),
        ("framework", "<i4"),  # index, or _RAW
        ("node", "<i4"),  # index of the object that knows it, or _NOBODY
        ("hidden", "u1"),
    ]
)
HOLD_DTYPE = np.dtype([("node", "<i4"), ("memory", "<i4"), ("hidden", "u1"), ("range", "<i4")])
"""An object that keeps a memory alive, and the range that says so."""


@dataclasses.dataclass(frozen=True, slots=True)
class KnownMemory:
    """Memory that some object, framework or driver call knows, and the objects that keep it."""

    memory: np.ndarray  # MEMORY_DTYPE
    holds: np.ndarray  # HOLD_DTYPE, ordered by memory
    owners: tuple[tuple[str, ...], ...]  # per memory the names of the frameworks that know it
    labels: dict[int, str]  # of hidden references, by range

    def frameworks(self, memory: int) -> tuple[str, ...]:
        return self.owners[memory]

    def is_owned(self) -> np.ndarray:
        """Per memory, whether it goes with the last of its objects. Of raw addresses alone, nobody would free it."""
        return np.array([bool(set(names) - {ADDRESSES}) for names in self.owners], bool)

    def holders(self, memory: int) -> list[int]:
        """Nodes that keep it, those that the collector sees first."""
        rows = self._rows(memory)
        nodes: list[int] = rows["node"][np.argsort(rows["hidden"], kind="stable")].tolist()
        return nodes

    def hidden_label(self, memory: int, node: int) -> str:
        """What the reference from ``node`` is, when the collector does not see it; else ""."""
        rows = self._rows(memory)
        rows = rows[rows["node"] == node]
        return self.labels[int(rows["range"][0])] if len(rows) and rows["hidden"].all() else ""

    def _rows(self, memory: int) -> np.ndarray:
        begin, end = np.searchsorted(self.holds["memory"], [memory, memory + 1])
        rows: np.ndarray = self.holds[begin:end]
        return rows


def known_memory(
    frameworks: Sequence[Framework], allocations: np.ndarray, objects: list[Any], listed: int
) -> KnownMemory:
    """All memory that is known now.

    Args:
        frameworks: those that are imported.
        allocations: driver memory in no framework's pool (MEMORY_DTYPE), ordered.
        objects: every object; from ``listed`` on those that were found while the others were looked at.
        listed: see ``objects``.
    """
    labels: dict[int, str] = {}
    rows: list[tuple[int, int, int, int, int, int]] = []
    for index, framework in enumerate(frameworks):
        rows += _live_blocks(framework, index)
    rows += [(address, size, device, _RAW, _NOBODY, 0) for address, size, device in allocations.tolist()]
    places = {id(framework): index for index, framework in enumerate(frameworks)}
    for framework, each in holdings_of(objects, frameworks):
        rows.append((each.address, each.size, each.device, places[id(framework)], each.index, 0))
    for index, framework in enumerate(frameworks):
        for reference in framework.hidden_references(objects):
            labels[len(rows)] = reference.label
            rows.append((reference.address, 1, NO_DEVICE, index, reference.index, 1))
    if len(allocations):
        rows += [(value, 0, NO_DEVICE, _RAW, node, 0) for node, value in _pointers(allocations, objects, listed)]
    ranges, labels = _without_idle_pointers(np.array(rows, _RANGE_DTYPE), labels)
    return _merged(ranges, labels, [framework.name for framework in frameworks])


def _without_idle_pointers(ranges: np.ndarray, labels: dict[int, str]) -> tuple[np.ndarray, dict[int, str]]:
    """Without pointers that keep nothing alive. A pointer is a range of no bytes; what keeps memory unseen has one.

    What lay where it leads was freed, or belongs to a framework's object: then that keeps it, and a number does not.
    """
    is_pointer = ranges["bytes"] == 0
    known, _ = merge_ranges(ranges[~is_pointer])
    owned, _ = merge_ranges(ranges[~is_pointer & (ranges["node"] != _NOBODY) & (ranges["framework"] != _RAW)])
    kept = ~is_pointer | (_is_within(ranges["address"], known) & ~_is_within(ranges["address"], owned))
    moved = np.cumsum(kept) - 1
    return ranges[kept], {int(moved[row]): label for row, label in labels.items() if kept[row]}


def _is_within(addresses: np.ndarray, memory: np.ndarray) -> np.ndarray:
    if not len(memory):
        return np.zeros(len(addresses), bool)
    place = np.searchsorted(memory["address"], addresses, side="right").astype(np.int64) - 1
    home = memory[np.maximum(place, 0)]
    inside: np.ndarray = (place >= 0) & (addresses < home["address"] + home["bytes"])
    return inside


def _merged(ranges: np.ndarray, labels: dict[int, str], names: list[str]) -> KnownMemory:
    memory, index = merge_ranges(ranges)
    known = np.flatnonzero(ranges["node"] != _NOBODY)
    known = known[np.argsort(index[known], kind="stable")]
    holds = np.empty(len(known), HOLD_DTYPE)
    holds["node"], holds["hidden"] = ranges["node"][known], ranges["hidden"][known]
    holds["memory"], holds["range"] = index[known], known
    owners: list[set[int]] = [set() for _ in range(len(memory))]
    for place, framework in zip(index.tolist(), ranges["framework"].tolist(), strict=True):
        if framework != _RAW:
            owners[place].add(framework)
    return KnownMemory(memory, holds, tuple(tuple(names[each] for each in sorted(owner)) for owner in owners), labels)


def _live_blocks(framework: Framework, index: int) -> list[tuple[int, int, int, int, int, int]]:
    memory = framework.memory()
    blocks = memory.blocks[memory.blocks["state"] == BlockState.LIVE]
    pools = memory.segments["pool"][blocks["segment"]]
    devices = [memory.pools[pool].device for pool in pools.tolist()]
    columns = zip(blocks["address"].tolist(), blocks["bytes"].tolist(), devices, strict=True)
    return [(address, size, device, index, _NOBODY, 0) for address, size, device in columns]


# Raw pointers


def _pointers(allocations: np.ndarray, objects: list[Any], listed: int) -> Iterator[tuple[int, int]]:
    """(node, address) of numbers and pointer objects that lie in ``allocations``."""
    begins = allocations["address"]
    ends = begins + allocations["bytes"]
    kinds = set(map(id, _pointer_types()))  # not the types: a metaclass of the user's may hash and compare
    found = [(node, objects[node]) for node in range(listed, len(objects)) if type(objects[node]) is int]
    found += [(node, _address(each)) for node, each in enumerate(objects) if id(type(each)) in kinds]
    for node, value in found:
        place = int(np.searchsorted(begins, np.uint64(value), side="right")) - 1 if 0 < value < 1 << 64 else -1
        if place >= 0 and value < int(ends[place]):
            yield node, value


def _pointer_types() -> set[type]:
    """Exact types whose objects are an address; a number is read from them without a call into Python code."""
    kinds: set[type] = {ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64}
    bindings = sys.modules.get("cuda.bindings.driver")
    for name in ("CUdeviceptr", "CUdeviceptr_v2"):
        kind = None if bindings is None else vars(bindings).get(name)
        if type(kind) is type:
            kinds.add(kind)
    return kinds


def _address(pointer: Any) -> int:
    value = pointer.value if issubclass(type(pointer), ctypes._SimpleCData) else int(pointer)  # noqa: SLF001
    return value or 0
