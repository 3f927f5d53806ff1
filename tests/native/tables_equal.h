// Compares the states of two ledgers row by row, whatever order the rows came in.
#pragma once

#include <map>
#include <tuple>

#include "check.h"
#include "ledger.h"

namespace test {

template <class Row, class Key>
void check_rows(std::vector<Row> a, std::vector<Row> b, Key key, const char* name) {
  const auto before = [&](const Row& x, const Row& y) { return key(x) < key(y); };
  std::sort(a.begin(), a.end(), before);
  std::sort(b.begin(), b.end(), before);
  if (a.size() != b.size()) {
    fail(__FILE__, __LINE__,
         std::string(name) + ": " + std::to_string(a.size()) + " rows, not " + std::to_string(b.size()));
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(Row)) != 0) {
      fail(__FILE__, __LINE__, std::string(name) + ": row " + std::to_string(i) + " differs");
    }
  }
}

inline void check_same(const gpumem::Ledger::Tables& a, const gpumem::Ledger::Tables& b) {
  using namespace gpumem;
  check_rows(
      a.allocations, b.allocations, [](const AllocationRow& r) { return r.serial; }, "allocations");
  check_rows(
      a.mappings, b.mappings, [](const MappingRow& r) { return r.address; }, "mappings");
  check_rows(
      a.sites, b.sites, [](const SiteRow& r) { return std::make_tuple(r.stack, r.cell, r.library, r.kind, r.device); },
      "sites");
  check_rows(
      a.meters, b.meters, [](const MeterRow& r) { return std::make_pair(r.device, r.layer); }, "meters");
  check_rows(
      a.spans, b.spans, [](const SpanRow& r) { return r.id; }, "spans");
  check_rows(
      a.span_meters, b.span_meters, [](const SpanMeterRow& r) { return std::make_tuple(r.span, r.device, r.layer); },
      "span meters");
  for (int i = 0; i < kCounters; ++i) CHECK_EQ(a.counters[i], b.counters[i]);
  CHECK_EQ(a.next_serial, b.next_serial);
}

// What must hold whatever happened: meters and sites sum up to the live set.
inline void check_consistent(const gpumem::Ledger::Tables& tables) {
  using namespace gpumem;
  std::map<std::pair<int, int>, std::pair<uint64_t, uint64_t>> live;
  uint64_t bytes = 0;
  for (const AllocationRow& row : tables.allocations) {
    const Layer layer = layer_of(row.kind, row.device);
    auto& sum = live[{layer == kHostLayer ? kNoDevice : row.device, layer}];
    ++sum.first;
    sum.second += row.size;
    bytes += row.size;
  }
  for (const MeterRow& row : tables.meters) {
    const auto sum = live[{row.device, row.layer}];
    CHECK_EQ(row.live_count, sum.first);
    CHECK_EQ(row.live_bytes, sum.second);
    CHECK_EQ(row.allocated_bytes - row.freed_bytes, sum.second);
    live.erase({row.device, row.layer});
  }
  for (const auto& [key, sum] : live) CHECK_EQ(sum.first, 0u);
  uint64_t of_sites = 0;
  for (const SiteRow& row : tables.sites) of_sites += row.allocated_bytes - row.freed_bytes;
  CHECK_EQ(of_sites, bytes);
  CHECK_EQ(tables.counters[kBirths] - tables.counters[kDeaths], tables.allocations.size());
}

inline gpumem::Ledger::Tables tables_of(const gpumem::Ledger& ledger) {
  gpumem::Ledger::Tables tables;
  ledger.copy(tables);
  return tables;
}

}  // namespace test
