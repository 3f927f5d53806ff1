// Open-addressing map from 64-bit keys to 32-bit values. Deletion shifts back instead of leaving tombstones, so a
// table that sees millions of births and deaths stays as quick as a new one.
#pragma once

#include <cstdint>
#include <vector>

namespace gpumem {

class HashMap {
 public:
  static constexpr uint32_t kAbsentValue = UINT32_MAX;

  explicit HashMap(size_t capacity = 64) { slots_.resize(round_up(capacity)); }

  uint32_t find(uint64_t key) const {
    for (size_t i = home(key);; i = next(i)) {
      if (slots_[i].value == kAbsentValue) return kAbsentValue;
      if (slots_[i].key == key) return slots_[i].value;
    }
  }

  // Replaces the value of a key that is there already.
  void insert(uint64_t key, uint32_t value) {
    if ((size_ + 1) * 8 > slots_.size() * 5) grow();
    size_t i = home(key);
    while (slots_[i].value != kAbsentValue && slots_[i].key != key) i = next(i);
    if (slots_[i].value == kAbsentValue) ++size_;
    slots_[i] = {key, value};
  }

  bool erase(uint64_t key) {
    size_t hole = home(key);
    while (slots_[hole].key != key || slots_[hole].value == kAbsentValue) {
      if (slots_[hole].value == kAbsentValue) return false;
      hole = next(hole);
    }
    // Close the gap: whoever probed past the hole on the way to its place moves into it.
    for (size_t i = next(hole); slots_[i].value != kAbsentValue; i = next(i)) {
      const size_t wanted = home(slots_[i].key);
      const bool reachable = ((i - wanted) & mask()) >= ((i - hole) & mask());
      if (!reachable) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole].value = kAbsentValue;
    --size_;
    return true;
  }

  void clear() {
    for (Slot& slot : slots_) slot.value = kAbsentValue;
    size_ = 0;
  }

  size_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t value = kAbsentValue;
  };

  static size_t round_up(size_t wanted) {
    size_t size = 16;
    while (size < wanted) size *= 2;
    return size;
  }
  size_t mask() const { return slots_.size() - 1; }
  size_t next(size_t i) const { return (i + 1) & mask(); }
  size_t home(uint64_t key) const {
    // Pointers differ in their middle bits: a multiplicative hash spreads them, its high bits are the good ones.
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> 24) & mask();
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.value == kAbsentValue) continue;
      size_t i = home(slot.key);
      while (slots_[i].value != kAbsentValue) i = next(i);
      slots_[i] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace gpumem
