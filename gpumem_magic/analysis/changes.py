"""What each event did to the live bytes, reconstructed from a stretch of events alone.

Births carry their size. For what an event ended, the native core leaves a number in the event: ``handle`` of a
death (kinds 32 to 42) and of ``UNMAP`` is the size of what it ended, 0 when it ended nothing, and ``size`` of
``CONTEXT_DESTROY`` is the device-layer bytes that went with the context. Only the end of an allocation whose
address is handed out anew has to be found by matching addresses. All of it is vectorised: no loop over events.
"""

from __future__ import annotations

import numpy as np

from gpumem_magic.model.events import BIRTHS, DEATHS, KIND_LABELS, NO_DEVICE, Kind, Layer, layer_of

CHANGE_DTYPE = np.dtype(
    [
        ("event", "<i8"),  # row of the event in the array given to ``changes``
        ("birth", "<i8"),  # row of the birth whose bytes come or go; -1 when it is not among the events
        ("time_ns", "<i8"),
        ("delta", "<i8"),  # bytes: positive for a birth, negative for an end
        ("device", "u1"),  # of the meter: NO_DEVICE for the host layer
        ("layer", "u1"),
    ],
)

_ADDRESS, _PHYSICAL, _ARRAY, _MIPMAP, _EXTERNAL, _MAPPED = range(6)
_POOLED = (Kind.ALLOC_ASYNC, Kind.ALLOC_POOL)


def _by_kind(values: dict[int, int], default: int) -> np.ndarray:
    table = np.full(256, default, np.int64)
    for kind, value in values.items():
        table[kind] = value
    return table


_SPACE = _by_kind(
    {
        Kind.CREATE_PHYSICAL: _PHYSICAL,
        Kind.IMPORT_PHYSICAL: _PHYSICAL,
        Kind.RELEASE_PHYSICAL: _PHYSICAL,
        Kind.CREATE_ARRAY: _ARRAY,
        Kind.DESTROY_ARRAY: _ARRAY,
        Kind.CREATE_MIPMAP: _MIPMAP,
        Kind.DESTROY_MIPMAP: _MIPMAP,
        Kind.IMPORT_EXTERNAL: _EXTERNAL,
        Kind.DESTROY_EXTERNAL: _EXTERNAL,
        Kind.MAP: _MAPPED,
        Kind.UNMAP: _MAPPED,
    },
    _ADDRESS,
)
_IS_BIRTH = _by_kind(dict.fromkeys(BIRTHS, 1), 0).astype(bool)
_IS_DEATH = _by_kind(dict.fromkeys(DEATHS, 1), 0).astype(bool)
_LAYER = _by_kind(
    {
        **{kind: layer_of(kind, 0) for kind in KIND_LABELS},
        # What a death is about when its birth is not at hand.
        Kind.FREE_HOST: Layer.HOST,
        Kind.UNREGISTER_HOST: Layer.HOST,
        Kind.CLOSE_IPC: Layer.IMPORTED,
        Kind.DESTROY_EXTERNAL: Layer.IMPORTED,
    },
    Layer.DEVICE,
)


def changes(events: np.ndarray) -> np.ndarray:
    """Every change of the live bytes, in order of the events.

    Args:
        events: EVENT_DTYPE, in order of the ledger.

    Returns:
        CHANGE_DTYPE. A birth upon a live key gives two rows: the old one's end, then the birth.
    """
    events = _state_events(events)
    open_birth, is_birth = _pair(events)
    rows = [
        _births(events, is_birth),
        _displaced(events, is_birth, open_birth),
        _ends(events, open_birth),
        _context_ends(events),
    ]
    merged: np.ndarray = np.concatenate(rows)
    order = np.lexsort((merged["delta"] > 0, merged["event"]))
    return merged[order]


def _state_events(events: np.ndarray) -> np.ndarray:
    """The events with everything blanked that changed no bytes: failures and null pointers become kind 0."""
    kind = events["kind"]
    void = (events["status"] != 0) | ((_IS_BIRTH[kind] | _IS_DEATH[kind]) & (events["address"] == 0))
    if void.any():
        events = events.copy()
        events["kind"][void] = 0
    return events


def _pair(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every event the row of the birth that was live under its key before it, and which rows are births.

    Returns:
        ``open_birth`` (int64, -1 when none is known) and ``is_birth`` (bool; added references are none).
    """
    is_birth = _IS_BIRTH[events["kind"]]
    open_birth = _outlived(events, _open_births(events, is_birth))
    kind = events["kind"]
    known = open_birth >= 0
    again = (kind == Kind.IMPORT_IPC) & known & (kind[open_birth] == Kind.IMPORT_IPC)
    again |= (kind == Kind.IMPORT_PHYSICAL) & known
    if again.any():
        is_birth = is_birth & ~again
        open_birth = _outlived(events, _open_births(events, is_birth))
    return _unmapped(events, open_birth), is_birth


def _open_births(events: np.ndarray, is_birth: np.ndarray) -> np.ndarray:
    """Per event, the latest birth before it under its key that no death in between ended; -1 when none."""
    kind = events["kind"]
    result = np.full(len(events), -1, np.int64)
    rows = np.flatnonzero(_IS_BIRTH[kind] | _IS_DEATH[kind])
    if not len(rows):
        return result
    rows = rows[np.lexsort((rows, events["address"][rows], _SPACE[kind[rows]]))]
    place = np.arange(len(rows))
    ends = _IS_DEATH[kind[rows]] & (events["handle"][rows] > 0)
    last_birth = _previous(np.where(is_birth[rows], place, -1))
    last_end = _previous(np.where(ends, place, -1))
    found = (last_birth > last_end) & (last_birth >= _group_starts(events, rows))
    result[rows[found]] = rows[last_birth[found]]
    return result


def _previous(marked: np.ndarray) -> np.ndarray:
    """Per place, the largest of the values before it; -1 at the first."""
    return np.concatenate(([-1], np.maximum.accumulate(marked)[:-1]))


def _group_starts(events: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Per place in ``rows`` (sorted by key), the first place with the same key."""
    space, address = _SPACE[events["kind"][rows]], events["address"][rows]
    new = np.ones(len(rows), bool)
    new[1:] = (space[1:] != space[:-1]) | (address[1:] != address[:-1])
    starts: np.ndarray = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    return starts


def _outlived(events: np.ndarray, open_birth: np.ndarray) -> np.ndarray:
    """``open_birth`` without the births whose context was destroyed in between."""
    for destroy in np.flatnonzero(events["kind"] == Kind.CONTEXT_DESTROY):
        birth = events[open_birth]
        owned = (birth["context"] == events["context"][destroy]) & ~np.isin(birth["kind"], _POOLED)
        owned &= _SPACE[birth["kind"]] != _PHYSICAL
        crossed = (open_birth >= 0) & (open_birth < destroy) & (np.arange(len(events)) > destroy)
        open_birth = np.where(owned & crossed, -1, open_birth)
    return open_birth


def _unmapped(events: np.ndarray, open_birth: np.ndarray) -> np.ndarray:
    """``open_birth`` with, for every UNMAP, the birth of the physical memory that was mapped at its address."""
    maps = np.flatnonzero(events["kind"] == Kind.MAP)
    unmaps = np.flatnonzero((events["kind"] == Kind.UNMAP) & (events["handle"] > 0))
    physicals = np.flatnonzero(_IS_BIRTH[events["kind"]] & (_SPACE[events["kind"]] == _PHYSICAL))
    mapped_by = _latest(events["address"], maps, events["address"], unmaps)
    born_by = _latest(events["address"], physicals, events["handle"], maps)
    result = open_birth.copy()
    result[unmaps] = np.where(mapped_by >= 0, np.append(born_by, -1)[_place(maps, mapped_by)], -1)
    return result


def _latest(keys: np.ndarray, rows: np.ndarray, wanted: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Per row in ``at``, the last of ``rows`` before it whose key is ``wanted[at]``; -1 when there is none."""
    asked = np.concatenate((rows, at))
    key = np.concatenate((keys[rows], wanted[at]))
    is_row = np.arange(len(asked)) < len(rows)
    order = np.lexsort((asked, key))
    place = np.arange(len(asked))
    last = _previous(np.where(is_row[order], place, -1)) if len(asked) else place
    same = (last >= 0) & (key[order[last]] == key[order]) if len(asked) else np.zeros(0, bool)
    found = np.full(len(asked), -1, np.int64)
    found[order] = np.where(same, asked[order[last]], -1)
    return found[len(rows) :]


def _place(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where in the ascending ``rows`` each of ``wanted`` is; ``len(rows)`` for -1."""
    return np.where(wanted >= 0, np.searchsorted(rows, wanted), len(rows))


# Rows


def _births(events: np.ndarray, is_birth: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(is_birth)
    return _rows(events, rows, rows, events["size"][rows].astype(np.int64))


def _displaced(events: np.ndarray, is_birth: np.ndarray, open_birth: np.ndarray) -> np.ndarray:
    """Ends of allocations whose address was handed out again.

    Physical memory is left out: a displaced one may live on in its mappings.
    """
    rows = np.flatnonzero(is_birth & (open_birth >= 0) & (_SPACE[events["kind"]] != _PHYSICAL))
    return _rows(events, rows, open_birth[rows], -events["size"][open_birth[rows]].astype(np.int64))


def _ends(events: np.ndarray, open_birth: np.ndarray) -> np.ndarray:
    ended = _IS_DEATH[events["kind"]] | (events["kind"] == Kind.UNMAP)
    rows = np.flatnonzero(ended & (events["handle"] > 0))
    return _rows(events, rows, open_birth[rows], -events["handle"][rows].astype(np.int64))


def _context_ends(events: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero((events["kind"] == Kind.CONTEXT_DESTROY) & (events["size"] > 0))
    return _rows(events, rows, np.full(len(rows), -1), -events["size"][rows].astype(np.int64))


def _rows(events: np.ndarray, rows: np.ndarray, birth: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """CHANGE_DTYPE for ``events[rows]``; layer and device are those of the birth where it is known."""
    source = events[np.where(birth >= 0, birth, rows)]
    layer = _LAYER[source["kind"]]
    layer = np.where((layer == Layer.DEVICE) & (source["device"] == NO_DEVICE), Layer.HOST, layer)
    made = np.zeros(len(rows), CHANGE_DTYPE)
    made["event"], made["birth"], made["delta"] = rows, birth, delta
    made["time_ns"] = events["time_ns"][rows]
    made["layer"] = layer
    made["device"] = np.where(layer == Layer.HOST, NO_DEVICE, source["device"])
    return made
