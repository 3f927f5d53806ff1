#include "record_log.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "crc32.h"

namespace gpumem {
namespace {

// Calls `visit(address, header, size with padding)` for each record among `used` bytes at `bytes`.
template <class Visit>
void for_each_record(char* bytes, size_t used, Visit visit) {
  for (size_t at = 0; at < used;) {
    RecordHeader header;
    std::memcpy(&header, bytes + at, sizeof header);
    const size_t total = sizeof header + ((header.length + 3) & ~size_t{3});
    visit(bytes + at, header, total);
    at += total;
  }
}

}  // namespace

std::string_view RecordLog::append(RecordType type, std::string_view payload) {
  if (payload.size() > kMaxPayload) return {};
  const size_t padded = (payload.size() + 3) & ~size_t{3};
  const size_t total = sizeof(RecordHeader) + padded;
  if (chunks_.empty() || chunks_.back().capacity - chunks_.back().used < total) {
    const size_t capacity = std::max(kChunkBytes, total);
    chunks_.push_back(Chunk{std::make_unique<char[]>(capacity), 0, capacity, size_});
  }
  Chunk& chunk = chunks_.back();
  char* at = chunk.bytes.get() + chunk.used;
  const RecordHeader header{static_cast<uint32_t>(payload.size()), type, 0, crc32(payload.data(), payload.size())};
  std::memcpy(at, &header, sizeof header);
  std::memcpy(at + sizeof header, payload.data(), payload.size());
  std::memset(at + sizeof header + payload.size(), 0, padded - payload.size());
  chunk.used += total;
  size_ += total;
  write_through(at, total);
  return {at + sizeof header, payload.size()};
}

void RecordLog::write_through(const char* bytes, size_t size) {
  if (directory_.empty()) return;
  if (segment_ == nullptr || segment_->bytes() - segment_->committed() < size) {
    uint64_t first = 0;
    if (segment_ != nullptr) {
      first = segment_->first() + segment_->committed();
      segment_->seal();
    }
    char name[32];
    std::snprintf(name, sizeof name, "/tables-%08u.bin", ++number_);
    int error = 0;
    segment_.reset(Segment::create(directory_ + name, kTableMagic, 0, number_, kSegmentBytes, error));
    if (segment_ == nullptr) {
      if (error_ == 0) error_ = error;
      directory_.clear();
      return;
    }
    segment_->set_first(first);
  }
  const uint64_t used = segment_->committed();
  std::memcpy(segment_->payload() + used, bytes, size);
  segment_->commit(used + size);
}

void RecordLog::open(const std::string& directory) {
  close();
  forget_earlier();
  directory_ = directory;
  number_ = 0;
  error_ = 0;
  for (const Chunk& chunk : chunks_) {
    for_each_record(chunk.bytes.get(), chunk.used, [&](char* at, const RecordHeader& header, size_t total) {
      if (header.type != kForgottenRecord) write_through(at, total);
    });
  }
}

// Records stay where they are, for others hold views of them; a chunk goes once nothing in it is needed.
void RecordLog::forget_earlier() {
  std::vector<Chunk> kept;
  size_ = 0;
  for (Chunk& chunk : chunks_) {
    bool needed = false;
    for_each_record(chunk.bytes.get(), chunk.used, [&](char* at, RecordHeader header, size_t) {
      if (header.type == kSpanRecord || header.type == kNoteRecord) {
        header.type = kForgottenRecord;
        std::memcpy(at, &header, sizeof header);
      }
      needed |= header.type != kForgottenRecord;
    });
    if (!needed) continue;
    chunk.first = size_;
    size_ += chunk.used;
    kept.push_back(std::move(chunk));
  }
  chunks_ = std::move(kept);
}

void RecordLog::close() {
  if (segment_ != nullptr) segment_->finish();
  segment_.reset();
  directory_.clear();
}

void RecordLog::abandon() {
  directory_.clear();
  segment_.release();  // NOLINT(bugprone-unused-return-value): unmapping is not safe in every forked child
}

std::string RecordLog::read(uint64_t from) const {
  std::string bytes;
  for (const Chunk& chunk : chunks_) {
    const uint64_t end = chunk.first + chunk.used;
    if (end <= from) continue;
    const size_t skip = from > chunk.first ? from - chunk.first : 0;
    bytes.append(chunk.bytes.get() + skip, chunk.used - skip);
  }
  return bytes;
}

}  // namespace gpumem
