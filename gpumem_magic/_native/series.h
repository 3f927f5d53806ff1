// Device memory over time in a fixed number of buckets: when they are full, neighbours merge, so a session of any
// length keeps its extremes in bounded space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gpumem {

struct SeriesRow {
  uint64_t begin_ns;
  uint64_t min_bytes;
  uint64_t max_bytes;
  uint64_t last_bytes;
  uint8_t device;
  uint8_t reserved[7];
};
static_assert(sizeof(SeriesRow) == 40, "written to fold.bin as it is");

class Series {
 public:
  static constexpr size_t kBuckets = 2048;

  void add(uint8_t device, uint64_t time_ns, uint64_t live_bytes);
  std::vector<SeriesRow> rows() const;
  void restore(const std::vector<SeriesRow>& rows);

 private:
  struct Track {
    uint64_t width_ns = 1000000;
    std::vector<SeriesRow> buckets;
  };
  Track tracks_[65];
};

}  // namespace gpumem
