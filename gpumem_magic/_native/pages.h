// How much of a device its allocations really take. Measured on an H200: cuMemAlloc hands out whole pages of 2 MiB;
// requests of less share pages; a page is the device's again once nothing in it is live.
#pragma once

#include <cstdint>

#include "hash_map.h"

namespace gpumem {

constexpr uint64_t kPageBytes = 2 << 20;

inline uint64_t whole_pages(uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

// Pages that small allocations of one device share.
class SharedPages {
 public:
  // Bytes that the device gives for [address, address + size), which is less than a page long.
  uint64_t take(uint8_t device, uint64_t address, uint64_t size) {
    uint64_t taken = 0;
    for (uint64_t page = address / kPageBytes; page <= last(address, size); ++page) {
      const uint32_t users = users_.find(key(device, page));
      if (users == HashMap::kAbsentValue) taken += kPageBytes;
      users_.insert(key(device, page), users == HashMap::kAbsentValue ? 1 : users + 1);
    }
    return taken;
  }

  // Bytes that the device has back when it ends.
  uint64_t give_back(uint8_t device, uint64_t address, uint64_t size) {
    uint64_t given = 0;
    for (uint64_t page = address / kPageBytes; page <= last(address, size); ++page) {
      const uint32_t users = users_.find(key(device, page));
      if (users == HashMap::kAbsentValue) continue;
      if (users > 1) {
        users_.insert(key(device, page), users - 1);
      } else {
        users_.erase(key(device, page));
        given += kPageBytes;
      }
    }
    return given;
  }

 private:
  static uint64_t key(uint8_t device, uint64_t page) { return (page << 8) | device; }
  static uint64_t last(uint64_t address, uint64_t size) { return (address + (size > 0 ? size - 1 : 0)) / kPageBytes; }

  HashMap users_{1 << 10};
};

}  // namespace gpumem
