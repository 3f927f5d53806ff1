#include "growth.h"

#include <algorithm>

namespace gpumem {

void Growth::see(uint64_t time_ns, int64_t rest, const Ledger::Footprint& footprint) {
  rest = std::max<int64_t>(rest, 0);
  if (context_ < 0) {
    context_ = rest;
    code_ = 0;
    rest_ = rest;
    note_causes(time_ns, footprint);
    return;
  }
  note_causes(time_ns, footprint);
  if (rest > rest_) grow(time_ns, rest - rest_);
  if (rest < rest_) shrink(rest);
  rest_ = rest;
}

void Growth::note_causes(uint64_t time_ns, const Ledger::Footprint& footprint) {
  const bool made = footprint.contexts != seen_.contexts;
  const bool loaded = footprint.modules != seen_.modules;
  if (made) context_at_ = time_ns;
  if (loaded) module_at_ = time_ns;
  if (footprint.contexts_ended != seen_.contexts_ended) context_end_at_ = time_ns;
  seen_ = footprint;
  if (!fresh(time_ns, unclaimed_at_)) unclaimed_ = 0;
  if (!made && !loaded) return;
  (made ? context_ : code_) += unclaimed_;
  unclaimed_ = 0;
}

void Growth::grow(uint64_t time_ns, int64_t bytes) {
  const bool loaded_later = module_at_ > context_at_;
  if (fresh(time_ns, context_at_) && !loaded_later) {
    context_ += bytes;
  } else if (fresh(time_ns, module_at_)) {
    code_ += bytes;
  } else {
    unclaimed_ += bytes;
    unclaimed_at_ = time_ns;
  }
}

// What is not explained goes first, since nobody knows what it was.
void Growth::shrink(int64_t rest) {
  unclaimed_ = 0;
  int64_t lost = context_ + code_ - rest;
  if (lost <= 0) return;
  int64_t& first = context_end_at_ > module_at_ ? context_ : code_;
  int64_t& second = context_end_at_ > module_at_ ? code_ : context_;
  const int64_t taken = std::min(first, lost);
  first -= taken;
  second -= std::min(second, lost - taken);
}

}  // namespace gpumem
