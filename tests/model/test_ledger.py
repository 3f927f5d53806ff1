"""Each rule of "How the ledger reads events", with exact numbers. Event i has the time 10 * (i + 1) ns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.model.events import BIRTHS, DEATHS, NO_DEVICE, EventFlag, Kind, Layer
from gpumem_magic.model.ledger import MAX_METERED_SPANS, ReferenceLedger
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

from .streams import alloc, begin, counted, create, end, event, free, ledger_of, map_, release, rows, stream_of, unmap

if TYPE_CHECKING:
    import numpy as np

SPACES = {
    "address": (range(1, 11), (*range(32, 38), Kind.ABSENT)),
    "physical": ((Kind.CREATE_PHYSICAL, Kind.IMPORT_PHYSICAL), (Kind.RELEASE_PHYSICAL,)),
    "array": ((Kind.CREATE_ARRAY,), (Kind.DESTROY_ARRAY,)),
    "mipmap": ((Kind.CREATE_MIPMAP,), (Kind.DESTROY_MIPMAP,)),
    "external": ((Kind.IMPORT_EXTERNAL,), (Kind.DESTROY_EXTERNAL,)),
}
PAIRS = [
    (birth, death, birth_space == death_space)
    for birth_space, (births, _) in SPACES.items()
    for death_space, (_, deaths) in SPACES.items()
    for birth in births
    for death in deaths
]


def retain(handle: int, mapped_at: int, **fields: int) -> np.void:
    return event(Kind.RETAIN_PHYSICAL, handle, handle=mapped_at, **fields)


def import_ipc(address: int, size: int = 0, **fields: int) -> np.void:
    return event(Kind.IMPORT_IPC, address, size, **fields)


def live(ledger: ReferenceLedger) -> list[int]:
    """Serials of what lives."""
    return rows(ledger.allocations, "serial")


def test_an_empty_ledger_has_empty_tables_of_the_right_layout() -> None:
    ledger = ledger_of()
    assert ledger.counters == dict.fromkeys(COUNTERS, 0)
    assert tuple(ledger.counters) == COUNTERS
    tables = (ledger.allocations, ledger.mappings, ledger.sites, ledger.meters, ledger.spans, ledger.span_meters)
    layouts = (ALLOCATION_DTYPE, MAPPING_DTYPE, SITE_DTYPE, METER_DTYPE, SPAN_DTYPE, SPAN_METER_DTYPE)
    assert [(len(table), table.dtype) for table in tables] == [(0, layout) for layout in layouts]


def test_a_birth_keeps_every_field_of_its_event() -> None:
    birth = event(
        Kind.ALLOC_POOL, 0x7F00_0000_0000, 4096, time_ns=77, handle=0xABC, stack=1, cell=2, thread=3, context=4,
        stream=5, library=6, function=7, device=8, flags=EventFlag.BACKGROUND | EventFlag.HOST_LOCATION, reserved=9,
    )  # fmt: skip
    ledger = ledger_of(birth)
    (row,) = ledger.allocations
    assert {name: int(row[name]) for name in ALLOCATION_DTYPE.names or ()} == {
        "address": 0x7F00_0000_0000, "size": 4096, "birth_ns": 77, "handle": 0xABC, "serial": 0, "references": 1,
        "mappings": 0, "stack": 1, "cell": 2, "thread": 3, "context": 4, "stream": 5, "library": 6, "function": 7,
        "kind": 5, "device": 8, "flags": 9, "reserved": 0,
    }  # fmt: skip
    assert counted(ledger) == {"births": 1}


def test_an_event_may_be_any_mapping_of_fields() -> None:
    birth = dict.fromkeys(("stack", "cell", "thread", "context", "stream", "status", "library", "function"), 0)
    ledger = ReferenceLedger()
    ledger.apply(birth | {"time_ns": 1, "address": 2, "size": 3, "handle": 0, "kind": 1, "device": 0, "flags": 0})
    assert rows(ledger.allocations, "address", "size", "birth_ns") == [(2, 3, 1)]


def test_apply_all_applies_each_event_in_order() -> None:
    ledger = ReferenceLedger()
    ledger.apply_all(stream_of([alloc(1, 10), free(1), alloc(1, 20)]))
    assert rows(ledger.allocations, "serial", "size") == [(2, 20)]
    assert ledger.counters["events"] == 3


class TestKeys:
    def test_every_birth_and_death_has_a_space(self) -> None:
        assert {kind for births, _ in SPACES.values() for kind in births} == BIRTHS
        assert {kind for _, deaths in SPACES.values() for kind in deaths} == DEATHS

    @pytest.mark.parametrize(("birth", "death", "same_space"), PAIRS)
    def test_a_death_finds_births_of_its_own_space_only(self, *, birth: int, death: int, same_space: bool) -> None:
        ledger = ledger_of(event(birth, 0x1000, 10), event(death, 0x1000))
        assert live(ledger) == ([] if same_space else [0])
        assert ledger.counters["deaths"] == (1 if same_space else 0)
        assert ledger.counters["unknown_frees"] == (0 if same_space else 1)

    def test_the_same_value_lives_once_in_each_space(self) -> None:
        births = (Kind.ALLOC, Kind.CREATE_PHYSICAL, Kind.CREATE_ARRAY, Kind.CREATE_MIPMAP, Kind.IMPORT_EXTERNAL)
        ledger = ledger_of(*(event(kind, 0x1000, 10) for kind in births))
        assert live(ledger) == [0, 1, 2, 3, 4]
        assert counted(ledger) == {"births": 5}


class TestFailures:
    def test_a_failed_birth_counts_in_its_site_and_nowhere_else(self) -> None:
        ledger = ledger_of(alloc(0x1000, 10, status=2, stack=3, cell=4, library=5, device=1))
        assert counted(ledger) == {"failures": 1}
        fields = ("stack", "cell", "library", "kind", "device", "allocated_count", "peak_bytes", "failed_count")
        assert rows(ledger.sites, *fields) == [(3, 4, 5, 1, 1, 0, 0, 1)]
        assert len(ledger.meters) == 0

    def test_a_failed_birth_shares_the_site_of_successful_ones(self) -> None:
        ledger = ledger_of(alloc(1, 10), alloc(2, 20, status=2), alloc(0, 20, status=2))
        assert rows(ledger.sites, "allocated_count", "allocated_bytes", "failed_count") == [(1, 10, 2)]

    @pytest.mark.parametrize("kind", [*Kind, 0, 50, 200])
    def test_a_failed_event_of_any_kind_only_counts(self, kind: int) -> None:
        before = (alloc(1, 10), create(1, 10), map_(0x1000, 10, 1), begin(1))
        flags = EventFlag.DEFERRED_FREE
        ledger, unchanged = ledger_of(*before, event(kind, 1, 10, status=1, flags=flags, device=9)), ledger_of(*before)
        assert counted(ledger) == counted(unchanged) | {"failures": 1}
        assert rows(ledger.sites, "kind", "failed_count") == sorted([(1, 0), (11, 0), (kind, 1)])
        for table in ("allocations", "mappings", "meters", "spans", "span_meters"):
            assert getattr(ledger, table).tolist() == getattr(unchanged, table).tolist()


class TestSites:
    def test_births_and_deaths_add_up_and_the_peak_stays(self) -> None:
        ledger = ledger_of(alloc(1, 10), alloc(2, 20), free(1), alloc(3, 5), free(2), free(3))
        fields = ("allocated_count", "allocated_bytes", "freed_count", "freed_bytes", "peak_bytes", "failed_count")
        assert rows(ledger.sites, *fields) == [(3, 35, 3, 35, 30, 0)]

    def test_a_death_counts_at_the_site_of_the_birth(self) -> None:
        ledger = ledger_of(alloc(1, 10, stack=1, cell=1), free(1, stack=2, cell=2, library=9, device=7))
        assert rows(ledger.sites, "stack", "cell", "freed_count", "freed_bytes") == [(1, 1, 1, 10)]

    def test_sites_differ_in_each_of_their_fields_and_are_sorted_by_them(self) -> None:
        callers = [(2, 0, 0, 1, 0), (0, 2, 0, 1, 0), (0, 0, 2, 1, 0), (0, 0, 0, 2, 0), (0, 0, 0, 1, 2), (0, 0, 0, 1, 0)]
        names = ("stack", "cell", "library", "kind", "device")
        births = [
            event(address=address, size=1, **dict(zip(names, caller, strict=True)))
            for address, caller in enumerate(callers, start=1)
        ]
        ledger = ledger_of(*births, *births[:1])
        assert rows(ledger.sites, *names) == sorted(callers)
        assert rows(ledger.sites, "stack", "allocated_count")[-1] == (2, 2)

    def test_the_site_keeps_the_device_of_host_memory(self) -> None:
        ledger = ledger_of(event(Kind.ALLOC_HOST, 1, 10, device=3))
        assert rows(ledger.sites, "device") == [3]
        assert rows(ledger.meters, "device", "layer") == [(NO_DEVICE, Layer.HOST)]


class TestMeters:
    def test_a_meter_adds_up_and_keeps_the_time_of_its_peak(self) -> None:
        ledger = ledger_of(alloc(1, 10), alloc(2, 20), free(2), alloc(3, 5))
        fields = ("live_count", "live_bytes", "peak_bytes", "peak_ns", "allocated_bytes", "freed_bytes")
        assert rows(ledger.meters, *fields) == [(2, 15, 30, 20, 35, 20)]

    def test_a_peak_that_is_reached_again_keeps_its_first_time(self) -> None:
        ledger = ledger_of(alloc(1, 10), free(1), alloc(1, 10))
        assert rows(ledger.meters, "peak_bytes", "peak_ns") == [(10, 10)]
        ledger = ledger_of(alloc(1, 10), free(1), alloc(1, 11))
        assert rows(ledger.meters, "peak_bytes", "peak_ns") == [(11, 30)]

    def test_a_meter_of_empty_allocations_has_a_row_and_no_peak(self) -> None:
        ledger = ledger_of(alloc(1, 0))
        assert rows(ledger.meters, "live_count", "live_bytes", "peak_bytes", "peak_ns") == [(1, 0, 0, 0)]

    def test_a_meter_stays_when_everything_is_freed(self) -> None:
        ledger = ledger_of(alloc(1, 10, device=1), free(1))
        assert rows(ledger.meters, "device", "live_count", "live_bytes", "freed_bytes") == [(1, 0, 0, 10)]

    def test_there_is_one_meter_per_device_and_layer_in_order(self) -> None:
        ledger = ledger_of(
            event(Kind.REGISTER_HOST, 1, 1, device=1),
            event(Kind.ALLOC_MANAGED, 2, 2, device=1),
            event(Kind.ALLOC, 3, 3, device=1),
            event(Kind.ALLOC_ASYNC, 4, 4, device=0),
            event(Kind.MAP_EXTERNAL, 5, 5, device=0),
            event(Kind.ALLOC_HOST, 6, 6, device=0),
        )
        assert rows(ledger.meters, "device", "layer", "live_count", "live_bytes") == [
            (0, Layer.DEVICE, 1, 4),
            (0, Layer.IMPORTED, 1, 5),
            (1, Layer.DEVICE, 1, 3),
            (1, Layer.MANAGED, 1, 2),
            (NO_DEVICE, Layer.HOST, 2, 7),
        ]

    def test_device_memory_without_a_device_is_host_memory(self) -> None:
        ledger = ledger_of(create(1, 10, device=NO_DEVICE), event(Kind.ALLOC_MANAGED, 1, 20, device=NO_DEVICE))
        assert rows(ledger.meters, "device", "layer", "live_bytes") == [
            (NO_DEVICE, Layer.MANAGED, 20),
            (NO_DEVICE, Layer.HOST, 10),
        ]

    def test_the_flag_for_a_host_location_alone_moves_nothing(self) -> None:
        ledger = ledger_of(create(1, 10, device=0, flags=EventFlag.HOST_LOCATION))
        assert rows(ledger.meters, "device", "layer") == [(0, Layer.DEVICE)]


class TestBirth:
    @pytest.mark.parametrize("kind", sorted(BIRTHS))
    def test_a_null_birth_is_counted_and_does_nothing(self, kind: int) -> None:
        ledger = ledger_of(event(kind, 0, 10))
        assert counted(ledger) == {"null_births": 1}
        assert (len(ledger.allocations), len(ledger.sites), len(ledger.meters)) == (0, 0, 0)

    def test_a_live_address_was_freed_unseen(self) -> None:
        ledger = ledger_of(alloc(1, 10), event(Kind.ALLOC_ASYNC, 1, 20))
        assert counted(ledger) == {"births": 2, "deaths": 1, "missed_frees": 1}
        assert rows(ledger.allocations, "serial", "kind", "size") == [(1, Kind.ALLOC_ASYNC, 20)]
        assert rows(ledger.sites, "kind", "freed_bytes") == [(Kind.ALLOC, 10), (Kind.ALLOC_ASYNC, 0)]

    def test_a_reused_address_missed_nothing(self) -> None:
        ledger = ledger_of(alloc(1, 10), alloc(1, 20, flags=EventFlag.REUSED), free(1, flags=EventFlag.DEFERRED_FREE))
        assert counted(ledger) == {"births": 2, "deaths": 1, "deferred_frees": 1}
        assert rows(ledger.allocations, "serial", "size") == [(1, 20)]

    def test_the_old_one_goes_before_the_new_one_comes(self) -> None:
        ledger = ledger_of(alloc(1, 10), alloc(1, 15))
        assert rows(ledger.meters, "peak_bytes", "peak_ns") == [(15, 20)]
        assert rows(ledger.sites, "peak_bytes") == [15]

    def test_the_flag_reused_upon_a_new_key_means_nothing(self) -> None:
        assert counted(ledger_of(alloc(1, 10, flags=EventFlag.REUSED))) == {"births": 1}

    @pytest.mark.parametrize("flags", [0, EventFlag.REUSED])
    def test_opening_ipc_memory_again_adds_a_reference_only(self, flags: int) -> None:
        ledger = ledger_of(import_ipc(1, 10, stack=1), import_ipc(1, 99, stack=2, device=1, flags=flags))
        assert counted(ledger) == {"births": 1}
        assert rows(ledger.allocations, "serial", "size", "references", "stack") == [(0, 10, 2, 1)]
        assert rows(ledger.sites, "stack", "allocated_count") == [(1, 1)]
        assert rows(ledger.meters, "live_bytes", "allocated_bytes") == [(10, 10)]

    @pytest.mark.parametrize(("old", "new"), [(Kind.ALLOC, Kind.IMPORT_IPC), (Kind.IMPORT_IPC, Kind.ALLOC)])
    def test_ipc_memory_and_other_memory_displace_each_other(self, old: int, new: int) -> None:
        ledger = ledger_of(event(old, 1, 10), event(new, 1, 20))
        assert counted(ledger) == {"births": 2, "deaths": 1, "missed_frees": 1}

    def test_displacing_ends_all_references_at_once(self) -> None:
        ledger = ledger_of(import_ipc(1, 10), import_ipc(1), import_ipc(1), alloc(1, 20))
        assert counted(ledger) == {"births": 2, "deaths": 1, "missed_frees": 1}
        assert rows(ledger.allocations, "serial", "references") == [(3, 1)]

    @pytest.mark.parametrize("first", [Kind.CREATE_PHYSICAL, Kind.IMPORT_PHYSICAL])
    def test_importing_a_known_physical_adds_a_reference_only(self, first: int) -> None:
        ledger = ledger_of(event(first, 1, 10), event(Kind.IMPORT_PHYSICAL, 1, 99))
        assert counted(ledger) == {"births": 1}
        assert rows(ledger.allocations, "kind", "size", "references") == [(first, 10, 2)]

    @pytest.mark.parametrize("first", [Kind.CREATE_PHYSICAL, Kind.IMPORT_PHYSICAL])
    def test_creating_a_known_physical_displaces_it(self, first: int) -> None:
        ledger = ledger_of(event(first, 1, 10), create(1, 20))
        assert counted(ledger) == {"births": 2, "deaths": 1, "missed_frees": 1}

    @pytest.mark.parametrize(("flags", "missed"), [(0, 1), (EventFlag.REUSED, 0)])
    def test_a_displaced_physical_lives_on_while_it_is_mapped(self, flags: int, missed: int) -> None:
        events = (create(1, 10), map_(0x1000, 10, 1), create(1, 20, flags=flags))
        ledger = ledger_of(*events)
        assert (ledger.counters["missed_frees"], ledger.counters["deaths"]) == (missed, 0)
        assert rows(ledger.allocations, "serial", "references", "mappings") == [(0, 0, 1), (2, 1, 0)]
        ledger = ledger_of(*events, unmap(0x1000, 10))
        assert live(ledger) == [2]
        assert ledger.counters["deaths"] == 1

    def test_serials_are_indices_of_events_and_order_the_table(self) -> None:
        ledger = ledger_of(event(Kind.GAP_END), alloc(9), alloc(8), free(8), alloc(7))
        assert rows(ledger.allocations, "serial", "address") == [(1, 9), (4, 7)]


class TestDeath:
    @pytest.mark.parametrize("kind", sorted(DEATHS - {Kind.ABSENT}))
    def test_a_null_free_is_counted(self, kind: int) -> None:
        assert counted(ledger_of(event(kind, 0, flags=EventFlag.DEFERRED_FREE))) == {"null_frees": 1}

    def test_a_deferred_free_leaves_the_present_owner_alone(self) -> None:
        ledger = ledger_of(alloc(1, 10), free(1, flags=EventFlag.DEFERRED_FREE))
        assert counted(ledger) == {"births": 1, "deferred_frees": 1}
        assert live(ledger) == [0]

    def test_a_deferred_free_of_nothing_is_not_unknown(self) -> None:
        assert counted(ledger_of(free(1, flags=EventFlag.DEFERRED_FREE))) == {"deferred_frees": 1}

    def test_the_second_free_is_unknown(self) -> None:
        assert counted(ledger_of(alloc(1, 10), free(1), free(1))) == {"births": 1, "deaths": 1, "unknown_frees": 1}

    def test_an_address_inside_an_allocation_is_unknown(self) -> None:
        assert counted(ledger_of(alloc(0x1000, 0x1000), free(0x1001))) == {"births": 1, "unknown_frees": 1}

    def test_references_are_given_back_one_by_one(self) -> None:
        opened = (import_ipc(1, 10), import_ipc(1), import_ipc(1))
        close = event(Kind.CLOSE_IPC, 1)
        assert rows(ledger_of(*opened, close).allocations, "references") == [2]
        assert rows(ledger_of(*opened, close, close).allocations, "references") == [1]
        ledger = ledger_of(*opened, close, close, close)
        assert counted(ledger) == {"births": 1, "deaths": 1}
        assert live(ledger) == []

    def test_absent_ends_it_whatever_its_references(self) -> None:
        ledger = ledger_of(import_ipc(1, 10), import_ipc(1), event(Kind.ABSENT, 1))
        assert counted(ledger) == {"births": 1, "deaths": 1, "absent": 1}

    def test_absent_is_counted_whatever_comes_of_it(self) -> None:
        assert counted(ledger_of(event(Kind.ABSENT, 1))) == {"absent": 1, "unknown_frees": 1}
        assert counted(ledger_of(event(Kind.ABSENT, 0))) == {"absent": 1, "null_frees": 1}
        deferred = event(Kind.ABSENT, 1, flags=EventFlag.DEFERRED_FREE)
        assert counted(ledger_of(deferred)) == {"absent": 1, "deferred_frees": 1}

    def test_a_released_physical_lives_until_its_last_mapping_goes(self) -> None:
        events = [create(1, 10), map_(0x1000, 10, 1), map_(0x2000, 10, 1), release(1)]
        ledger = ledger_of(*events)
        assert counted(ledger) == {"births": 1}
        assert rows(ledger.allocations, "address", "references", "mappings") == [(1, 0, 2)]
        assert rows(ledger.meters, "live_bytes") == [10]
        events.append(unmap(0x1000, 10))
        assert rows(ledger_of(*events).allocations, "references", "mappings") == [(0, 1)]
        events.append(unmap(0x2000, 10))
        assert counted(ledger_of(*events)) == {"births": 1, "deaths": 1}

    def test_a_released_physical_has_no_key(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 10, 1), release(1), release(1))
        assert counted(ledger) == {"births": 1, "unknown_frees": 1}
        ledger = ledger_of(create(1, 10), map_(0x1000, 10, 1), release(1), create(1, 20))
        assert counted(ledger) == {"births": 2}
        assert rows(ledger.allocations, "serial", "references", "mappings") == [(0, 0, 1), (3, 1, 0)]

    def test_an_unmapped_physical_lives_until_its_release(self) -> None:
        events = (create(1, 10), map_(0x1000, 10, 1), unmap(0x1000, 10))
        assert rows(ledger_of(*events).allocations, "references", "mappings") == [(1, 0)]
        assert counted(ledger_of(*events, release(1))) == {"births": 1, "deaths": 1}

    def test_a_mapped_physical_with_two_references_loses_one(self) -> None:
        ledger = ledger_of(create(1, 10), retain(1, 0), map_(0x1000, 10, 1), release(1))
        assert rows(ledger.allocations, "references", "mappings") == [(1, 1)]


class TestMap:
    def test_a_mapping_refers_to_the_physical_of_its_handle(self) -> None:
        ledger = ledger_of(create(7, 10), map_(0x2000, 30, 7), map_(0x1000, 20, 7))
        assert rows(ledger.mappings, "address", "size", "handle", "serial") == [(0x1000, 20, 7, 0), (0x2000, 30, 7, 0)]
        assert rows(ledger.allocations, "mappings") == [2]
        assert counted(ledger) == {"births": 1}

    def test_a_mapping_of_an_unknown_handle_refers_to_nothing_for_good(self) -> None:
        ledger = ledger_of(alloc(7, 10), map_(0x1000, 20, 7), create(7, 10))
        assert rows(ledger.mappings, "address", "handle", "serial") == [(0x1000, 7, NO_SERIAL)]
        assert rows(ledger.allocations, "mappings") == [0, 0]
        assert counted(ledger) == {"births": 2, "unknown_maps": 1}

    def test_the_mapping_at_the_same_start_is_removed_first(self) -> None:
        ledger = ledger_of(create(1, 10), create(2, 10), map_(0x1000, 10, 1), map_(0x1000, 20, 2))
        assert rows(ledger.mappings, "address", "size", "serial") == [(0x1000, 20, 1)]
        assert rows(ledger.allocations, "mappings") == [0, 1]

    def test_removing_it_ends_a_physical_that_only_it_kept_alive(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 10, 1), release(1), map_(0x1000, 10, 1))
        assert counted(ledger) == {"births": 1, "deaths": 1, "unknown_maps": 1}
        assert rows(ledger.mappings, "serial") == [NO_SERIAL]

    def test_mappings_that_overlap_are_taken_as_told(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 0x2000, 1), map_(0x2000, 0x2000, 1))
        assert rows(ledger.mappings, "address") == [0x1000, 0x2000]

    def test_a_mapping_changes_no_meter(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 10, 1), map_(0x2000, 10, 1))
        assert rows(ledger.meters, "live_count", "live_bytes") == [(1, 10)]


class TestUnmap:
    MAPPED = (create(1, 10), map_(0x1000, 0x1000, 1), map_(0x2000, 0x1000, 1), map_(0x3000, 0x1000, 1))

    @pytest.mark.parametrize(
        ("address", "size", "left"),
        [
            (0x1000, 0x3000, []),
            (0x1000, 0x2001, []),
            (0x1000, 0x2000, [0x3000]),
            (0x2000, 1, [0x1000, 0x3000]),
            (0x1001, 0xFFF, [0x1000, 0x2000, 0x3000]),
            (0x1001, 0x1000, [0x1000, 0x3000]),
            (0x2000, 0, [0x1000, 0x2000, 0x3000]),
            (0, 2**48, []),
        ],
    )
    def test_what_starts_inside_goes(self, address: int, size: int, left: list[int]) -> None:
        ledger = ledger_of(*self.MAPPED, unmap(address, size))
        assert rows(ledger.mappings, "address") == left
        assert rows(ledger.allocations, "mappings") == [len(left)]
        assert counted(ledger) == {"births": 1}

    def test_a_range_does_not_wrap_around(self) -> None:
        top = 2**64 - 0x1000
        ledger = ledger_of(*self.MAPPED, map_(top, 0x1000, 1), unmap(top, 2**48))
        assert rows(ledger.mappings, "address") == [0x1000, 0x2000, 0x3000]

    def test_a_range_without_mappings_is_not_counted(self) -> None:
        assert counted(ledger_of(unmap(0x1000, 0x1000))) == {}

    def test_a_mapping_that_refers_to_nothing_goes_like_any_other(self) -> None:
        ledger = ledger_of(map_(0x1000, 10, 1), unmap(0x1000, 10))
        assert len(ledger.mappings) == 0
        assert counted(ledger) == {"unknown_maps": 1}

    def test_an_unmap_ends_all_that_it_kept_alive(self) -> None:
        ledger = ledger_of(
            create(1, 10),
            create(2, 20),
            map_(0x1000, 1, 2),
            map_(0x2000, 1, 1),
            release(1),
            release(2),
            unmap(0, 2**32),
        )
        assert counted(ledger) == {"births": 2, "deaths": 2}
        assert rows(ledger.meters, "live_count", "live_bytes") == [(0, 0)]


class TestRetain:
    def test_a_known_physical_gains_a_reference(self) -> None:
        ledger = ledger_of(create(1, 10), retain(1, 0x9999))
        assert rows(ledger.allocations, "references") == [2]
        assert counted(ledger) == {"births": 1}

    @pytest.mark.parametrize("mapped_at", [0x1000, 0x1800, 0x1FFF])
    def test_a_physical_without_a_key_gets_one_from_its_mapping(self, mapped_at: int) -> None:
        events = (create(1, 10), map_(0x1000, 0x1000, 1), release(1), retain(5, mapped_at))
        ledger = ledger_of(*events)
        assert rows(ledger.allocations, "address", "serial", "references", "mappings") == [(5, 0, 1, 1)]
        assert counted(ledger) == {"births": 1}
        assert counted(ledger_of(*events, unmap(0x1000, 1), release(5))) == {"births": 1, "deaths": 1}

    @pytest.mark.parametrize("mapped_at", [0, 0xFFF, 0x2000])
    def test_nothing_mapped_there_is_unknown(self, mapped_at: int) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 0x1000, 1), release(1), retain(5, mapped_at))
        assert counted(ledger) == {"births": 1, "unknown_maps": 1}
        assert rows(ledger.allocations, "references") == [0]

    def test_a_mapping_that_refers_to_nothing_has_nothing_to_give(self) -> None:
        assert counted(ledger_of(map_(0x1000, 0x1000, 1), retain(5, 0x1000))) == {"unknown_maps": 2}

    def test_a_physical_keeps_the_key_it_has(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 0x1000, 1), retain(5, 0x1000))
        assert counted(ledger) == {"births": 1, "unknown_maps": 1}
        assert rows(ledger.allocations, "address", "references") == [(1, 1)]

    def test_no_physical_has_the_null_handle(self) -> None:
        ledger = ledger_of(create(1, 10), map_(0x1000, 0x1000, 1), release(1), retain(0, 0x1000))
        assert counted(ledger) == {"births": 1, "unknown_maps": 1}

    def test_of_mappings_that_overlap_the_highest_start_is_asked(self) -> None:
        mapped = (
            create(1, 10),
            create(2, 10),
            map_(0x1000, 0x3000, 1),
            map_(0x2000, 0x1000, 2),
            release(1),
            release(2),
        )
        assert rows(ledger_of(*mapped, retain(5, 0x2800)).allocations, "references") == [0, 1]
        assert rows(ledger_of(*mapped, retain(5, 0x1800)).allocations, "references") == [1, 0]
        assert counted(ledger_of(*mapped, retain(5, 0x3800))) == {"births": 2, "unknown_maps": 1}


class TestContexts:
    @pytest.mark.parametrize("kind", sorted(BIRTHS))
    def test_a_context_takes_its_own_along(self, kind: int) -> None:
        ledger = ledger_of(
            event(kind, 1, 10, context=1), event(kind, 2, 20, context=2), event(Kind.CONTEXT_DESTROY, context=1)
        )
        stays = kind in (Kind.ALLOC_ASYNC, Kind.ALLOC_POOL, Kind.CREATE_PHYSICAL, Kind.IMPORT_PHYSICAL)
        assert live(ledger) == ([0, 1] if stays else [1])
        assert counted(ledger) == {"births": 2} if stays else {"births": 2, "deaths": 1, "context_deaths": 1}

    def test_references_do_not_matter(self) -> None:
        ledger = ledger_of(
            import_ipc(1, 10, context=1), import_ipc(1, context=1), event(Kind.CONTEXT_DESTROY, context=1)
        )
        assert counted(ledger) == {"births": 1, "deaths": 1, "context_deaths": 1}

    def test_a_free_afterwards_is_unknown(self) -> None:
        ledger = ledger_of(alloc(1, 10, context=3), event(Kind.CONTEXT_DESTROY, context=3), free(1))
        assert counted(ledger) == {"births": 1, "deaths": 1, "context_deaths": 1, "unknown_frees": 1}

    def test_context_zero_is_compared_like_any_other(self) -> None:
        assert live(ledger_of(alloc(1, 10), event(Kind.CONTEXT_DESTROY))) == []

    @pytest.mark.parametrize("kind", [Kind.POOL_DESTROY, Kind.POOL_TRIM, Kind.CONTEXT_CREATE])
    def test_the_end_of_a_pool_ends_nothing(self, kind: int) -> None:
        ledger = ledger_of(event(Kind.ALLOC_POOL, 1, 10, handle=5, context=1), event(kind, 5, context=1))
        assert live(ledger) == [0]
        assert counted(ledger) == {"births": 1}


class TestSpans:
    def test_a_span_keeps_its_times_parent_and_thread(self) -> None:
        ledger = ledger_of(begin(2, 1, thread=7), begin(1, thread=8), end(2, thread=9))
        assert rows(ledger.spans, "id", "parent", "thread", "begin_ns", "end_ns") == [
            (1, 0, 8, 20, 0),
            (2, 1, 7, 10, 30),
        ]
        assert len(ledger.span_meters) == 0

    def test_a_span_starts_from_what_lives_and_peaks_in_its_own_time(self) -> None:
        ledger = ledger_of(
            alloc(1, 100), alloc(2, 50), free(2), begin(1), free(1), alloc(3, 120), free(3), end(1), alloc(4, 999)
        )
        fields = ("span", "device", "layer", "begin_bytes", "end_bytes", "peak_bytes", "peak_ns")
        assert rows(ledger.span_meters, *fields) == [(1, 0, 0, 100, 0, 120, 60)]

    def test_without_a_higher_value_the_peak_is_the_begin(self) -> None:
        ledger = ledger_of(alloc(1, 100), begin(1), free(1), alloc(2, 100), end(1))
        assert rows(ledger.span_meters, "begin_bytes", "end_bytes", "peak_bytes", "peak_ns") == [(100, 100, 100, 20)]

    def test_an_open_span_shows_what_lives_now(self) -> None:
        ledger = ledger_of(begin(1), alloc(1, 10), alloc(2, 20), free(1))
        assert rows(ledger.span_meters, "begin_bytes", "end_bytes", "peak_bytes", "peak_ns") == [(0, 20, 30, 30)]

    def test_meters_that_stay_at_zero_have_no_row(self) -> None:
        past = (alloc(1, 10, device=0), free(1), alloc(2, 0, device=1))
        ledger = ledger_of(*past, begin(1), free(2), alloc(3, 30, device=2), end(1), alloc(4, 40, device=3))
        assert rows(ledger.span_meters, "device", "begin_bytes", "end_bytes") == [(2, 0, 30)]

    def test_an_empty_birth_makes_a_row(self) -> None:
        ledger = ledger_of(begin(1), alloc(1, 0))
        assert rows(ledger.span_meters, "begin_bytes", "end_bytes", "peak_bytes", "peak_ns") == [(0, 0, 0, 10)]

    def test_rows_are_in_order_of_span_device_and_layer(self) -> None:
        ledger = ledger_of(begin(2), begin(1), alloc(1, 1, device=1), event(Kind.ALLOC_MANAGED, 2, 2), alloc(3, 3))
        ranks = [(span, *meter) for span in (1, 2) for meter in ((0, 0, 3), (0, 1, 2), (1, 0, 1))]
        assert rows(ledger.span_meters, "span", "device", "layer", "end_bytes") == ranks

    def test_nested_spans_keep_peaks_of_their_own_and_end_in_any_order(self) -> None:
        ledger = ledger_of(begin(1), alloc(1, 10), begin(2, 1), alloc(2, 20), end(1), free(2), alloc(3, 40), end(2))
        assert rows(ledger.span_meters, "span", "begin_bytes", "end_bytes", "peak_bytes", "peak_ns") == [
            (1, 0, 30, 30, 40),
            (2, 10, 50, 50, 70),
        ]

    def test_a_death_in_a_displacement_is_seen_by_open_spans(self) -> None:
        ledger = ledger_of(alloc(1, 100), begin(1), alloc(1, 60))
        assert rows(ledger.span_meters, "begin_bytes", "end_bytes", "peak_bytes", "peak_ns") == [(100, 60, 100, 20)]

    def test_a_second_begin_is_ignored_also_after_the_end(self) -> None:
        ledger = ledger_of(begin(1), begin(1, 5), end(1), begin(1, 6), alloc(1, 10))
        assert rows(ledger.spans, "parent", "begin_ns", "end_ns") == [(0, 10, 30)]
        assert len(ledger.span_meters) == 0

    def test_an_end_of_what_is_not_open_is_ignored(self) -> None:
        ledger = ledger_of(end(1), begin(1), end(1), end(1))
        assert rows(ledger.spans, "begin_ns", "end_ns") == [(20, 30)]
        assert counted(ledger) == {}

    def test_ids_are_the_low_32_bits(self) -> None:
        ledger = ledger_of(begin(2**32 + 5, 2**32 + 6), begin(5, 9), end(2**33 + 5))
        assert rows(ledger.spans, "id", "parent", "begin_ns", "end_ns") == [(5, 6, 10, 30)]

    def test_a_span_beyond_the_limit_has_times_but_no_meters(self) -> None:
        full = [begin(span) for span in range(1, MAX_METERED_SPANS + 1)]
        ledger = ledger_of(*full, begin(100), alloc(1, 10), end(1), alloc(2, 20), end(100))
        assert counted(ledger) == {"births": 2, "span_overflow": 1}
        assert rows(ledger.spans, "id", "begin_ns", "end_ns")[-1] == (100, 650, 690)
        assert rows(ledger.span_meters, "span", "end_bytes") == [(1, 10), *((span, 30) for span in range(2, 65))]

    def test_only_open_spans_with_meters_count_towards_the_limit(self) -> None:
        full = [begin(span) for span in range(1, MAX_METERED_SPANS + 1)]
        ledger = ledger_of(*full, begin(100), end(1), begin(101), begin(102), alloc(1, 10))
        assert counted(ledger) == {"births": 1, "span_overflow": 2}
        metered = rows(ledger.span_meters, "span")
        assert (metered[0], metered[-1], len(metered)) == (2, 101, MAX_METERED_SPANS)


class TestOtherKinds:
    STATELESS = sorted(
        set(Kind) - BIRTHS - DEATHS
        - {Kind.MAP, Kind.UNMAP, Kind.RETAIN_PHYSICAL, Kind.CONTEXT_DESTROY, Kind.SPAN_BEGIN, Kind.SPAN_END}
    )  # fmt: skip

    @pytest.mark.parametrize("kind", STATELESS)
    def test_a_mark_changes_no_state(self, kind: int) -> None:
        ledger = ledger_of(alloc(1, 10), event(kind, 1, 10, context=0))
        assert counted(ledger) == {"births": 1} | ({"gaps": 1} if kind == Kind.GAP_BEGIN else {})
        assert ledger.counters["events"] == 2
        assert live(ledger) == [0]
        assert len(ledger.sites) == 1

    @pytest.mark.parametrize("kind", sorted(set(range(256)) - set(Kind)))
    def test_a_kind_that_is_not_known_is_counted(self, kind: int) -> None:
        ledger = ledger_of(event(kind, 1, 10))
        assert counted(ledger) == {"unknown_kinds": 1}
        assert len(ledger.sites) == 0


class TestSelfCheck:
    """The checks fail when the state is wrong; each corruption stands for a mistake in a rule."""

    @pytest.mark.parametrize(
        ("table", "field", "change", "complaint"),
        [
            ("_meters", "live_bytes", 1, "disagrees with the live set"),
            ("_meters", "live_count", 1, "disagrees with the live set"),
            ("_meters", "peak_bytes", -999, "wrong peak"),
            ("_meters", "freed_bytes", 1, "does not add up"),
            ("_meters", "allocated_bytes", 1, "disagrees with its sites"),
            ("_sites", "freed_bytes", 1, "disagrees with the live set"),
            ("_sites", "freed_count", 1, "disagrees with the live set"),
            ("_sites", "peak_bytes", -999, "wrong peak"),
            ("_sites", "failed_count", 1, "failures disagree with sites"),
            ("_by_serial", "references", -1, "key without a reference"),
            ("_by_serial", "mappings", 1, "mappings, there are"),
            ("_by_serial", "address", 1, ", not _Key("),
            ("_spans", "end_ns", 1, "open and has ended"),
        ],
    )
    def test_it_finds_a_wrong_number(self, table: str, field: str, change: int, complaint: str) -> None:
        ledger = ledger_of(begin(1), alloc(1, 10), alloc(2, 20), free(2), create(3, 30), map_(0x1000, 30, 3))
        thing = next(iter(getattr(ledger, table).values()))
        setattr(thing, field, getattr(thing, field) + change)
        with pytest.raises(AssertionError, match=re.escape(complaint)):
            ledger.self_check()

    @pytest.mark.parametrize(
        ("counter", "complaint"),
        [
            ("births", "births - deaths is not what lives"),
            ("deaths", "births - deaths is not what lives"),
            ("failures", "failures disagree with sites"),
            ("context_deaths", "more ended with contexts than ended"),
            ("gaps", "3 events are counted, there were 1"),
        ],
    )
    def test_it_finds_a_wrong_counter(self, counter: str, complaint: str) -> None:
        ledger = ledger_of(alloc(1, 10))
        ledger._counters[counter] += 2
        with pytest.raises(AssertionError, match=complaint):
            ledger.self_check()

    @pytest.mark.parametrize(
        ("field", "change", "complaint"),
        [
            ("begin_bytes", 999, "has a wrong peak"),
            ("peak_bytes", 999, "has a wrong peak"),
            ("peak_ns", -999, "peaked before it began"),
            ("end_bytes", -1, "lags behind"),
        ],
    )
    def test_it_finds_a_wrong_span(self, field: str, change: int, complaint: str) -> None:
        ledger = ledger_of(begin(1), alloc(1, 10))
        (row,) = ledger._spans[1].meters.values()
        setattr(row, field, getattr(row, field) + change)
        with pytest.raises(AssertionError, match=complaint):
            ledger.self_check()


def test_the_specification_names_every_counter() -> None:
    specification = (Path(__file__).parents[2] / "docs" / "recording-format.md").read_text(encoding="utf-8")
    rules = specification.split("## How the ledger reads events")[1]
    assert [name for name in COUNTERS if f"`{name}`" not in rules] == []
