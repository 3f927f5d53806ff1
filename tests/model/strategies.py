"""Arbitrary event streams, most of them wrong: no driver and no tracker would ever produce them.

Values are drawn from a handful, so that addresses collide, handles are reused and ranges overlap all the time.
Every time is above 0 and times never go back; sizes stay at or below ``MAX_SIZE``, so that sums fit 64 bits.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from hypothesis import strategies as st

from gpumem_magic.model.events import BIRTHS, DEATHS, EVENT_DTYPE, NO_DEVICE, EventFlag, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")

MAX_SIZE = 2**48

PAGE = 0x1000
ADDRESSES = (PAGE, 2 * PAGE, 0, 3 * PAGE, 3 * PAGE + 1, 2**64 - PAGE, 2**32 + PAGE)
SIZES = (PAGE, 2 * PAGE, 0, 1, 512, 3 * PAGE, 2**21, 2**32, MAX_SIZE)
SPANS = (1, 2, 3, 0, 2**32 + 1)
FLAGS = (EventFlag.REUSED, EventFlag.DEFERRED_FREE, *EventFlag, EventFlag.REUSED | EventFlag.DEFERRED_FREE, 1 << 15)

_PHYSICAL = (Kind.CREATE_PHYSICAL, Kind.IMPORT_PHYSICAL, Kind.RELEASE_PHYSICAL, Kind.RETAIN_PHYSICAL)
_MARKS = (*(kind for kind in Kind if kind not in BIRTHS | DEATHS), 0, 16, 31, 43, 63, 67, 255)
_CALLERS = tuple(itertools.product((0, 1, 2**32 - 1), (0, 1), (0, 1, 2**16 - 1)))  # stack, cell, library
_DEVICES = (0, 1, NO_DEVICE, NO_DEVICE - 1)


def _rarely(values: Sequence[int], one_in: int) -> st.SearchStrategy[int]:
    """0, and one time in so many one of ``values``."""
    picks = [0] * (len(values) * (one_in - 1)) + [int(value) for value in values]
    return st.sampled_from(picks)


def _events(kinds: Sequence[int], addresses: Sequence[int] = ADDRESSES) -> st.SearchStrategy[np.void]:
    fields = {
        "time_ns": st.integers(0, 2),  # since the event before; made a time by _stream
        "kind": st.sampled_from(kinds),
        "address": st.sampled_from(addresses),
        "size": st.sampled_from(SIZES),
        "handle": st.sampled_from(ADDRESSES),
        "device": st.sampled_from(_DEVICES),
        "context": st.integers(0, 2),
        "status": _rarely((1, 2, 2**16 - 1), one_in=12),
        "flags": _rarely(FLAGS, one_in=6),
    }
    return st.builds(_event, st.fixed_dictionaries(fields), st.sampled_from(_CALLERS))


def _event(fields: dict[str, int], caller: tuple[int, int, int]) -> np.void:
    row: np.void = np.zeros(1, EVENT_DTYPE)[0]
    for name, value in fields.items():
        row[name] = value
    row["stack"], row["cell"], row["library"] = caller
    row["thread"], row["stream"], row["function"] = 7 + fields["context"], fields["device"], fields["kind"]
    return row


def _stream(events: list[np.void]) -> np.ndarray:
    stream = np.array([row.tobytes() for row in events], dtype="V64").view(EVENT_DTYPE)
    stream["time_ns"] = 1 + np.cumsum(stream["time_ns"])
    return stream


def event_streams(max_size: int = 60) -> st.SearchStrategy[np.ndarray]:
    """EVENT_DTYPE arrays in which every rule of the ledger meets every other."""
    pointers = [kind for kind in Kind if kind <= Kind.ALLOC_GRAPH or Kind.FREE <= kind <= Kind.FREE_GRAPH]
    each = st.one_of(
        _events([Kind.ALLOC, Kind.FREE, Kind.IMPORT_IPC, Kind.CLOSE_IPC]),
        _events([*_PHYSICAL, Kind.MAP, Kind.UNMAP]),
        _events([Kind.MAP, Kind.UNMAP]),
        _events([Kind.SPAN_BEGIN, Kind.SPAN_END], SPANS),
        _events(pointers),
        _events(sorted(BIRTHS | DEATHS)),
        _events([*_MARKS, Kind.CONTEXT_DESTROY]),
    )
    return _lists(each, max_size).map(_stream)


def _lists(each: st.SearchStrategy[_T], max_size: int) -> st.SearchStrategy[list[_T]]:
    """Lists of every length alike: left to itself, hypothesis draws some five elements only."""
    return st.integers(0, max_size).flatmap(lambda size: st.lists(each, min_size=size, max_size=size))


def long_streams(length: int = 3000) -> st.SearchStrategy[np.ndarray]:
    """Streams from a seed: too long to draw event by event, with more open spans than the limit."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_stream(seed, length))


def random_stream(seed: int, length: int) -> np.ndarray:
    """``length`` events; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    stream = np.zeros(length, EVENT_DTYPE)
    kinds = (*BIRTHS, *BIRTHS, *DEATHS, *DEATHS, *_PHYSICAL, *_PHYSICAL, Kind.MAP, Kind.MAP, Kind.UNMAP, *_MARKS)
    stream["time_ns"] = 1 + np.cumsum(random.integers(0, 3, length))
    stream["kind"] = random.choice(np.array(kinds, np.uint8), length)
    stream["address"] = PAGE * random.integers(0, 24, length)
    stream["handle"] = PAGE * random.integers(0, 24, length)
    stream["size"] = random.integers(0, 4, length) * random.choice([1, PAGE], length)
    stream["device"] = random.choice(np.array(_DEVICES, np.uint8), length)
    for field, limit in (("stack", 5), ("cell", 4), ("library", 3), ("context", 9), ("thread", 3), ("stream", 3)):
        stream[field] = random.integers(0, limit, length)
    stream["status"] = random.integers(0, 900, length) * (random.random(length) < 0.05)
    stream["flags"] = random.choice(np.array(FLAGS, np.uint16), length) * (random.random(length) < 0.1)
    stream["function"] = random.integers(0, 800, length)
    spans = random.random(length) < 0.15
    stream["kind"][spans] = random.choice(np.array([Kind.SPAN_BEGIN] * 3 + [Kind.SPAN_END], np.uint8), spans.sum())
    stream["address"][spans] = random.integers(0, length // 10 + 1, spans.sum())
    return stream


def wild_streams(max_size: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Any bytes at all that keep to the limits on time and size; most events are unknown or failed."""
    return _lists(st.binary(min_size=64, max_size=64), max_size).map(_tame)


def _tame(rows: list[bytes]) -> np.ndarray:
    stream = np.array(rows, dtype="V64").view(EVENT_DTYPE).copy()
    stream["time_ns"] = 1 + np.cumsum(stream["time_ns"] & 0xFF)
    stream["size"] &= MAX_SIZE - 1
    stream["status"] *= stream["status"] % 4 == 0
    return stream
