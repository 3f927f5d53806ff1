#include "stack_table.h"

#include <cstring>

namespace gpumem {
namespace {

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  return hash;
}

void put(std::string& out, uint32_t value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }

// A line table that would not fit a record is left out: the frame keeps its names and loses its line.
constexpr size_t kMaxLineTable = RecordLog::kMaxPayload / 2;
constexpr size_t kMaxName = 1 << 16;

}  // namespace

uint32_t StackTable::find_code(const void* address) const {
  const uint32_t id = by_address_.find(reinterpret_cast<uintptr_t>(address));
  return id == HashMap::kAbsentValue ? 0 : id;
}

uint32_t StackTable::add_code(const void* address, int32_t first_line, std::string_view filename,
                              std::string_view function, std::string_view line_table) {
  filename = filename.substr(0, kMaxName);
  function = function.substr(0, kMaxName);
  if (line_table.size() > kMaxLineTable) line_table = {};
  const auto next_id = static_cast<uint32_t>(codes_.size() + 1);
  scratch_.clear();
  put(scratch_, next_id);
  put(scratch_, static_cast<uint32_t>(first_line));
  put(scratch_, static_cast<uint32_t>(filename.size()));
  put(scratch_, static_cast<uint32_t>(function.size()));
  put(scratch_, static_cast<uint32_t>(line_table.size()));
  scratch_.append(filename).append(function).append(line_table);

  const std::string_view contents = std::string_view(scratch_).substr(sizeof next_id);
  const uint64_t hash = hash_bytes(contents);
  const uint32_t first = by_contents_.find(hash);
  for (uint32_t i = first; i != HashMap::kAbsentValue; i = codes_[i].next) {
    if (codes_[i].contents != contents) continue;
    by_address_.insert(reinterpret_cast<uintptr_t>(address), i + 1);
    return i + 1;
  }
  const std::string_view kept = log_.append(kCodeRecord, scratch_);
  codes_.push_back(Code{kept.substr(sizeof next_id), first});
  by_contents_.insert(hash, next_id - 1);
  by_address_.insert(reinterpret_cast<uintptr_t>(address), next_id);
  return next_id;
}

uint32_t StackTable::node(uint32_t parent, uint32_t code, int32_t lasti) {
  const uint64_t hash =
      ((static_cast<uint64_t>(parent) << 32) | code) * 0xD6E8FEB86659FD93ull ^ static_cast<uint32_t>(lasti);
  const uint32_t first = by_node_.find(hash);
  for (uint32_t i = first; i != HashMap::kAbsentValue; i = nodes_[i].next) {
    if (nodes_[i].parent == parent && nodes_[i].code == code && nodes_[i].lasti == lasti) return i + 1;
  }
  nodes_.push_back(Node{parent, code, lasti, first});
  const auto id = static_cast<uint32_t>(nodes_.size());
  by_node_.insert(hash, id - 1);
  const uint32_t record[] = {id, parent, code, static_cast<uint32_t>(lasti)};
  log_.append(kNodeRecord, {reinterpret_cast<const char*>(record), sizeof record});
  return id;
}

}  // namespace gpumem
