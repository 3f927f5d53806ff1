// The journal: every event, in order, in segments that survive the death of the process.
//
// append() is called with the ledger's lock held and only ever copies 64 bytes, unless a segment is full and the
// keeper thread has not prepared the next one yet. The keeper takes no Python lock.
#pragma once

#include <semaphore.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "event.h"
#include "ledger.h"
#include "segment.h"
#include "series.h"

namespace gpumem {

struct SegmentInfo {
  std::string path;
  uint64_t first;
  uint64_t count;
};

class Journal {
 public:
  static constexpr uint64_t kSegmentEvents = 1 << 17;  // 8 MiB: small enough that two mapped ones do not count

  // Opens in `directory`, or in memory when it is empty or cannot be written; error() then says why. At most
  // `budget_bytes` of segments are kept: older ones are folded.
  Journal(std::string directory, uint64_t budget_bytes);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  void append(const Event& event);

  // Segments that still exist, oldest first. The first may begin after index 0 once old ones were folded. Any thread.
  std::vector<SegmentInfo> segments() const;
  uint64_t count() const { return count_.load(std::memory_order_acquire); }
  // errno of the first write that could not be had; 0 while all is well. Recording goes on in memory then.
  int error() const { return error_.load(std::memory_order_relaxed); }
  uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }
  // In the child of a fork: the keeper thread does not exist here.
  void abandon();

 private:
  Segment* create_segment();
  Segment* take_next();
  void prepare_next();
  void rotate();
  void keep();  // the keeper's thread function
  void seal_retired();
  void fold_to_budget();
  bool fold(Segment& segment);
  bool write_fold() const;
  static bool is_on_disk(const Segment& segment) { return segment.path().compare(0, 6, "/proc/") != 0; }
  std::string segment_path(uint32_t number) const;

  const std::string directory_;
  const uint64_t budget_bytes_;
  std::atomic<uint64_t> count_{0};
  std::atomic<uint64_t> lost_{0};
  std::atomic<int> error_{0};
  std::atomic<bool> in_memory_{false};
  std::atomic<uint32_t> number_{0};

  Segment* current_ = nullptr;
  uint64_t used_ = 0;  // events in current_
  std::atomic<Segment*> next_{nullptr};
  std::mutex
      create_mutex_;  // segments are made one after the other, so that they are used in the order of their numbers

  mutable std::mutex segments_mutex_;  // guards the list; leaf
  std::vector<std::unique_ptr<Segment>> all_;
  size_t sealed_ = 0;  // all_[0, sealed_) are sealed and unmapped

  std::unique_ptr<Ledger> folded_;  // keeper only
  std::unique_ptr<Series> folded_series_;
  const Segment* last_folded_ = nullptr;

  sem_t wake_;
  std::atomic<bool> stop_{false};
  std::thread keeper_;
};

}  // namespace gpumem
