// Rows in which the ledger hands out its state; gpumem_magic/model/tables.py reads the same bytes.
#pragma once

#include <cstdint>

namespace gpumem {

struct AllocationRow {
  uint64_t address;
  uint64_t size;
  uint64_t birth_ns;
  uint64_t handle;
  uint64_t serial;
  uint32_t references;
  uint32_t mappings;
  uint32_t stack;
  uint32_t cell;
  uint32_t thread;
  uint32_t context;
  uint32_t stream;
  uint16_t library;
  uint16_t function;
  uint8_t kind;
  uint8_t device;
  uint16_t flags;
  uint32_t reserved;
};
static_assert(sizeof(AllocationRow) == 80, "model/tables.py reads 80 bytes");

struct MappingRow {
  uint64_t address;
  uint64_t size;
  uint64_t handle;
  uint64_t serial;
};
static_assert(sizeof(MappingRow) == 32, "model/tables.py reads 32 bytes");

struct SiteRow {
  uint32_t stack;
  uint32_t cell;
  uint16_t library;
  uint8_t kind;
  uint8_t device;
  uint32_t reserved;
  uint64_t allocated_count;
  uint64_t allocated_bytes;
  uint64_t freed_count;
  uint64_t freed_bytes;
  uint64_t peak_bytes;
  uint64_t failed_count;
};
static_assert(sizeof(SiteRow) == 64, "model/tables.py reads 64 bytes");

struct MeterRow {
  uint8_t device;
  uint8_t layer;
  uint16_t reserved;
  uint32_t reserved2;
  uint64_t live_count;
  uint64_t live_bytes;
  uint64_t peak_bytes;
  uint64_t peak_ns;
  uint64_t allocated_bytes;
  uint64_t freed_bytes;
};
static_assert(sizeof(MeterRow) == 56, "model/tables.py reads 56 bytes");

struct SpanRow {
  uint32_t id;
  uint32_t parent;
  uint32_t thread;
  uint32_t reserved;
  uint64_t begin_ns;
  uint64_t end_ns;
};
static_assert(sizeof(SpanRow) == 32, "model/tables.py reads 32 bytes");

struct SpanMeterRow {
  uint32_t span;
  uint8_t device;
  uint8_t layer;
  uint16_t reserved;
  uint64_t begin_bytes;
  uint64_t end_bytes;
  uint64_t peak_bytes;
  uint64_t peak_ns;
};
static_assert(sizeof(SpanMeterRow) == 40, "model/tables.py reads 40 bytes");

// In the order of COUNTERS in model/tables.py.
enum Counter {
  kEvents,
  kBirths,
  kDeaths,
  kFailures,
  kUnknownFrees,
  kNullFrees,
  kNullBirths,
  kMissedFrees,
  kDeferredFrees,
  kAbsentCount,
  kUnknownMaps,
  kContextDeaths,
  kGaps,
  kSpanOverflow,
  kUnknownKinds,
  kCounters
};

}  // namespace gpumem
