"""Driver memory that a program allocated itself, outside of any framework's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.byte_ledger import mapped_addresses
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.analysis.pools import is_pooled
from gpumem_magic.analysis.retention import MEMORY_DTYPE

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Snapshot

_PYTHON_CALLERS = ("cuda", "ctypes", "numba", "pycuda", "Python")
"""What the names of libraries begin with through which Python code calls the driver. Others keep their own pointers."""


def raw_memory(snapshot: Snapshot) -> np.ndarray:
    """Live allocations made by Python code and in no framework's pool (MEMORY_DTYPE), by address."""
    callers = np.array([_is_python(path) for path in snapshot.libraries] or [True], bool)
    rows = snapshot.allocations
    mine = rows[callers[np.minimum(rows["library"], len(callers) - 1)]]
    addresses = mapped_addresses(snapshot, mine)
    pooled = is_pooled(snapshot.frameworks, addresses)
    made = np.empty(int((~pooled).sum()), MEMORY_DTYPE)
    made["address"], made["bytes"] = addresses[~pooled], mine["size"][~pooled]
    made["device"] = mine["device"][~pooled]
    return np.sort(made, order="address")


def _is_python(path: str) -> bool:
    name = library_name(path)
    return not name or name.startswith(_PYTHON_CALLERS)
