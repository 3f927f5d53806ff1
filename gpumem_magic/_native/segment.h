// One preallocated, memory-mapped file of a recording: header, then events or table records.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string>

namespace gpumem {

struct SegmentHeader {
  char magic[8];
  uint32_t version;
  uint32_t header_size;
  uint32_t record_size;
  uint32_t number;
  uint64_t first;
  uint64_t capacity;
  uint32_t pid;
  uint32_t reserved0;
  uint64_t reserved1;
  uint32_t reserved2;
  uint32_t header_crc;
  std::atomic<uint64_t> committed;
  uint32_t sealed;
  uint32_t checksum;
};
static_assert(sizeof(SegmentHeader) == 80, "docs/recording-format.md gives these offsets");

constexpr uint32_t kFormatVersion = 1;
constexpr uint32_t kHeaderSize = 4096;
constexpr char kEventMagic[] = "GPUMEMEV";
constexpr char kTableMagic[] = "GPUMEMTB";
constexpr char kFoldMagic[] = "GPUMEMFD";
constexpr char kHistoryMagic[] = "GPUMEMHI";

// A segment open for writing. The creator owns it; destruction unmaps and closes, the file stays.
class Segment {
 public:
  // Creates the file at `path`, or anonymous memory when `path` is empty, with room for `bytes` of payload. Returns
  // nullptr and sets `error` to an errno when the space cannot be had: space is reserved here, so that writing to the
  // mapping later cannot fail.
  static Segment* create(const std::string& path, const char* magic, uint32_t record_size, uint32_t number,
                         uint64_t bytes, int& error);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // Takes the page faults of the first writes now, on a thread that may wait for them.
  void prefault();
  // Says what the first record's index (or byte offset) is, and gives the file its name. Before the first commit.
  void set_first(uint64_t first);

  unsigned char* payload() const { return base_ + kHeaderSize; }
  uint64_t bytes() const { return bytes_; }
  uint64_t committed() const { return header()->committed.load(std::memory_order_acquire); }
  void commit(uint64_t total) { header()->committed.store(total, std::memory_order_release); }
  uint64_t first() const { return header()->first; }
  uint32_t number() const { return header()->number; }
  // Stores the checksum of what was committed; no commit may follow.
  void seal();
  // Seals, and gives back the part of the file that was reserved and not needed.
  void finish();
  // Gives the pages back to the system; the file keeps the contents.
  void unmap();
  const std::string& path() const { return path_; }

 private:
  Segment() = default;
  SegmentHeader* header() const { return reinterpret_cast<SegmentHeader*>(base_); }
  uint32_t header_crc() const;

  std::string path_;
  int fd_ = -1;
  unsigned char* base_ = nullptr;
  uint64_t bytes_ = 0;
};

// Opens a file for reading; nullptr when it cannot be, or is a pipe or device planted to block or flood the reader.
FILE* open_regular(const std::string& path);

// False when the bytes are no header of ours; says why.
bool check_header(const void* bytes, const char* magic, uint32_t record_size, std::string& why);

}  // namespace gpumem
