"""The reference ledger: what a stream of events means, written to be read.

``docs/recording-format.md`` ("How the ledger reads events") is the specification; this module is its executable
form. The native core applies the same rules inline and must hand out the same rows. Here every rule is one short
method and nothing is optimised.

Exact rules, where the specification leaves a choice
----------------------------------------------------
Order of the questions asked of an event
    ``events`` first. Then ``status``: a failed event of any kind, a mark or an unknown kind too, counts in
    ``failures`` and in its site's ``failed_count``, and is not looked at further. Then the kind.
Sites
    A site's ``device`` is the event's own, also where the meter is that of ``NO_DEVICE``. Births and failures make
    sites; calls that do nothing (null births, added references) do not.
Meters
    A peak moves only when it is exceeded, so ``peak_ns`` is 0 while a meter has only ever held allocations of 0
    bytes. Only the layer *host* is moved to ``NO_DEVICE``: managed and imported memory keep the device they carry.
Birth upon a live key
    Adding a reference comes first, whatever the flags. Otherwise the old allocation goes before the new one comes,
    so their sizes never add up in a peak. A displaced physical with mappings is counted in ``missed_frees`` like
    any other, but in ``deaths`` only when its last mapping goes.
Losing a key
    A physical without a key has ``references == 0`` and keeps ``address``, the key it had last.
Death
    The checks come in the order null, deferred, unknown. ``ABSENT`` counts ``absent`` before them, so whatever
    comes of it.
Mappings
    ``MAP`` removes the mapping that starts at the same address before it looks for the physical: a physical that
    only that mapping kept alive is gone by then. Mappings are taken as told also when they overlap or are empty.
    ``UNMAP`` removes those with ``address <= start < address + size`` in integers that do not wrap, in order of
    address. An unmapped range where nothing was is not counted.
``RETAIN_PHYSICAL`` of an unknown key
    The mapping asked is the one with the highest start that is not above ``handle``, if ``handle`` lies inside it
    (drivers accept any address within a mapping); mappings below it are not searched. Its physical takes the new
    key, and shows it as ``address``, only if it has none. In every other case, an event whose ``address`` is 0
    included, ``unknown_maps`` is counted.
Contexts
    Equality is all there is to it: context 0 is compared like any other, and references do not matter.
Spans
    The id and the parent are the low 32 bits of ``address`` and ``handle``; a parent need not exist, and any order
    of ends is accepted. An id counts as existing for ever. The limit of 64 counts the open spans that have meters;
    one that began beyond it never gets them, even when others end. A meter is nonzero at the begin when its
    *bytes* are; a row made by a birth begins with 0 bytes and the time of ``SPAN_BEGIN``. A row stays for good.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from gpumem_magic.model.events import BIRTHS, DEATHS, NO_DEVICE, EventFlag, Kind, Layer, layer_of
from gpumem_magic.model.tables import (
    ALLOCATION_DTYPE,
    COUNTERS,
    MAPPING_DTYPE,
    METER_DTYPE,
    NO_SERIAL,
    SITE_DTYPE,
    SPAN_DTYPE,
    SPAN_METER_DTYPE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_METERED_SPANS = 64
"""How many open spans keep meters of their own."""


class EventRow(Protocol):
    """Anything with the fields of EVENT_DTYPE: a row of an event array, or a dict."""

    def __getitem__(self, field: str, /) -> Any: ...


class ReferenceLedger:
    """The state after a stream of events, from the first of a recording on.

    Not thread-safe. The tables are fresh arrays in canonical order; changing them does not change the ledger.
    """

    def __init__(self) -> None:
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._by_key: dict[_Key, _Allocation] = {}
        self._by_serial: dict[int, _Allocation] = {}  # all that live, those without a key included
        self._mappings: dict[int, _Mapping] = {}  # by start
        self._sites: dict[_SiteKey, _Site] = collections.defaultdict(_Site)
        self._meters: dict[_MeterKey, _Meter] = collections.defaultdict(_Meter)
        self._spans: dict[int, _Span] = {}

    # Events

    def apply_all(self, events: Iterable[EventRow]) -> None:
        """Apply events in their order."""
        for event in events:
            self.apply(event)

    def apply(self, event: EventRow) -> None:
        """Apply the next event."""
        self._apply(_Event.of(event))
        self._counters["events"] += 1

    def _apply(self, event: _Event) -> None:
        if event.status != 0:
            self._counters["failures"] += 1
            self._sites[_SiteKey.of(event)].failed_count += 1
        elif event.kind in BIRTHS:
            self._birth(event)
        elif event.kind in DEATHS:
            self._death(event)
        else:
            self._mark(event)

    def _mark(self, event: _Event) -> None:
        match event.kind:
            case Kind.MAP:
                self._map(event)
            case Kind.UNMAP:
                self._unmap(event)
            case Kind.RETAIN_PHYSICAL:
                self._retain(event)
            case Kind.CONTEXT_DESTROY:
                self._destroy_context(event)
            case Kind.SPAN_BEGIN:
                self._begin_span(event)
            case Kind.SPAN_END:
                self._end_span(event)
            case Kind.GAP_BEGIN:
                self._counters["gaps"] += 1
            case unknown if unknown not in _KINDS:
                self._counters["unknown_kinds"] += 1

    # Births and deaths

    def _birth(self, event: _Event) -> None:
        if event.address == 0:
            self._counters["null_births"] += 1
            return
        key = _Key.of(event)
        old = self._by_key.get(key)
        if old is not None:
            if _adds_reference(event, old):
                old.references += 1
                return
            if not event.flags & EventFlag.REUSED:
                self._counters["missed_frees"] += 1
            self._drop_key(old)
        self._begin(key, event)

    def _death(self, event: _Event) -> None:
        if event.kind == Kind.ABSENT:
            self._counters["absent"] += 1
        if event.address == 0:
            self._counters["null_frees"] += 1
            return
        if event.flags & EventFlag.DEFERRED_FREE:
            self._counters["deferred_frees"] += 1
            return
        allocation = self._by_key.get(_Key.of(event))
        if allocation is None:
            self._counters["unknown_frees"] += 1
        elif allocation.references > 1 and event.kind != Kind.ABSENT:
            allocation.references -= 1
        else:
            self._drop_key(allocation)

    def _begin(self, key: _Key, event: _Event) -> None:
        """Bring a new allocation to life."""
        serial = self._counters["events"]
        allocation = _Allocation(birth=event, key=key, serial=serial, address=event.address)
        self._by_key[key] = self._by_serial[serial] = allocation
        self._counters["births"] += 1
        self._sites[_SiteKey.of(event)].add(event.size)
        meter_key = _MeterKey.of(event)
        self._meters[meter_key].add(event.size, event.time_ns)
        for span in self._metered_spans():
            span.row(meter_key).move(event.size, event.time_ns)

    def _end(self, allocation: _Allocation) -> None:
        """Take an allocation without a key out of the live set, for good."""
        assert allocation.key is None
        del self._by_serial[allocation.serial]
        self._counters["deaths"] += 1
        birth = allocation.birth
        self._sites[_SiteKey.of(birth)].take(birth.size)
        meter_key = _MeterKey.of(birth)
        self._meters[meter_key].take(birth.size)
        for span in self._metered_spans():
            if meter_key in span.meters:  # else it was zero all along: only allocations of 0 bytes end here
                span.meters[meter_key].move(-birth.size, 0)

    def _drop_key(self, allocation: _Allocation) -> None:
        """Nobody can find ``allocation`` by its key any more; it ends, unless mappings keep it alive."""
        assert allocation.key is not None
        del self._by_key[allocation.key]
        allocation.key = None
        allocation.references = 0
        if allocation.mappings == 0:
            self._end(allocation)

    # Virtual memory

    def _map(self, event: _Event) -> None:
        if event.address in self._mappings:
            self._remove_mapping(event.address)
        physical = self._by_key.get(_Key(_Space.PHYSICAL, event.handle))
        if physical is None:
            self._counters["unknown_maps"] += 1
        else:
            physical.mappings += 1
        serial = NO_SERIAL if physical is None else physical.serial
        self._mappings[event.address] = _Mapping(event.address, event.size, event.handle, serial)

    def _unmap(self, event: _Event) -> None:
        for start in sorted(self._mappings):
            if event.address <= start < event.address + event.size:
                self._remove_mapping(start)

    def _remove_mapping(self, start: int) -> None:
        mapping = self._mappings.pop(start)
        if mapping.serial == NO_SERIAL:
            return
        physical = self._by_serial[mapping.serial]
        physical.mappings -= 1
        if physical.references == 0 and physical.mappings == 0:
            self._end(physical)

    def _retain(self, event: _Event) -> None:
        key = _Key(_Space.PHYSICAL, event.address)
        physical = self._by_key.get(key)
        if physical is not None:
            physical.references += 1
            return
        physical = self._physical_mapped_at(event.handle)
        if physical is None or physical.key is not None or event.address == 0:
            self._counters["unknown_maps"] += 1
            return
        physical.key, physical.address, physical.references = key, event.address, 1
        self._by_key[key] = physical

    def _physical_mapped_at(self, address: int) -> _Allocation | None:
        start = max((start for start in self._mappings if start <= address), default=None)
        if start is None or address >= start + self._mappings[start].size:
            return None
        return self._by_serial.get(self._mappings[start].serial)

    # Contexts and spans

    def _destroy_context(self, event: _Event) -> None:
        for allocation in list(self._by_serial.values()):  # in order of serial: births only ever append
            if allocation.birth.context == event.context and _belongs_to_context(allocation):
                self._counters["context_deaths"] += 1
                self._drop_key(allocation)

    def _begin_span(self, event: _Event) -> None:
        span_id = event.address & _MAX_U32
        if span_id in self._spans:
            return
        is_metered = len(self._metered_spans()) < MAX_METERED_SPANS
        if not is_metered:
            self._counters["span_overflow"] += 1
        span = self._spans[span_id] = _Span(
            id=span_id,
            parent=event.handle & _MAX_U32,
            thread=event.thread,
            begin_ns=event.time_ns,
            is_metered=is_metered,
        )
        if is_metered:
            for key, meter in self._meters.items():
                if meter.live_bytes:
                    span.row(key, begin_bytes=meter.live_bytes)

    def _end_span(self, event: _Event) -> None:
        span = self._spans.get(event.address & _MAX_U32)
        if span is not None and span.is_open:
            span.is_open = False
            span.end_ns = event.time_ns

    def _metered_spans(self) -> list[_Span]:
        return [span for span in self._spans.values() if span.is_open and span.is_metered]

    # Tables

    @property
    def allocations(self) -> np.ndarray:
        """ALLOCATION_DTYPE: what lives, by serial."""
        return _table(ALLOCATION_DTYPE, [allocation.row() for allocation in self._by_serial.values()])

    @property
    def mappings(self) -> np.ndarray:
        """MAPPING_DTYPE, by address."""
        return _table(MAPPING_DTYPE, [mapping._asdict() for _, mapping in sorted(self._mappings.items())])

    @property
    def sites(self) -> np.ndarray:
        """SITE_DTYPE, by stack, cell, library, kind and device."""
        rows = [key._asdict() | dataclasses.asdict(site) for key, site in sorted(self._sites.items())]
        return _table(SITE_DTYPE, rows)

    @property
    def meters(self) -> np.ndarray:
        """METER_DTYPE, by device and layer; those that ever had a birth."""
        rows = [key._asdict() | dataclasses.asdict(meter) for key, meter in sorted(self._meters.items())]
        return _table(METER_DTYPE, rows)

    @property
    def spans(self) -> np.ndarray:
        """SPAN_DTYPE, by id."""
        return _table(SPAN_DTYPE, [span.as_row() for _, span in sorted(self._spans.items())])

    @property
    def span_meters(self) -> np.ndarray:
        """SPAN_METER_DTYPE, by span, device and layer."""
        rows = [
            {"span": span.id} | key._asdict() | dataclasses.asdict(meter)
            for _, span in sorted(self._spans.items())
            for key, meter in sorted(span.meters.items())
        ]
        return _table(SPAN_METER_DTYPE, rows)

    @property
    def counters(self) -> dict[str, int]:
        """Every name of COUNTERS, in that order."""
        return dict(self._counters)

    # Invariants

    def self_check(self) -> None:
        """Assert everything that must hold after each event."""
        self._check_keys()
        self._check_mappings()
        self._check_sites()
        self._check_meters()
        self._check_spans()
        self._check_counters()

    def _check_keys(self) -> None:
        with_key = {allocation.key: allocation for allocation in self._by_serial.values() if allocation.key}
        assert with_key == self._by_key, "a live allocation is filed under another key than its own"
        assert list(self._by_serial) == sorted(self._by_serial), "allocations are out of order"
        for serial, allocation in self._by_serial.items():
            assert allocation.serial == serial < self._counters["events"], f"{serial} is not the index of an event"
            if allocation.key is None:
                assert allocation.references == 0, f"{serial} has references that nobody can give back"
                assert allocation.mappings > 0, f"{serial} lives without references and mappings"
            else:
                assert allocation.references > 0, f"{serial} has a key without a reference"
                own_key = _Key(_SPACES[allocation.birth.kind], allocation.address)
                assert allocation.key == own_key, f"{serial} has {allocation.key}, not {own_key}"
                assert allocation.address != 0, f"{serial} is the null pointer"

    def _check_mappings(self) -> None:
        counts = collections.Counter(mapping.serial for mapping in self._mappings.values())
        del counts[NO_SERIAL]
        mapped = {serial: each.mappings for serial, each in self._by_serial.items() if each.mappings}
        assert mapped == counts, f"allocations count {mapped} mappings, there are {dict(counts)}"
        spaces = {_SPACES[self._by_serial[serial].birth.kind] for serial in mapped}
        assert spaces <= {_Space.PHYSICAL}, "something is mapped that is not physical memory"

    def _check_sites(self) -> None:
        live = _sums((_SiteKey.of(each.birth), each.birth.size) for each in self._by_serial.values())
        for key, site in self._sites.items():
            remains = (site.allocated_count - site.freed_count, site.live_bytes)
            assert remains == live.pop(key, (0, 0)), f"{key} disagrees with the live set"
            assert 0 <= site.live_bytes <= site.peak_bytes <= site.allocated_bytes, f"{key} has a wrong peak"
            assert site.allocated_count or site.failed_count, f"{key} never saw an event"
            assert key.kind in BIRTHS or not site.allocated_count, f"{key} is of a kind that allocates nothing"
        assert not live, f"{live} belongs to no site"

    def _check_meters(self) -> None:
        live = _sums((_MeterKey.of(each.birth), each.birth.size) for each in self._by_serial.values())
        births = [(key, site) for key, site in self._sites.items() if site.allocated_count]
        allocated = _sums((_MeterKey.of(key), site.allocated_bytes) for key, site in births)
        assert set(self._meters) == set(allocated), "meters and sites disagree on what ever had a birth"
        for key, meter in self._meters.items():
            assert (meter.live_count, meter.live_bytes) == live.pop(key, (0, 0)), f"{key} disagrees with the live set"
            assert meter.allocated_bytes == allocated[key][1], f"{key} disagrees with its sites"
            assert meter.allocated_bytes - meter.freed_bytes == meter.live_bytes, f"{key} does not add up"
            assert meter.live_bytes <= meter.peak_bytes <= meter.allocated_bytes, f"{key} has a wrong peak"
            assert key.layer != Layer.HOST or key.device == NO_DEVICE, f"{key}: host memory on a device"
        assert not live, f"{live} belongs to no meter"

    def _check_spans(self) -> None:
        assert len(self._metered_spans()) <= MAX_METERED_SPANS, "too many spans have meters"
        for span in self._spans.values():
            assert span.is_metered or not span.meters, f"span {span.id} began beyond the limit and has meters"
            assert not span.is_open or span.end_ns == 0, f"span {span.id} is open and has ended"
            for key, row in span.meters.items():
                meter = self._meters[key]
                highest = max(row.begin_bytes, row.end_bytes)
                assert highest <= row.peak_bytes <= meter.peak_bytes, f"span {span.id} {key} has a wrong peak"
                assert row.peak_ns >= span.begin_ns, f"span {span.id} {key} peaked before it began"
                assert not span.is_open or row.end_bytes == meter.live_bytes, f"span {span.id} {key} lags behind"

    def _check_counters(self) -> None:
        counters, sites = self._counters, self._sites.values()
        assert tuple(counters) == COUNTERS, "a counter is missing or has a wrong name"
        assert counters["births"] - counters["deaths"] == len(self._by_serial), "births - deaths is not what lives"
        assert counters["births"] == sum(site.allocated_count for site in sites), "births disagree with sites"
        assert counters["deaths"] == sum(site.freed_count for site in sites), "deaths disagree with sites"
        assert counters["failures"] == sum(site.failed_count for site in sites), "failures disagree with sites"
        assert counters["context_deaths"] <= counters["deaths"], "more ended with contexts than ended"
        counted = sum(counters[name] for name in _AT_MOST_ONE_PER_EVENT)
        assert counted <= counters["events"], f"{counted} events are counted, there were {counters['events']}"


_AT_MOST_ONE_PER_EVENT = frozenset(COUNTERS) - {"events", "deaths", "context_deaths", "missed_frees", "absent"}


# What an event says


class _Event(NamedTuple):
    """The fields that the rules read, as Python integers, so that nothing wraps."""

    time_ns: int
    address: int
    size: int
    handle: int
    stack: int
    cell: int
    thread: int
    context: int
    stream: int
    status: int
    library: int
    function: int
    kind: int
    device: int
    flags: int

    @classmethod
    def of(cls, event: EventRow) -> _Event:
        return cls(*(int(event[field]) for field in cls._fields))


class _Space(enum.Enum):
    """Values mean different things in different spaces: an array's handle may equal a pointer."""

    ADDRESS = enum.auto()
    PHYSICAL = enum.auto()
    ARRAY = enum.auto()
    MIPMAP = enum.auto()
    EXTERNAL = enum.auto()


_SPACES: dict[int, _Space] = dict.fromkeys([*range(1, 11), *range(32, 38), int(Kind.ABSENT)], _Space.ADDRESS) | {
    Kind.CREATE_PHYSICAL: _Space.PHYSICAL,
    Kind.IMPORT_PHYSICAL: _Space.PHYSICAL,
    Kind.RELEASE_PHYSICAL: _Space.PHYSICAL,
    Kind.CREATE_ARRAY: _Space.ARRAY,
    Kind.DESTROY_ARRAY: _Space.ARRAY,
    Kind.CREATE_MIPMAP: _Space.MIPMAP,
    Kind.DESTROY_MIPMAP: _Space.MIPMAP,
    Kind.IMPORT_EXTERNAL: _Space.EXTERNAL,
    Kind.DESTROY_EXTERNAL: _Space.EXTERNAL,
}
assert set(_SPACES) == BIRTHS | DEATHS, "every birth and every death has a space"

_KINDS = frozenset(Kind)
_MAX_U32 = 2**32 - 1


def _adds_reference(event: _Event, old: _Allocation) -> bool:
    """Whether a birth upon the live key of ``old`` opens the same thing once more."""
    if event.kind == Kind.IMPORT_IPC:
        return old.birth.kind == Kind.IMPORT_IPC
    return event.kind == Kind.IMPORT_PHYSICAL


def _belongs_to_context(allocation: _Allocation) -> bool:
    """Whether the end of the context of its birth ends ``allocation``."""
    in_pool = allocation.birth.kind in (Kind.ALLOC_ASYNC, Kind.ALLOC_POOL)
    return not in_pool and _SPACES[allocation.birth.kind] is not _Space.PHYSICAL


class _Key(NamedTuple):
    """Under which a live thing is found."""

    space: _Space
    value: int

    @classmethod
    def of(cls, event: _Event) -> _Key:
        return cls(_SPACES[event.kind], event.address)


class _SiteKey(NamedTuple):
    stack: int
    cell: int
    library: int
    kind: int
    device: int

    @classmethod
    def of(cls, event: _Event) -> _SiteKey:
        return cls(event.stack, event.cell, event.library, event.kind, event.device)


class _MeterKey(NamedTuple):
    device: int
    layer: int

    @classmethod
    def of(cls, birth: _Event | _SiteKey) -> _MeterKey:
        layer = layer_of(birth.kind, birth.device)
        return cls(NO_DEVICE if layer is Layer.HOST else birth.device, layer)


_AnyKey = TypeVar("_AnyKey", _SiteKey, _MeterKey)


# What the ledger keeps


@dataclasses.dataclass(slots=True, kw_only=True)
class _Allocation:
    birth: _Event
    key: _Key | None  # None when only mappings keep it alive
    serial: int
    address: int  # the key's value, or the last one's
    references: int = 1
    mappings: int = 0

    def row(self) -> dict[str, int]:
        kept = {field: value for field, value in self.birth._asdict().items() if field in _ALLOCATION_FIELDS}
        return kept | {
            "address": self.address,
            "birth_ns": self.birth.time_ns,
            "serial": self.serial,
            "references": self.references,
            "mappings": self.mappings,
        }


_ALLOCATION_FIELDS = frozenset(ALLOCATION_DTYPE.names or ())


class _Mapping(NamedTuple):
    address: int
    size: int
    handle: int
    serial: int


@dataclasses.dataclass(slots=True)
class _Site:
    allocated_count: int = 0
    allocated_bytes: int = 0
    freed_count: int = 0
    freed_bytes: int = 0
    peak_bytes: int = 0
    failed_count: int = 0

    @property
    def live_bytes(self) -> int:
        return self.allocated_bytes - self.freed_bytes

    def add(self, size: int) -> None:
        self.allocated_count += 1
        self.allocated_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def take(self, size: int) -> None:
        self.freed_count += 1
        self.freed_bytes += size


@dataclasses.dataclass(slots=True)
class _Meter:
    live_count: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0
    peak_ns: int = 0
    allocated_bytes: int = 0
    freed_bytes: int = 0

    def add(self, size: int, time_ns: int) -> None:
        self.live_count += 1
        self.live_bytes += size
        self.allocated_bytes += size
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_ns = self.live_bytes, time_ns

    def take(self, size: int) -> None:
        self.live_count -= 1
        self.live_bytes -= size
        self.freed_bytes += size


@dataclasses.dataclass(slots=True)
class _SpanMeter:
    begin_bytes: int
    end_bytes: int
    peak_bytes: int
    peak_ns: int

    def move(self, change: int, time_ns: int) -> None:
        self.end_bytes += change
        if self.end_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_ns = self.end_bytes, time_ns


@dataclasses.dataclass(slots=True, kw_only=True)
class _Span:
    id: int
    parent: int
    thread: int
    begin_ns: int
    is_metered: bool
    end_ns: int = 0
    is_open: bool = True
    meters: dict[_MeterKey, _SpanMeter] = dataclasses.field(default_factory=dict)

    def row(self, key: _MeterKey, begin_bytes: int = 0) -> _SpanMeter:
        """The span's own meter; a new one starts from ``begin_bytes`` at the begin of the span."""
        start = _SpanMeter(begin_bytes, begin_bytes, begin_bytes, self.begin_ns)
        return self.meters.setdefault(key, start)

    def as_row(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("id", "parent", "thread", "begin_ns", "end_ns")}


def _sums(sizes: Iterable[tuple[_AnyKey, int]]) -> dict[_AnyKey, tuple[int, int]]:
    """Count and bytes per key."""
    sums: dict[_AnyKey, tuple[int, int]] = {}
    for key, size in sizes:
        count, total = sums.get(key, (0, 0))
        sums[key] = (count + 1, total + size)
    return sums


def _table(dtype: np.dtype, rows: Sequence[Mapping[str, int]]) -> np.ndarray:
    """An array of ``rows``; fields that a row lacks are reserved and 0."""
    table = np.zeros(len(rows), dtype)
    for position, row in enumerate(rows):
        for field, value in row.items():
            table[field][position] = value
    return table
