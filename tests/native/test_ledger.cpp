// The ledger under streams of colliding events: its sums hold, and a ledger restored from its tables goes on alike.
#include <set>

#include "ledger.h"
#include "random_events.h"
#include "tables_equal.h"

namespace {

using namespace gpumem;

void sums_hold_after_every_event() {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    test::RandomEvents events(seed);
    Ledger ledger;
    for (int i = 0; i < 1500; ++i) {
      Event event = events.next();
      ledger.apply(event);
      test::check_consistent(test::tables_of(ledger));
    }
  }
}

// The union of the pages that live allocations touch, found the long way.
uint64_t paged(const Ledger::Tables& tables, uint8_t device) {
  std::set<uint64_t> shared;
  uint64_t whole = 0;
  for (const AllocationRow& row : tables.allocations) {
    const bool is_ordered = row.kind == kAllocAsync || row.kind == kAllocPool || row.kind == kAllocGraph;
    if (row.device != device || is_ordered || layer_of(row.kind, row.device) != kDeviceLayer) continue;
    if (row.size >= kPageBytes || (row.kind != kAlloc && row.kind != kAllocPitch)) {
      whole += whole_pages(row.size);
      continue;
    }
    shared.insert(row.address / kPageBytes);
    shared.insert((row.address + std::max<uint64_t>(row.size, 1) - 1) / kPageBytes);
  }
  return whole + shared.size() * kPageBytes;
}

void pages_are_those_of_what_lives() {
  uint64_t most = 0;
  for (uint64_t seed = 200; seed < 220; ++seed) {
    test::RandomEvents events(seed);
    test::Random random(seed);
    Ledger ledger;
    for (int i = 0; i < 2000; ++i) {
      Event event = events.next();
      event.address *= 300;  // over several pages, and across their edges
      event.size = test::one_in(random, 3) ? event.size : test::below(random, 3 * kPageBytes);
      ledger.apply(event);
      if (!test::one_in(random, 50)) continue;
      const Ledger::Tables tables = test::tables_of(ledger);
      for (const uint8_t device : {0, 1}) CHECK_EQ(ledger.footprint(device).paged, paged(tables, device));
      most = std::max(most, ledger.footprint(0).paged);
    }
  }
  CHECK(most > 10 * kPageBytes);
}

void a_restored_ledger_goes_on_alike() {
  for (uint64_t seed = 100; seed < 160; ++seed) {
    test::RandomEvents events(seed);
    test::Random random(seed);
    auto ledger = std::make_unique<Ledger>();
    auto twin = std::make_unique<Ledger>();
    for (int i = 0; i < 2000; ++i) {
      Event event = events.next();
      Event copy = event;
      ledger->apply(event);
      twin->apply(copy);
      CHECK_EQ(std::memcmp(&event, &copy, sizeof event), 0);  // what the ledger fills in, too
      if (!test::one_in(random, 200)) continue;
      const Ledger::Tables state = test::tables_of(*twin);
      twin = std::make_unique<Ledger>();
      twin->restore(state);
      test::check_same(test::tables_of(*twin), state);
    }
    test::check_same(test::tables_of(*ledger), test::tables_of(*twin));
  }
}

Event of_kind(uint8_t kind, uint64_t address, uint64_t size = 0) {
  Event event{};
  event.kind = kind;
  event.address = address;
  event.size = size;
  return event;
}

// Applies as the tracker does, with what happened on other threads meanwhile taken into account.
void birth(Ledger& ledger, uint64_t address, uint64_t size) {
  Event event = of_kind(kAlloc, address, size);
  ledger.resolve_birth(event);
  ledger.apply(event);
}

void death(Ledger& ledger, uint64_t address, uint64_t serial_at_begin) {
  Event event = of_kind(kFree, address);
  ledger.resolve_death(event, serial_at_begin);
  ledger.apply(event);
}

void a_free_that_returns_late() {
  Ledger ledger;
  birth(ledger, 4096, 10);
  const uint64_t serial = ledger.begin_free(kAddressSpace, 4096);
  birth(ledger, 4096, 20);  // another thread was given the address before our free returned
  death(ledger, 4096, serial);
  const Ledger::Tables tables = test::tables_of(ledger);
  CHECK_EQ(tables.allocations.size(), 1u);
  CHECK_EQ(tables.allocations[0].size, 20u);
  CHECK_EQ(tables.counters[kDeferredFrees], 1u);
  CHECK_EQ(tables.counters[kMissedFrees], 0u);
  death(ledger, 4096, ledger.begin_free(kAddressSpace, 4096));
  CHECK_EQ(ledger.live_count(), 0u);
}

void a_free_that_returns_after_the_next_one() {
  Ledger ledger;
  birth(ledger, 4096, 10);
  const uint64_t first = ledger.begin_free(kAddressSpace, 4096);
  birth(ledger, 4096, 20);
  death(ledger, 4096, ledger.begin_free(kAddressSpace, 4096));
  death(ledger, 4096, first);
  const Ledger::Tables tables = test::tables_of(ledger);
  CHECK_EQ(tables.allocations.size(), 0u);
  CHECK_EQ(tables.counters[kDeferredFrees], 1u);
  CHECK_EQ(tables.counters[kUnknownFrees], 0u);
}

void a_free_that_failed() {
  Ledger ledger;
  birth(ledger, 4096, 10);
  ledger.cancel_free(kAddressSpace, 4096, ledger.begin_free(kAddressSpace, 4096));
  birth(ledger, 4096, 20);  // nobody frees it: its free was missed
  CHECK_EQ(test::tables_of(ledger).counters[kMissedFrees], 1u);
}

// A reference that was given back while others remain is no free under way.
void a_free_that_left_references() {
  Ledger ledger;
  for (const uint64_t size : {10, 10}) {
    Event event = of_kind(kImportPhysical, 4096, size);
    ledger.resolve_birth(event);
    ledger.apply(event);
  }
  Event released = of_kind(kReleasePhysical, 4096);
  ledger.resolve_death(released, ledger.begin_free(kPhysicalSpace, 4096));
  ledger.apply(released);
  CHECK_EQ(ledger.live_count(), 1u);
  Event event = of_kind(kCreatePhysical, 4096, 20);  // the last release was missed, in a gap
  ledger.resolve_birth(event);
  CHECK_EQ(event.flags & kReused, 0);
  ledger.apply(event);
  CHECK_EQ(test::tables_of(ledger).counters[kMissedFrees], 1u);
}

void a_free_of_what_was_there_before() {
  Ledger ledger;
  const uint64_t serial = ledger.begin_free(kAddressSpace, 4096);
  CHECK_EQ(serial, Ledger::kNoSerial);
  birth(ledger, 4096, 20);
  death(ledger, 4096, serial);
  CHECK_EQ(ledger.live_count(), 1u);
}

void events_that_are_missing() {
  Ledger ledger;
  ledger.skip_to(1000);
  birth(ledger, 4096, 10);
  CHECK_EQ(test::tables_of(ledger).allocations[0].serial, 1000u);
  CHECK_EQ(ledger.next_serial(), 1001u);
}

void a_copy_fits_what_was_reserved() {
  Ledger ledger;
  test::RandomEvents events(5);
  for (int i = 0; i < 5000; ++i) {
    Event event = events.next();
    ledger.apply(event);
  }
  Ledger::Tables tables;
  ledger.reserve(tables);
  const void* const places[] = {tables.allocations.data(), tables.mappings.data(), tables.sites.data(),
                                tables.meters.data(),      tables.spans.data(),    tables.span_meters.data()};
  ledger.copy(tables);
  const void* const after[] = {tables.allocations.data(), tables.mappings.data(), tables.sites.data(),
                               tables.meters.data(),      tables.spans.data(),    tables.span_meters.data()};
  CHECK_EQ(std::memcmp(places, after, sizeof places), 0);
}

}  // namespace

int main() {
  test::limit_time(120);
  RUN(sums_hold_after_every_event);
  RUN(pages_are_those_of_what_lives);
  RUN(a_restored_ledger_goes_on_alike);
  RUN(a_free_that_returns_late);
  RUN(a_free_that_returns_after_the_next_one);
  RUN(a_free_that_failed);
  RUN(a_free_that_left_references);
  RUN(a_free_of_what_was_there_before);
  RUN(events_that_are_missing);
  RUN(a_copy_fits_what_was_reserved);
}
