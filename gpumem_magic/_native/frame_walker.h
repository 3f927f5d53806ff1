// Walks the calling thread's own Python frames without the GIL.
//
// This is sound because the frames belong to the calling thread: it is inside a C call made by the innermost of them,
// so none can return or change while we look. Each running frame keeps its code object alive.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gpumem {

struct RawFrame {
  const void* frame;
  const void* code;
  int32_t lasti;  // instruction index in code units

  bool operator==(const RawFrame& other) const {
    return frame == other.frame && code == other.code && lasti == other.lasti;
  }
};

// Frames of the calling thread, innermost first, at most `limit`; 0 for a thread that Python does not know.
int walk_frames(RawFrame* frames, int limit);

struct CodeFacts {
  std::string filename, function;
  std::string_view line_table;  // the code object's own bytes
  int32_t first_line;
};
// Reads a code object that a frame from walk_frames() is running.
void read_code(const void* address, CodeFacts& facts);

// Called with the address of every code object that is destroyed, on whatever thread, under the GIL.
using CodeDestroyed = void (*)(const void* code);
// Starts and stops the calls to `destroyed`. Both need the GIL. False when this interpreter offers no way.
bool watch_code(CodeDestroyed destroyed);
void unwatch_code();

// From here on walk_frames() returns nothing: the interpreter is going away. Callable without the GIL.
void stop_walking();

}  // namespace gpumem
