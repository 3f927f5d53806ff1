// Events that collide: few addresses, every kind, wrong orders, failures.
#pragma once

#include "check.h"
#include "event.h"

namespace test {

constexpr uint8_t kKinds[] = {
    1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 32, 33, 34, 35,  36,  37,  38,  39,  40,
    41, 42, 64, 65, 66, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 96, 97, 98, 112, 113, 114, 115, 200,
};

class RandomEvents {
 public:
  explicit RandomEvents(uint64_t seed) : random_(seed) {}

  gpumem::Event next() {
    using namespace gpumem;
    Event event{};
    event.time_ns = time_ns_ += below(random_, 4);
    // Half of all events are plain births and deaths, or nothing would live long enough to meet anything.
    const bool plain = one_in(random_, 2);
    event.kind = kKinds[below(random_, sizeof kKinds)];
    if (plain) event.kind = one_in(random_, 2) ? kAlloc : kFree;
    event.address = below(random_, 24) * 4096;
    event.size = below(random_, 4) * 4096 + below(random_, 3);
    event.handle = below(random_, 24) * 4096;
    event.stack = static_cast<uint32_t>(below(random_, 4));
    event.cell = static_cast<uint32_t>(below(random_, 3));
    event.library = static_cast<uint16_t>(below(random_, 2));
    event.context = static_cast<uint32_t>(below(random_, 3));
    event.device = one_in(random_, 8) ? kNoDevice : static_cast<uint8_t>(below(random_, 3));
    event.status = one_in(random_, 16) ? 2 : 0;
    if (one_in(random_, 12)) event.flags = static_cast<uint16_t>(below(random_, 32));
    // A context that dies often would leave nothing to look at.
    if (event.kind == kContextDestroy && !one_in(random_, 4)) event.context = 99;
    if (event.kind == kSpanBegin) event.address = next_span_++;
    if (event.kind == kSpanEnd) event.address = next_span_ - std::min<uint64_t>(next_span_ - 1, below(random_, 40));
    return event;
  }

 private:
  Random random_;
  uint64_t time_ns_ = 1000;
  uint64_t next_span_ = 1;
};

}  // namespace test
