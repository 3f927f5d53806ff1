"""Events written by hand, and ledgers made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.model.events import EVENT_DTYPE, Kind
from gpumem_magic.model.ledger import ReferenceLedger

if TYPE_CHECKING:
    from collections.abc import Iterable


def event(kind: int, address: int = 0, size: int = 0, **fields: int) -> np.void:
    """One row of EVENT_DTYPE; what is not named is 0. ``time_ns`` 0 means: let ``ledger_of`` set it."""
    row: np.void = np.zeros(1, EVENT_DTYPE)[0]
    for name, value in {"kind": kind, "address": address, "size": size, **fields}.items():
        row[name] = value
    return row


def alloc(address: int, size: int = 0, **fields: int) -> np.void:
    return event(Kind.ALLOC, address, size, **fields)


def free(address: int, **fields: int) -> np.void:
    return event(Kind.FREE, address, **fields)


def create(handle: int, size: int = 0, **fields: int) -> np.void:
    return event(Kind.CREATE_PHYSICAL, handle, size, **fields)


def release(handle: int, **fields: int) -> np.void:
    return event(Kind.RELEASE_PHYSICAL, handle, **fields)


def map_(address: int, size: int, handle: int, **fields: int) -> np.void:
    return event(Kind.MAP, address, size, handle=handle, **fields)


def unmap(address: int, size: int, **fields: int) -> np.void:
    return event(Kind.UNMAP, address, size, **fields)


def begin(span: int, parent: int = 0, **fields: int) -> np.void:
    return event(Kind.SPAN_BEGIN, span, handle=parent, **fields)


def end(span: int, **fields: int) -> np.void:
    return event(Kind.SPAN_END, span, **fields)


def stream_of(events: Iterable[np.void]) -> np.ndarray:
    """The events as an array; event i without a time gets 10 * (i + 1) ns."""
    stream = np.array([row.tobytes() for row in events], dtype="V64").view(EVENT_DTYPE)
    unset = stream["time_ns"] == 0
    stream["time_ns"][unset] = 10 * (np.flatnonzero(unset) + 1)
    return stream


def ledger_of(*events: np.void) -> ReferenceLedger:
    """The ledger after ``events`` (times as in ``stream_of``), checked after each of them."""
    ledger = ReferenceLedger()
    for row in stream_of(events):
        ledger.apply(row)
        ledger.self_check()
    return ledger


def rows(table: np.ndarray, *fields: str) -> list[Any]:
    """The table's rows as tuples of ``fields``; plain values where there is one field."""
    if len(fields) == 1:
        values: list[Any] = table[fields[0]].tolist()
        return values
    return [tuple(int(row[field]) for field in fields) for row in table]


def counted(ledger: ReferenceLedger) -> dict[str, int]:
    """The counters that are not 0, without ``events``."""
    return {name: value for name, value in ledger.counters.items() if value and name != "events"}
