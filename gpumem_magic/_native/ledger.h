// The ledger: what is live now, who made it, and the peaks. It reads events in order by the rules in
// docs/recording-format.md; the live tracker and the reader of recordings use the same code.
//
// Not thread-safe: the owner serialises calls.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "event.h"
#include "hash_map.h"
#include "pages.h"
#include "tables.h"

namespace gpumem {

class Ledger {
 public:
  Ledger();

  // Applies one event. Fills in what only the ledger knows: for a death its device and, in `handle`, the bytes it
  // ended; for an unmap the physical bytes it ended in `handle`; for a destroyed context the device bytes in `size`.
  void apply(Event& event);

  // Live tracking of frees that are under way on other threads. `begin_free` says that the driver is about to be asked
  // to free `address`; it returns the serial of what lives there, or kNoSerial.
  static constexpr uint64_t kNoSerial = UINT64_MAX;
  uint64_t begin_free(Space space, uint64_t address);
  void cancel_free(Space space, uint64_t address, uint64_t serial);
  // Sets kReused or kDeferredFree on an event that is about to be applied, from what begin_free saw.
  void resolve_birth(Event& event) const;
  void resolve_death(Event& event, uint64_t serial_at_begin) const;

  struct Tables {
    std::vector<AllocationRow> allocations;
    std::vector<MappingRow> mappings;
    std::vector<SiteRow> sites;
    std::vector<MeterRow> meters;
    std::vector<SpanRow> spans;
    std::vector<SpanMeterRow> span_meters;
    std::vector<uint32_t> metered_spans;  // ids of the open spans that keep meters: all but those in span_overflow
    uint64_t counters[kCounters];
    uint64_t next_serial;
  };
  // Copies everything, the live allocations only when they are wanted. `reserve` first, outside the lock that guards
  // the ledger, so that the copy allocates nothing.
  void reserve(Tables& tables, bool allocations = true) const;
  void copy(Tables& tables, bool allocations = true) const;
  // Events up to index `serial` are missing: the next one has that index.
  void skip_to(uint64_t serial) { base_serial_ = serial - counters_[kEvents]; }
  // Makes this (new) ledger equal to the one `tables` was copied from.
  void restore(const Tables& tables);

  uint64_t live_bytes(uint8_t device, Layer layer) const {
    return slots_[device] < 0 ? 0 : meters_[static_cast<size_t>(slots_[device])][layer].live_bytes;
  }
  // Live bytes of the device layer: the lowest and the highest since restart_extents(), and now.
  struct Extent {
    uint64_t low, high, now;
  };
  Extent extent(uint8_t device) const;
  // What one device gives for its live allocations of the device layer, and what may have grown it without a call that
  // allocates.
  struct Footprint {
    uint64_t paged;                              // whole pages of everything but stream-ordered memory
    uint64_t ordered;                            // bytes asked for in stream-ordered memory: the pages are its pool's
    uint64_t ordered_births;                     // allocations of such memory so far
    uint64_t contexts, contexts_ended, modules;  // created, destroyed, loaded so far
  };
  Footprint footprint(uint8_t device) const { return footprints_[device]; }
  void restart_extents();
  uint64_t next_serial() const { return counters_[kEvents] + base_serial_; }
  uint64_t births_and_deaths() const { return counters_[kBirths] + counters_[kDeaths]; }
  size_t live_count() const { return live_count_; }

 private:
  struct Entry {
    AllocationRow row;
    uint32_t site;
    uint16_t freeing;  // driver frees of this address under way
    bool live;
    bool keyed;  // false for a physical that only its mappings keep alive
  };
  struct Meter {
    uint64_t live_count, live_bytes, peak_bytes, peak_ns, allocated_bytes, freed_bytes, births;
    uint64_t low_bytes, high_bytes;  // of live_bytes, since restart_extents()
  };
  struct SpanMeter {
    uint64_t begin_bytes, peak_bytes, peak_ns;
    bool touched;
  };
  // Devices get a slot when the first allocation is born there, so that one GPU costs one row and 200 cost 200.
  using Meters = std::array<Meter, kLayers>;
  using SpanMeters = std::array<SpanMeter, kLayers>;
  struct OpenSpan {
    uint32_t id;
    uint64_t begin_ns;
    std::vector<SpanMeters> meters;
  };
  struct Mapping {
    uint64_t size, handle;
    uint32_t entry;  // kAbsentValue when the physical is not known
  };

  static constexpr size_t kMaxOpenSpans = 64;
  static constexpr uint32_t kNone32 = HashMap::kAbsentValue;

  static Layer layer_of_row(const AllocationRow& row) { return layer_of(row.kind, row.device); }
  static uint8_t meter_device(const AllocationRow& row) {
    return layer_of_row(row) == kHostLayer ? kNoDevice : row.device;
  }
  size_t slot_for(uint8_t device);
  Meter& meter_of(const AllocationRow& row) { return meters_[slot_for(meter_device(row))][layer_of_row(row)]; }

  uint32_t site_for(const Event& event);
  uint32_t site_for(const SiteRow& key);
  void birth(Event& event);
  void death(Event& event);
  void map(const Event& event);
  void unmap(Event& event);
  void retain(const Event& event);
  void destroy_context(Event& event);
  void begin_span(const Event& event);
  void end_span(const Event& event);

  uint32_t new_entry();
  void add_to_meters(const AllocationRow& row, uint64_t time_ns);
  void add_to_footprint(const AllocationRow& row);
  void take_from_footprint(const AllocationRow& row);
  void end_entry(uint32_t index);
  void drop_key(uint32_t index);
  // Takes one mapping off; returns the bytes that ended with it.
  uint64_t drop_mapping(std::map<uint64_t, Mapping>::iterator mapping);
  void end_or_orphan(uint32_t index);
  void span_meter_rows(const OpenSpan& span, std::vector<SpanMeterRow>& rows) const;

  HashMap keys_[kSpaces];
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_entries_;
  size_t live_count_ = 0;
  std::map<uint64_t, Mapping> mappings_;
  std::vector<SiteRow> sites_;
  HashMap site_index_;                 // hash of a site -> first site with it
  std::vector<uint32_t> site_chain_;   // next site with the same hash
  std::array<int16_t, 256> slots_;     // device -> slot, -1 when nothing was born there
  std::vector<uint8_t> slot_devices_;  // slot -> device
  std::vector<Meters> meters_;         // by slot
  std::array<Footprint, 256> footprints_{};
  SharedPages pages_;
  std::vector<SpanRow> spans_;
  HashMap span_index_;
  std::vector<std::unique_ptr<OpenSpan>> open_;
  std::vector<std::unique_ptr<OpenSpan>> spare_;
  std::vector<SpanMeterRow> closed_meters_;
  uint64_t counters_[kCounters] = {};
  uint64_t base_serial_ = 0;
};

}  // namespace gpumem
