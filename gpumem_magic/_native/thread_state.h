// What the tracker keeps per thread, so that the callback of a busy thread touches nothing shared but the ledger.
#pragma once

#include <cstdint>

#include "caller.h"
#include "frame_walker.h"

namespace gpumem {

struct ThreadState {
  static constexpr int kMaxDepth = 512;

  bool inside = false;    // in a callback: calls made from there are our own
  bool has_span = false;  // `span` was set on this thread, by its own cell or by the one that started it
  bool inherited = false;
  uint32_t thread = 0;  // operating system's id
  uint32_t span = 0;

  // The last capture: frames_[0, depth) innermost first and the stack node of each.
  uint64_t epoch = 0;  // valid for this generation of code objects only
  int depth = 0;
  RawFrame frames[kMaxDepth];
  uint32_t nodes[kMaxDepth];
  RawFrame fresh[kMaxDepth];

  uint32_t context_id = 0;  // the last one looked up
  uint8_t device = 255;
  uint64_t stream_handle = 0;
  uint32_t stream = 0;

  uint32_t free_correlation = 0;  // the free that is under way on this thread
  uint64_t free_serial = 0;
  uint64_t wait_begin_ns = 0;
  uint32_t tick = 0;  // for timing one callback in many

  CallerCache callers;
};

// The calling thread's state; made on first use, given back when the thread ends. nullptr when memory is gone.
ThreadState* thread_state();

}  // namespace gpumem
