// The records that events refer to (code objects, stack nodes, libraries, streams, spans, notes): kept in memory for
// the live reader, and written through to the recording's table segments.
//
// Not thread-safe: the owner serialises calls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "segment.h"

namespace gpumem {

enum RecordType : uint16_t {
  kForgottenRecord = 0,  // in memory only
  kCodeRecord = 1,
  kNodeRecord = 2,
  kLibraryRecord = 3,
  kStreamRecord = 4,
  kSpanRecord = 5,
  kNoteRecord = 6,
  kContextRecord = 7,
};

struct RecordHeader {
  uint32_t length;
  uint16_t type;
  uint16_t reserved;
  uint32_t crc;
};
static_assert(sizeof(RecordHeader) == 12, "docs/recording-format.md gives this layout");

class RecordLog {
 public:
  static constexpr size_t kMaxPayload = 1 << 20;

  // Appends one record; a payload over kMaxPayload is refused (empty result). Returns the payload as it is kept:
  // it stays where it is for the life of the log.
  std::string_view append(RecordType type, std::string_view payload);

  // Starts a recording in `directory` (in memory only, when empty), beginning with everything appended so far that ids
  // may still refer to. Spans and notes told of an earlier recording: they are forgotten, and offsets count anew.
  void open(const std::string& directory);
  void close();
  // In the child of a fork: leave the parent's files alone.
  void abandon();

  // Everything from byte offset `from` of the log on; whole records.
  std::string read(uint64_t from) const;
  uint64_t size() const { return size_; }
  int error() const { return error_; }

 private:
  static constexpr size_t kChunkBytes = 1 << 18;
  static constexpr size_t kSegmentBytes = 1 << 22;
  struct Chunk {
    std::unique_ptr<char[]> bytes;
    size_t used, capacity;
    uint64_t first;
  };
  void write_through(const char* bytes, size_t size);
  void forget_earlier();

  std::vector<Chunk> chunks_;
  uint64_t size_ = 0;
  std::string directory_;
  std::unique_ptr<Segment> segment_;
  uint32_t number_ = 0;
  int error_ = 0;
};

}  // namespace gpumem
