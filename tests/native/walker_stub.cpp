#include "walker_stub.h"

#include <mutex>
#include <vector>

#include "frame_walker.h"
#include "tracker.h"

namespace {

struct Running {
  const test::Code* code;
  int32_t instruction;
};
thread_local std::vector<Running> running;

// Plays the part of the GIL and of the allocator, which hands a freed address out again at once.
std::mutex codes_mutex;
std::vector<test::Code*> vacant;

}  // namespace

namespace test {

const Code* make_code(std::string function) {
  const std::lock_guard<std::mutex> lock(codes_mutex);
  Code* code = nullptr;
  if (vacant.empty()) {
    code = new Code;
  } else {
    code = vacant.back();
    vacant.pop_back();
  }
  code->function = std::move(function);
  code->filename = "made_up.py";
  code->line_table = "table of " + code->function;
  return code;
}

void drop_code(const Code* code) {
  const std::lock_guard<std::mutex> lock(codes_mutex);
  gpumem::Tracker::instance().code_destroyed(code);
  vacant.push_back(const_cast<Code*>(code));
}

Calling::Calling(const Code* code, int32_t instruction) { running.push_back({code, instruction}); }
Calling::~Calling() { running.pop_back(); }

}  // namespace test

namespace gpumem {

int walk_frames(RawFrame* frames, int limit) {
  int count = 0;
  for (size_t i = running.size(); i-- > 0 && count < limit;) {
    // A frame's place on the stack is its depth, so places repeat as they do in CPython.
    frames[count++] = RawFrame{reinterpret_cast<const void*>(i + 1), running[i].code, running[i].instruction};
  }
  return count;
}

void read_code(const void* address, CodeFacts& facts) {
  const auto* code = static_cast<const test::Code*>(address);
  facts.function = code->function;
  facts.filename = code->filename;
  facts.line_table = code->line_table;
  facts.first_line = code->first_line;
}

bool watch_code(CodeDestroyed) { return true; }
void unwatch_code() {}
void stop_walking() {}

}  // namespace gpumem
