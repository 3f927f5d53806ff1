// What a process holds on a device beside its allocations, by what made it grow. No call tells the size of a context,
// or of the code and the local memory of kernels that are loaded when they are first used; but the driver says when it
// made the one or loaded the other, and NVML says how much more the process holds since.
//
// Not thread-safe.
#pragma once

#include <cstdint>

#include "ledger.h"

namespace gpumem {

class Growth {
 public:
  // How long before and after its cause growth is taken to come of it: NVML and the driver's callbacks do not keep
  // step.
  static constexpr uint64_t kFreshNs = 1000000000;

  // `rest` bytes beside allocations were measured while no memory came or went. Calls come in order of time.
  void see(uint64_t time_ns, int64_t rest, const Ledger::Footprint& footprint);

  // Unknown before the first measurement. The first one finds what was there already: that counts as context.
  int64_t context_bytes() const { return context_; }
  int64_t code_bytes() const { return code_; }

 private:
  void note_causes(uint64_t time_ns, const Ledger::Footprint& footprint);
  void grow(uint64_t time_ns, int64_t bytes);
  void shrink(int64_t rest);
  static bool fresh(uint64_t time_ns, uint64_t at) { return at != 0 && time_ns - at <= kFreshNs; }

  int64_t context_ = -1, code_ = -1;
  int64_t rest_ = 0;
  int64_t unclaimed_ = 0;  // grew lately, for no reason that is known yet
  uint64_t unclaimed_at_ = 0;
  uint64_t context_at_ = 0, context_end_at_ = 0, module_at_ = 0;
  Ledger::Footprint seen_{};
};

}  // namespace gpumem
