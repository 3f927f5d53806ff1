// Memory over time in levels of rows: of level 0, each row is one sample; a row of level k merges the 4^k samples whose
// index gives the same number when divided by that. Every level keeps its latest rows, so hours cost what minutes do
// and no extreme is lost. gpumem_magic/model/history.py has the same rows and the same rules for merging.
//
// Not thread-safe: the owner serialises calls.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "segment.h"

namespace gpumem {

constexpr int64_t kUnknownBytes = -1;

struct HistoryRow {
  uint64_t index;
  uint64_t begin_ns;
  uint64_t end_ns;
  int64_t tracked_min;
  int64_t tracked_max;
  int64_t tracked_bytes;
  int64_t used_bytes;
  int64_t used_max;
  int64_t reserved_bytes;
  int64_t process_bytes;
  int64_t process_max;
  int64_t driver_used_bytes;
  int64_t torch_allocated_bytes;
  int64_t torch_reserved_bytes;
  int64_t cupy_used_bytes;
  int64_t paged_bytes;
  int64_t ordered_bytes;
  int64_t pool_bytes;
  int64_t context_bytes;
  int64_t code_bytes;
  float utilization;
  uint32_t known;
  uint32_t samples;
  uint8_t device;
  uint8_t level;
  uint16_t reserved;
};
static_assert(sizeof(HistoryRow) == 176, "model/history.py reads 176 bytes");

struct HostRow {
  uint64_t index;
  uint64_t begin_ns;
  uint64_t end_ns;
  int64_t rss_bytes;
  int64_t rss_max;
  int64_t anonymous_bytes;
  int64_t anonymous_max;
  uint32_t samples;
  uint8_t level;
  uint8_t reserved[3];
};
static_assert(sizeof(HostRow) == 64, "model/history.py reads 64 bytes");

// A row of one sample of which nothing is known yet.
HistoryRow unknown_row(uint8_t device);
HostRow unknown_host_row();

constexpr uint32_t kHistoryFactorBits = 2;
constexpr uint32_t kHistoryLevels = 8;
constexpr uint64_t kHistoryLevelRows = 1024;
constexpr size_t kLevelSlots = kHistoryLevels * kHistoryLevelRows;

// The levels of one device, or of the host. They lie in memory of somebody else's, which begins as zeros.
template <class Row>
class Levels {
 public:
  // What the levels take, in bytes: the rows, and a checksum of each, by which a reader knows one that was half
  // written.
  static constexpr size_t kBytes = kLevelSlots * (sizeof(Row) + sizeof(uint32_t));

  explicit Levels(void* memory)
      : rows_(static_cast<Row*>(memory)), checks_(reinterpret_cast<uint32_t*>(rows_ + kLevelSlots)) {}

  // Takes one more sample; its index is larger than all before.
  void add(const Row& sample);
  // Appends all rows, level by level, by time. The last row of a level may lack samples that are still to come.
  void copy(std::vector<Row>& rows) const;
  // The sample with this index; nullptr when it is no longer, or not yet, there.
  const Row* sample(uint64_t index) const;
  const Row* last() const { return any_ ? sample(newest_) : nullptr; }

  // Appends what is readable of levels that somebody else writes, or wrote; returns how many rows are damaged.
  static size_t read(const void* memory, std::vector<Row>& rows);

 private:
  static uint64_t number(uint64_t index, uint32_t level) { return index >> (kHistoryFactorBits * level); }
  static size_t slot(uint64_t index, uint32_t level) {
    return level * kHistoryLevelRows + number(index, level) % kHistoryLevelRows;
  }
  static void copy_level(const Row* rows, uint32_t level, uint64_t newest, std::vector<Row>& copied);

  Row* rows_;
  uint32_t* checks_;
  bool any_ = false;
  uint64_t newest_ = 0;                 // index of the latest sample
  double shares_[kHistoryLevels] = {};  // sum of the utilization of the samples in each level's last row
};

// All devices and the host, on disk where that can be had.
class History {
 public:
  // Opens `path` with room for `devices`; in memory when it is empty or cannot be written. error() then says why.
  History(const std::string& path, const std::vector<uint8_t>& devices);
  ~History();
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  Levels<HistoryRow>& device(uint8_t ordinal);
  Levels<HostRow>& host() { return *host_; }
  // Appends the samples with these indices, [first, end): by index, then in the order in which devices came.
  void copy_samples(uint64_t first, uint64_t end, std::vector<HistoryRow>& rows, std::vector<HostRow>& host) const;
  // Appends all rows: device by device, level by level, by time.
  void copy(std::vector<HistoryRow>& rows, std::vector<HostRow>& host) const;
  int error() const { return error_; }
  // In the child of a fork: never touch the parent's file again.
  void abandon();

 private:
  struct DeviceLevels {
    uint8_t ordinal;
    Levels<HistoryRow> levels;
  };

  struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
  };

  // Zeros, which take no memory before they are written.
  void* room(size_t bytes);

  std::unique_ptr<Segment> segment_;
  size_t taken_ = 0;  // bytes of the segment's payload
  std::vector<std::unique_ptr<void, FreeMemory>> memory_;
  std::unique_ptr<Levels<HostRow>> host_;
  std::vector<DeviceLevels> devices_;
  int error_ = 0;
};

struct HistoryCopy {
  std::vector<HistoryRow> rows;
  std::vector<HostRow> host;
  std::vector<std::string> warnings;
};
// Reads the history of a recording that is being made, has ended or was killed.
HistoryCopy read_history(const std::string& path);
// The levels after these samples, for checks against the rules in Python.
HistoryCopy replay_history(const std::vector<HistoryRow>& samples, const std::vector<HostRow>& host);

}  // namespace gpumem
