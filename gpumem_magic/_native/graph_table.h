// Memory that CUDA graphs allocate: planned when a node is added or captured, live when the graph is launched.
//
// Not thread-safe: the owner serialises calls.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "event.h"

namespace gpumem {

class GraphTable {
 public:
  // `node` is a kGraphNodeAlloc or kGraphNodeFree event; its `handle` is the graph.
  void add(const Event& node) { graphs_[node.handle].push_back(node); }
  void clone(uint64_t copy, uint64_t original) { copy_nodes(graphs_, copy, graphs_, original); }
  void instantiate(uint64_t executable, uint64_t graph) { copy_nodes(executables_, executable, graphs_, graph); }
  // Graphs may have been destroyed, and their handles reused, while nobody looked. An executable's handle may too, but
  // instantiating says anew what it holds.
  void forget_graphs() { graphs_.clear(); }
  void destroy(uint64_t graph) { graphs_.erase(graph); }
  void destroy_executable(uint64_t executable) { executables_.erase(executable); }

  // Events that a launch brings about: births of what the graph allocates and leaves, deaths of what it frees but did
  // not allocate. Memory that is both allocated and freed inside never leaves the graph's own pool.
  std::vector<Event> launch(uint64_t executable) const;

 private:
  using Nodes = std::unordered_map<uint64_t, std::vector<Event>>;
  static void copy_nodes(Nodes& to, uint64_t key, const Nodes& from, uint64_t original);

  Nodes graphs_;
  Nodes executables_;
};

}  // namespace gpumem
