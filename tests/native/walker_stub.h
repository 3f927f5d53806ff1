// Made-up Python frames for tests without Python: code objects whose addresses are reused, and a stack per thread.
#pragma once

#include <cstdint>
#include <string>

namespace test {

struct Code {
  std::string function;
  std::string filename;
  std::string line_table;
  int32_t first_line = 1;
};

// A code object at an address that an earlier one may have had; as the interpreter does, tells of every death.
const Code* make_code(std::string function);
void drop_code(const Code* code);

// The calling thread runs `code` for as long as this lives.
class Calling {
 public:
  explicit Calling(const Code* code, int32_t instruction = 0);
  ~Calling();
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;
};

}  // namespace test
