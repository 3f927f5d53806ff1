// Who keeps what alive in a directed graph of objects: reachability from named roots, shortest paths, dominators, and
// what the garbage collector would free. Knows nothing of Python.
//
// Vertices of the working graph are the super-root, the entries (a name that refers to a node), the nodes from which
// some memory can be reached, and the memories. Every step is iterative: a chain of a million objects is no deeper than
// a short one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gpumem {

enum NodeFlag : uint8_t {
  kAnchored = 1,   // has a name of its own: references to it are not followed
  kNamespace = 2,  // its references are entries, and no path leads through it
};

enum Fate : uint8_t {
  kReached = 0,
  kGarbage = 1,  // every reference comes from objects that are themselves unreachable
  kOpaque = 2,   // something that Python does not see refers to it
  kNobody = 3,   // no object knows it
};

struct Hold {
  int32_t node, memory;
  uint8_t hidden;  // the collector does not see this reference
};

// A graph that somebody else keeps.
struct Objects {
  int32_t size;
  const int64_t* offsets;  // of each node's references in `targets`, and the end
  const int32_t* targets;
  const int64_t* reference_counts;
  const uint8_t* flags;  // NodeFlag
};

struct Names {
  std::vector<int32_t> nodes;    // what each name refers to
  std::vector<uint8_t> classes;  // below 16
};

struct Path {
  int32_t entry;
  std::vector<int32_t> nodes;  // from what the name refers to, to what holds the memory
};

// Edges by the vertex that they leave.
struct Csr {
  std::vector<int64_t> offsets;
  std::vector<int32_t> targets;
};

class Retention {
 public:
  Retention(const Objects& objects, Names names, std::vector<Hold> holds, std::vector<uint64_t> memory_bytes);

  // Per memory: bit c when a name of class c reaches it, bit c + 16 when one does through a hidden reference.
  const std::vector<uint32_t>& reaching_classes() const { return reaching_; }
  const std::vector<uint8_t>& fates() const { return fates_; }
  // Per entry: bytes of all memory that would go if only this name went.
  const std::vector<uint64_t>& exclusive_bytes() const { return exclusive_; }

  // For every name that reaches `memory`, nearest first, its shortest path; at most `limit` of each class.
  // `total` is the number of names that reach it.
  std::vector<Path> paths(int32_t memory, size_t limit, size_t& total);
  // Memories that these names reach.
  std::vector<int32_t> held(const std::vector<int32_t>& entries) const;
  // Memories that would go if these names went together. One of no bytes belongs to nobody, so that what Python does
  // not see knows its address but does not keep it.
  std::vector<int32_t> freed(const std::vector<int32_t>& entries) const;
  // A path to `memory`, which no name reaches, from the nearest object that is held from outside, or else from one a
  // few references away.
  Path unreached_path(int32_t memory);

 private:
  void collect_ancestors(const Objects& objects, const Csr& referrers);
  void build(const Objects& objects);
  void spread_classes();
  void decide_fates(const Objects& objects, const std::vector<int32_t>& in_degrees);
  void sum_dominated();

  int32_t entry_vertex(size_t entry) const { return 1 + static_cast<int32_t>(entry); }
  int32_t memory_vertex(int32_t memory) const { return first_memory_ + memory; }
  std::vector<uint8_t> seen_from(std::vector<int32_t> queue, std::vector<uint8_t> is_seen) const;
  bool is_node(int32_t vertex) const { return vertex >= first_node_ && vertex < first_memory_; }

  Names names_;
  std::vector<Hold> holds_;
  std::vector<uint64_t> memory_bytes_;
  std::vector<int32_t> vertex_of_node_;  // 0 for a node from which no memory is reached
  std::vector<int32_t> ancestors_;       // node of each node vertex
  int32_t first_node_ = 0, first_memory_ = 0, vertices_ = 0;
  Csr forward_, backward_;
  std::vector<uint8_t> is_opaque_seed_, is_reached_;
  std::vector<uint8_t> is_opaque_;  // per memory: something that Python does not see holds it, also beside names
  std::vector<uint32_t> reaching_;
  std::vector<uint8_t> fates_;
  std::vector<uint64_t> exclusive_;
  std::vector<uint32_t> seen_;  // the search that saw a vertex last
  std::vector<int32_t> next_;   // its step towards the memory of that search
  uint32_t search_ = 0;
};

// Immediate dominators from vertex 0; -1 for vertex 0 and for what it does not reach. `preorder` gets what it reaches.
std::vector<int32_t> dominators(const std::vector<int64_t>& offsets, const std::vector<int32_t>& targets,
                                std::vector<int32_t>& preorder);

}  // namespace gpumem
