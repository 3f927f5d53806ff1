"""Driver memory that a program allocated itself, outside of any framework's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.byte_ledger import mapped_addresses
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.analysis.pools import is_pooled
from gpumem_magic.analysis.retention import MEMORY_DTYPE
from gpumem_magic.model.events import Kind

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot

_PYTHON_CALLERS = ("cuda", "ctypes", "numba", "pycuda", "Python")
"""What the names of libraries begin with through which Python code calls the driver. Others keep their own pointers."""


def raw_memory(snapshot: Snapshot) -> np.ndarray:
    """Live allocations made by Python code and in no framework's pool (MEMORY_DTYPE), by address.

    What has no address is left out: pointers cannot be searched for it.
    """
    callers = np.array([_is_python(path) for path in snapshot.libraries] or [True], bool)
    rows = snapshot.allocations
    mine = rows[callers[np.minimum(rows["library"], len(callers) - 1)]]
    addresses = mapped_addresses(snapshot, mine)
    kept = ~is_pooled(snapshot.frameworks, addresses) & has_address(mine, addresses)
    made = np.empty(int(kept.sum()), MEMORY_DTYPE)
    made["address"], made["bytes"], made["device"] = addresses[kept], mine["size"][kept], mine["device"][kept]
    return np.sort(made, order="address")


_HANDLES = tuple(int(kind) for kind in (Kind.CREATE_ARRAY, Kind.CREATE_MIPMAP))


def has_address(allocations: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """Per allocation with its ``mapped_addresses``, whether that is one: arrays and unmapped memory have a handle."""
    unmapped = (allocations["kind"] == Kind.CREATE_PHYSICAL) & (addresses == allocations["address"])
    found: np.ndarray = ~unmapped & ~np.isin(allocations["kind"], _HANDLES)
    return found


def _is_python(path: str) -> bool:
    name = library_name(path)
    return not name or name.startswith(_PYTHON_CALLERS)
