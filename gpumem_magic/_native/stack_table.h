// Python stacks interned as parent-pointer nodes, and the code objects they refer to.
//
// Not thread-safe: the owner serialises calls. Knows nothing of Python: frame_walker.h brings the facts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hash_map.h"
#include "record_log.h"

namespace gpumem {

class StackTable {
 public:
  explicit StackTable(RecordLog& log) : log_(log) {}

  // Id of the code object at `address`; 0 when it was not seen yet, or died since.
  uint32_t find_code(const void* address) const;
  // Remembers a living code object. Equal contents get an equal id, so a cell that is run again keeps its stacks.
  uint32_t add_code(const void* address, int32_t first_line, std::string_view filename, std::string_view function,
                    std::string_view line_table);
  // The code object at `address` is being destroyed. True when it was known.
  bool forget_code(const void* address) { return by_address_.erase(reinterpret_cast<uintptr_t>(address)); }
  void forget_all_code() { by_address_.clear(); }

  uint32_t node(uint32_t parent, uint32_t code, int32_t lasti);
  size_t node_count() const { return nodes_.size(); }
  size_t code_count() const { return codes_.size(); }

 private:
  struct Node {
    uint32_t parent, code;
    int32_t lasti;
    uint32_t next;  // with the same hash
  };
  struct Code {
    std::string_view contents;  // the record without its id
    uint32_t next;
  };

  RecordLog& log_;
  HashMap by_address_{1 << 10};
  HashMap by_contents_{1 << 10};
  HashMap by_node_{1 << 12};
  std::vector<Code> codes_;
  std::vector<Node> nodes_;
  std::string scratch_;
};

}  // namespace gpumem
