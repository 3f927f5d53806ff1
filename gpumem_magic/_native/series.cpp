#include "series.h"

#include <algorithm>

namespace gpumem {

void Series::add(uint8_t device, uint64_t time_ns, uint64_t live_bytes) {
  Track& track = tracks_[device < 64 ? device : 64];
  auto& buckets = track.buckets;
  if (!buckets.empty() && time_ns < buckets.back().begin_ns + track.width_ns) {
    SeriesRow& bucket = buckets.back();
    bucket.min_bytes = std::min(bucket.min_bytes, live_bytes);
    bucket.max_bytes = std::max(bucket.max_bytes, live_bytes);
    bucket.last_bytes = live_bytes;
    return;
  }
  if (buckets.size() == kBuckets) {
    for (size_t i = 0; i < kBuckets / 2; ++i) {
      const SeriesRow& left = buckets[2 * i];
      const SeriesRow& right = buckets[2 * i + 1];
      buckets[i] = left;
      buckets[i].min_bytes = std::min(left.min_bytes, right.min_bytes);
      buckets[i].max_bytes = std::max(left.max_bytes, right.max_bytes);
      buckets[i].last_bytes = right.last_bytes;
    }
    buckets.resize(kBuckets / 2);
    track.width_ns *= 2;
  }
  SeriesRow bucket{};
  bucket.begin_ns = time_ns;
  bucket.min_bytes = bucket.max_bytes = bucket.last_bytes = live_bytes;
  bucket.device = device;
  buckets.push_back(bucket);
}

std::vector<SeriesRow> Series::rows() const {
  std::vector<SeriesRow> rows;
  for (const Track& track : tracks_) rows.insert(rows.end(), track.buckets.begin(), track.buckets.end());
  return rows;
}

void Series::restore(const std::vector<SeriesRow>& rows) {
  for (const SeriesRow& row : rows) tracks_[row.device < 64 ? row.device : 64].buckets.push_back(row);
}

}  // namespace gpumem
