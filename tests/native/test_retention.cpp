// Who keeps what alive: random graphs against a reference that is slow and obvious, and graphs that are odd or deep.
#include <utility>

#include "check.h"
#include "retention.h"

namespace {

using namespace gpumem;

constexpr int kFewSteps = 6;  // of a path that starts at nothing in particular
constexpr int kFar = -1;

// What a Retention is made of, in a form that is easy to write down and easy to follow.
struct Graph {
  std::vector<std::vector<int32_t>> references;
  std::vector<int64_t> held_from_outside;  // references to each node that are not in `references`
  std::vector<uint8_t> flags;
  Names names;
  std::vector<Hold> holds;
  std::vector<uint64_t> memory_bytes;

  explicit Graph(int32_t size) : references(size), held_from_outside(size, 0), flags(size, 0) {}

  int32_t size() const { return static_cast<int32_t>(references.size()); }
  int32_t memories() const { return static_cast<int32_t>(memory_bytes.size()); }
  int32_t entries() const { return static_cast<int32_t>(names.nodes.size()); }

  Graph& refer(int32_t from, int32_t to) { return references[from].push_back(to), *this; }
  Graph& name(int32_t node, uint8_t name_class = 0) {
    names.classes.push_back(name_class);
    return names.nodes.push_back(node), *this;
  }
  Graph& hold(int32_t node, int32_t memory, bool is_hidden = false) {
    return holds.push_back({node, memory, static_cast<uint8_t>(is_hidden)}), *this;
  }
  Graph& memory(uint64_t bytes) { return memory_bytes.push_back(bytes), *this; }

  Retention retention() const {
    std::vector<int64_t> offsets{0};
    std::vector<int32_t> targets;
    std::vector<int64_t> counts = held_from_outside;
    for (const auto& each : references) {
      for (const int32_t target : each) {
        targets.push_back(target);
        ++counts[target];
      }
      offsets.push_back(static_cast<int64_t>(targets.size()));
    }
    return {{size(), offsets.data(), targets.data(), counts.data(), flags.data()}, names, holds, memory_bytes};
  }
};

// ---- the reference --------------------------------------------------------------------------------------------------

bool is_passable(const Graph& graph, int32_t node) { return (graph.flags[node] & kNamespace) == 0; }

bool is_followed(const Graph& graph, int32_t from, int32_t to) {
  return is_passable(graph, from) && is_passable(graph, to) && (graph.flags[to] & kAnchored) == 0;
}

bool refers(const Graph& graph, int32_t from, int32_t to) {
  const std::vector<int32_t>& targets = graph.references[from];
  return is_followed(graph, from, to) && std::find(targets.begin(), targets.end(), to) != targets.end();
}

bool holds(const Graph& graph, int32_t node, int32_t memory) {
  const auto is_it = [&](const Hold& hold) { return hold.node == node && hold.memory == memory; };
  return is_passable(graph, node) && std::any_of(graph.holds.begin(), graph.holds.end(), is_it);
}

// Steps from `start` to every node, kFar where no way leads: relaxed until nothing changes.
std::vector<int> distances(const Graph& graph, int32_t start) {
  std::vector<int> steps(graph.size(), kFar);
  if (!is_passable(graph, start)) return steps;
  steps[start] = 0;
  for (bool is_changed = true; is_changed;) {
    is_changed = false;
    for (int32_t from = 0; from < graph.size(); ++from) {
      if (steps[from] == kFar) continue;
      for (const int32_t to : graph.references[from]) {
        if (!is_followed(graph, from, to) || (steps[to] != kFar && steps[to] <= steps[from] + 1)) continue;
        steps[to] = steps[from] + 1;
        is_changed = true;
      }
    }
  }
  return steps;
}

class Reference {
 public:
  explicit Reference(const Graph& graph) : graph_(graph) {
    for (int32_t node = 0; node < graph.size(); ++node) steps_.push_back(distances(graph, node));
  }

  // Nodes on the shortest path from `node` to what holds `memory`, 0 where there is none.
  size_t path_length(int32_t node, int32_t memory) const {
    int shortest = kFar;
    for (const Hold& hold : graph_.holds) {
      const int steps = steps_[node][hold.node];
      if (hold.memory == memory && steps != kFar && (shortest == kFar || steps < shortest)) shortest = steps;
    }
    return static_cast<size_t>(shortest + 1);
  }

  size_t entry_path_length(int32_t entry, int32_t memory) const {
    return path_length(graph_.names.nodes[entry], memory);
  }

  uint32_t reaching_classes(int32_t memory) const {
    uint32_t classes = 0;
    for (int32_t entry = 0; entry < graph_.entries(); ++entry) {
      for (const Hold& hold : graph_.holds) {
        if (hold.memory != memory || steps_[graph_.names.nodes[entry]][hold.node] == kFar) continue;
        classes |= 1u << (graph_.names.classes[entry] + (hold.hidden != 0 ? 16 : 0));
      }
    }
    return classes;
  }

  bool is_reached(int32_t memory, const std::vector<int32_t>& without = {}) const {
    for (int32_t entry = 0; entry < graph_.entries(); ++entry) {
      const bool is_left = std::find(without.begin(), without.end(), entry) == without.end();
      if (is_left && entry_path_length(entry, memory) != 0) return true;
    }
    return false;
  }

  // Whether native code keeps it, perhaps beside names: through a node that no name reaches.
  bool is_opaque(int32_t memory) const {
    for (int32_t node = 0; node < graph_.size(); ++node) {
      const auto reaches = [&](int32_t start) { return steps_[start][node] != kFar; };
      const auto& names = graph_.names.nodes;
      if (!is_held_from_outside(node) || path_length(node, memory) == 0) continue;
      if (std::none_of(names.begin(), names.end(), reaches)) return true;
    }
    return false;
  }

  std::vector<int32_t> freed(const std::vector<int32_t>& entries) const {
    std::vector<int32_t> memories;
    for (int32_t memory = 0; memory < graph_.memories(); ++memory) {
      if (is_reached(memory) && !is_reached(memory, entries) && !is_opaque(memory)) memories.push_back(memory);
    }
    return memories;
  }

  uint64_t freed_bytes(const std::vector<int32_t>& entries) const {
    uint64_t bytes = 0;
    for (const int32_t memory : freed(entries)) bytes += graph_.memory_bytes[memory];
    return bytes;
  }

  // Nodes from which `memory`, which no name reaches, is reached.
  std::vector<int32_t> holders(int32_t memory) const {
    std::vector<int32_t> found;
    for (int32_t node = 0; node < graph_.size(); ++node) {
      if (path_length(node, memory) != 0) found.push_back(node);
    }
    return found;
  }

  bool is_held_from_outside(int32_t node) const { return graph_.held_from_outside[node] > 0; }

  Fate fate(int32_t memory) const {
    if (is_reached(memory)) return kReached;
    const std::vector<int32_t> found = holders(memory);
    if (found.empty()) return kNobody;
    const bool is_opaque = std::any_of(found.begin(), found.end(), [&](int32_t n) { return is_held_from_outside(n); });
    return is_opaque ? kOpaque : kGarbage;
  }

  size_t unreached_length(int32_t memory) const {
    size_t nearest = 0;
    size_t furthest = 0;
    for (const int32_t node : holders(memory)) {
      const size_t length = path_length(node, memory);
      furthest = std::max(furthest, length);
      if (is_held_from_outside(node) && (nearest == 0 || length < nearest)) nearest = length;
    }
    return nearest != 0 ? nearest : std::min<size_t>(furthest, kFewSteps);
  }

 private:
  const Graph& graph_;
  std::vector<std::vector<int>> steps_;
};

// ---- the comparison -------------------------------------------------------------------------------------------------

void check_is_a_path(const Graph& graph, const std::vector<int32_t>& nodes, int32_t memory) {
  CHECK(!nodes.empty());
  for (size_t i = 1; i < nodes.size(); ++i) CHECK(refers(graph, nodes[i - 1], nodes[i]));
  CHECK(holds(graph, nodes.back(), memory));
}

void check_paths(const Graph& graph, const Reference& reference, Retention& retention, int32_t memory, size_t limit) {
  std::vector<std::vector<size_t>> expected(16);
  size_t reaching = 0;
  for (int32_t entry = 0; entry < graph.entries(); ++entry) {
    const size_t length = reference.entry_path_length(entry, memory);
    if (length == 0) continue;
    ++reaching;
    expected[graph.names.classes[entry]].push_back(length);
  }
  for (auto& lengths : expected) {
    std::sort(lengths.begin(), lengths.end());
    lengths.resize(std::min(lengths.size(), limit));
  }
  size_t total = 12345;
  std::vector<std::vector<size_t>> lengths(16);
  std::vector<int32_t> entries;
  size_t last = 0;
  for (const Path& path : retention.paths(memory, limit, total)) {
    check_is_a_path(graph, path.nodes, memory);
    CHECK_EQ(path.nodes.front(), graph.names.nodes[path.entry]);
    CHECK_EQ(path.nodes.size(), reference.entry_path_length(path.entry, memory));
    CHECK(path.nodes.size() >= last);
    last = path.nodes.size();
    lengths[graph.names.classes[path.entry]].push_back(last);
    entries.push_back(path.entry);
  }
  CHECK_EQ(total, reaching);
  CHECK(lengths == expected);
  std::sort(entries.begin(), entries.end());
  CHECK(std::unique(entries.begin(), entries.end()) == entries.end());
}

void check_unreached_path(const Graph& graph, const Reference& reference, Retention& retention, int32_t memory) {
  const Path path = retention.unreached_path(memory);
  CHECK_EQ(path.entry, -1);
  CHECK_EQ(path.nodes.size(), reference.unreached_length(memory));
  if (path.nodes.empty()) return;
  check_is_a_path(graph, path.nodes, memory);
  CHECK_EQ(path.nodes.size(), reference.path_length(path.nodes.front(), memory));
  CHECK_EQ(reference.is_held_from_outside(path.nodes.front()), reference.fate(memory) == kOpaque);
}

void check_memory(const Graph& graph, const Reference& reference, Retention& retention, int32_t memory) {
  CHECK_EQ(retention.reaching_classes()[memory], reference.reaching_classes(memory));
  CHECK_EQ(retention.fates()[memory], reference.fate(memory));
  for (const size_t limit : {0, 1, 3, 1000}) check_paths(graph, reference, retention, memory, limit);
  if (reference.fate(memory) != kReached) check_unreached_path(graph, reference, retention, memory);
}

// Compares everything; names that go together are chosen with `random`.
void check_all(const Graph& graph, Retention& retention, test::Random& random) {
  const Reference reference(graph);
  CHECK_EQ(retention.fates().size(), graph.memory_bytes.size());
  CHECK_EQ(retention.reaching_classes().size(), graph.memory_bytes.size());
  CHECK_EQ(retention.exclusive_bytes().size(), graph.names.nodes.size());
  for (int32_t memory = 0; memory < graph.memories(); ++memory) check_memory(graph, reference, retention, memory);
  for (int32_t entry = 0; entry < graph.entries(); ++entry) {
    CHECK_EQ(retention.exclusive_bytes()[entry], reference.freed_bytes({entry}));
    CHECK(retention.freed({entry, entry}) == reference.freed({entry}));
    for (const int32_t memory : retention.held({entry})) CHECK(reference.entry_path_length(entry, memory) != 0);
  }
  CHECK(retention.freed({}).empty());
  for (int choice = 0; choice < 5; ++choice) {
    std::vector<int32_t> entries;
    for (int32_t entry = 0; entry < graph.entries(); ++entry) {
      if (test::one_in(random, 2)) entries.push_back(entry);
    }
    CHECK(retention.freed(entries) == reference.freed(entries));
  }
}

Retention checked(const Graph& graph) {
  test::Random random(1);
  Retention retention = graph.retention();
  check_all(graph, retention, random);
  return retention;
}

// ---- random graphs --------------------------------------------------------------------------------------------------

// From nearly no references to many, with few or no special nodes, so that paths are long in some and many in others.
Graph random_graph(test::Random& random) {
  Graph graph(1 + static_cast<int32_t>(test::below(random, 24)));
  const auto any_node = [&] { return static_cast<int32_t>(test::below(random, graph.size())); };
  for (uint64_t left = test::below(random, 3 * graph.size()); left > 0; --left) graph.refer(any_node(), any_node());
  if (test::one_in(random, 3)) {
    for (int32_t node = 1; node < graph.size(); ++node) graph.refer(node - 1, node);
  }
  const uint64_t outside_in = 2 + test::below(random, 30);
  const bool has_flags = test::one_in(random, 2);
  for (int32_t node = 0; node < graph.size(); ++node) {
    if (test::one_in(random, outside_in)) graph.held_from_outside[node] = test::one_in(random, 8) ? -1 : 2;
    if (!has_flags) continue;
    if (test::one_in(random, 8)) graph.flags[node] |= kAnchored;
    if (test::one_in(random, 10)) graph.flags[node] |= kNamespace;
  }
  for (uint64_t left = test::below(random, 7); left > 0; --left) {
    graph.name(any_node(), static_cast<uint8_t>(test::one_in(random, 2) ? test::below(random, 16) : 15));
  }
  const uint64_t memories = test::below(random, 6);
  // One bit each, also high ones: a sum names its parts, and none is cut off.
  for (uint64_t memory = 0; memory < memories; ++memory) graph.memory(1ull << (memory * 12));
  for (uint64_t left = memories == 0 ? 0 : test::below(random, 2 * memories + 1); left > 0; --left) {
    graph.hold(any_node(), static_cast<int32_t>(test::below(random, memories)), test::one_in(random, 3));
  }
  return graph;
}

void random_graphs() {
  std::vector<int> of_fate(4, 0);
  size_t longest = 0;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    test::Random random(seed);
    const Graph graph = random_graph(random);
    Retention retention = graph.retention();
    check_all(graph, retention, random);
    for (int32_t memory = 0; memory < graph.memories(); ++memory) {
      ++of_fate[retention.fates()[memory]];
      size_t total = 0;
      for (const Path& path : retention.paths(memory, 10, total)) longest = std::max(longest, path.nodes.size());
    }
  }
  for (const int count : of_fate) CHECK(count > 300);  // or the graphs would be too much alike
  CHECK(longest > 12);
}

// ---- dominators on their own ----------------------------------------------------------------------------------------

struct Edges {
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> targets;
};

Edges random_edges(test::Random& random) {
  Edges edges;
  const uint64_t size = 1 + test::below(random, 20);
  const uint64_t most = 1 + test::below(random, 4);
  for (uint64_t vertex = 0; vertex < size; ++vertex) {
    for (uint64_t left = test::below(random, most + 1); left > 0; --left) {
      edges.targets.push_back(static_cast<int32_t>(test::below(random, size)));
    }
    edges.offsets.push_back(static_cast<int64_t>(edges.targets.size()));
  }
  return edges;
}

std::vector<bool> reached_without(const Edges& edges, int32_t removed) {
  std::vector<bool> is_reached(edges.offsets.size() - 1, false);
  std::vector<int32_t> queue;
  const auto reach = [&](int32_t vertex) {
    if (vertex == removed || is_reached[vertex]) return;
    is_reached[vertex] = true;
    queue.push_back(vertex);
  };
  reach(0);
  for (size_t i = 0; i < queue.size(); ++i) {
    for (int64_t e = edges.offsets[queue[i]]; e < edges.offsets[queue[i] + 1]; ++e) reach(edges.targets[e]);
  }
  return is_reached;
}

// By the definition: u dominates v when v is out of reach without u. Of v's dominators the one that has most of its
// own is the immediate one.
std::vector<int32_t> slow_dominators(const Edges& edges) {
  const auto size = static_cast<int32_t>(edges.offsets.size() - 1);
  const std::vector<bool> is_reached = reached_without(edges, -1);
  std::vector<std::vector<int32_t>> strict(size);
  for (int32_t u = 0; u < size; ++u) {
    const std::vector<bool> is_left = reached_without(edges, u);
    for (int32_t v = 0; v < size; ++v) {
      if (u != v && is_reached[u] && is_reached[v] && !is_left[v]) strict[v].push_back(u);
    }
  }
  std::vector<int32_t> immediate(size, -1);
  for (int32_t v = 0; v < size; ++v) {
    for (const int32_t u : strict[v]) {
      if (immediate[v] < 0 || strict[u].size() > strict[immediate[v]].size()) immediate[v] = u;
    }
  }
  return immediate;
}

void dominators_of_random_graphs() {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    test::Random random(seed);
    const Edges edges = random_edges(random);
    std::vector<int32_t> preorder{7, 7, 7};
    CHECK(dominators(edges.offsets, edges.targets, preorder) == slow_dominators(edges));
    const std::vector<bool> is_reached = reached_without(edges, -1);
    CHECK_EQ(preorder.size(), static_cast<size_t>(std::count(is_reached.begin(), is_reached.end(), true)));
    std::sort(preorder.begin(), preorder.end());
    CHECK(std::unique(preorder.begin(), preorder.end()) == preorder.end());
    for (const int32_t vertex : preorder) CHECK(is_reached[vertex]);
  }
}

// ---- odd graphs -----------------------------------------------------------------------------------------------------

void nothing_at_all() {
  checked(Graph(0));
  checked(Graph(3).refer(0, 1));
  CHECK_EQ(checked(Graph(0).memory(5)).fates()[0], kNobody);
}

void names_without_memory() {
  const Retention retention = checked(Graph(2).refer(0, 1).name(0).name(1));
  CHECK(retention.exclusive_bytes() == std::vector<uint64_t>({0, 0}));
}

void memory_without_names() {
  Graph graph = Graph(2).refer(0, 1).refer(1, 0).hold(1, 0).memory(5);
  CHECK_EQ(checked(graph).fates()[0], kGarbage);
  graph.held_from_outside[0] = 1;
  Retention retention = checked(graph);
  CHECK_EQ(retention.fates()[0], kOpaque);
  CHECK(retention.unreached_path(0).nodes == std::vector<int32_t>({0, 1}));
}

void self_loops() {
  const Graph reached = Graph(2).refer(0, 0).refer(0, 1).refer(1, 1).name(0).hold(1, 0).memory(5);
  CHECK_EQ(checked(reached).exclusive_bytes()[0], 5u);
  CHECK_EQ(checked(Graph(1).refer(0, 0).hold(0, 0).memory(5)).fates()[0], kGarbage);
}

void a_name_of_the_memory_itself() {
  Retention retention = checked(Graph(1).name(0, 2).name(0, 3).hold(0, 0).memory(5));
  size_t total = 0;
  const std::vector<Path> paths = retention.paths(0, 10, total);
  CHECK_EQ(paths.size(), 2u);
  CHECK(paths[0].nodes == std::vector<int32_t>({0}));
  CHECK_EQ(retention.reaching_classes()[0], 0b1100u);
  CHECK(retention.exclusive_bytes() == std::vector<uint64_t>({0, 0}));
  CHECK(retention.freed({0, 1}) == std::vector<int32_t>({0}));
}

void a_name_beside_native_code_frees_nothing() {
  Graph graph = Graph(2).name(0).hold(0, 0).hold(1, 0).memory(5);
  graph.held_from_outside[1] = 1;
  const Retention retention = checked(graph);
  CHECK_EQ(retention.fates()[0], kReached);
  CHECK_EQ(retention.exclusive_bytes()[0], 0u);
  CHECK(retention.freed({0}).empty());
  graph.memory_bytes[0] = 0;
  CHECK(graph.retention().freed({0}) == std::vector<int32_t>({0}));
}

void parallel_references() {
  Graph graph = Graph(2).refer(0, 1).refer(0, 1).refer(0, 1).name(0).hold(1, 0).hold(1, 0).memory(5);
  CHECK_EQ(checked(graph).exclusive_bytes()[0], 5u);
  graph.names = {};
  CHECK_EQ(checked(graph).fates()[0], kGarbage);  // each of the three counts
}

void a_reference_that_the_collector_does_not_see() {
  const Retention retention = checked(Graph(2).name(0, 15).name(1, 15).hold(0, 0, true).hold(1, 0).memory(5));
  CHECK_EQ(retention.reaching_classes()[0], 1u << 31 | 1u << 15);
}

void what_has_a_name_of_its_own_is_not_walked_into() {
  Graph graph = Graph(3).refer(0, 1).refer(1, 2).name(0).hold(2, 0).memory(5);
  graph.flags[1] = kAnchored;
  CHECK_EQ(checked(graph).fates()[0], kGarbage);
  CHECK(checked(graph.name(1)).exclusive_bytes() == std::vector<uint64_t>({0, 5}));
}

void no_path_leads_through_a_namespace() {
  Graph graph = Graph(3).refer(0, 1).refer(1, 2).name(0).name(1).hold(2, 0).memory(5);
  graph.flags[1] = kNamespace;
  CHECK_EQ(checked(graph).fates()[0], kGarbage);
  CHECK_EQ(checked(graph.hold(1, 1).memory(7)).fates()[1], kNobody);
}

void only_a_few_steps_of_a_long_cycle_are_shown() {
  Graph graph(10);
  for (int32_t node = 0; node < 10; ++node) graph.refer(node, (node + 1) % 10);
  Retention retention = checked(graph.hold(9, 0).memory(5));
  CHECK(retention.unreached_path(0).nodes == std::vector<int32_t>({4, 5, 6, 7, 8, 9}));
}

// ---- deep graphs ----------------------------------------------------------------------------------------------------

constexpr int32_t kDeep = 200000;

Graph chain() {
  Graph graph(kDeep);
  for (int32_t node = 1; node < kDeep; ++node) graph.refer(node - 1, node);
  return graph.hold(kDeep - 1, 0).memory(5);
}

void check_deep(const Graph& graph, size_t path_length) {
  Retention retention = graph.retention();
  CHECK_EQ(retention.fates()[0], kReached);
  CHECK_EQ(retention.exclusive_bytes()[0], 5u);
  CHECK(retention.freed({0}) == std::vector<int32_t>({0}));
  size_t total = 0;
  const std::vector<Path> paths = retention.paths(0, 1, total);
  CHECK_EQ(total, 1u);
  CHECK_EQ(paths[0].nodes.size(), path_length);
  CHECK_EQ(paths[0].nodes.front(), 0);
  CHECK_EQ(paths[0].nodes.back(), kDeep - 1);
}

void a_long_chain() {
  check_deep(chain().name(0), kDeep);
  Graph unreached = chain();
  unreached.held_from_outside[0] = 1;
  Retention retention = unreached.retention();
  CHECK_EQ(retention.fates()[0], kOpaque);
  CHECK_EQ(retention.unreached_path(0).nodes.size(), static_cast<size_t>(kDeep));
  CHECK_EQ(chain().retention().unreached_path(0).nodes.size(), static_cast<size_t>(kFewSteps));
}

// The reference back makes the search for dominators look along the whole chain at once.
void a_long_ring() { check_deep(chain().refer(kDeep - 1, 1).name(0), kDeep); }

void a_long_chain_that_is_linked_both_ways() {
  Graph graph = chain();
  for (int32_t node = 1; node < kDeep; ++node) graph.refer(node, node - 1);
  check_deep(graph.name(0), kDeep);
}

// Far less than a call for each node of a deep graph would need, whatever the shell allows.
void limit_stack() {
  rlimit limit{};
  CHECK_EQ(getrlimit(RLIMIT_STACK, &limit), 0);
  limit.rlim_cur = 1 << 20;
  CHECK_EQ(setrlimit(RLIMIT_STACK, &limit), 0);
}

}  // namespace

int main() {
  test::limit_time(test::kThreadSanitizer || test::kAddressSanitizer ? 300 : 60);
  limit_stack();
  RUN(nothing_at_all);
  RUN(names_without_memory);
  RUN(memory_without_names);
  RUN(self_loops);
  RUN(a_name_of_the_memory_itself);
  RUN(a_name_beside_native_code_frees_nothing);
  RUN(parallel_references);
  RUN(a_reference_that_the_collector_does_not_see);
  RUN(what_has_a_name_of_its_own_is_not_walked_into);
  RUN(no_path_leads_through_a_namespace);
  RUN(only_a_few_steps_of_a_long_cycle_are_shown);
  RUN(dominators_of_random_graphs);
  RUN(random_graphs);
  RUN(a_long_chain);
  RUN(a_long_ring);
  RUN(a_long_chain_that_is_linked_both_ways);
}
