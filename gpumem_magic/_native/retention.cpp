#include "retention.h"

#include <algorithm>
#include <array>
#include <utility>

namespace gpumem {
namespace {

constexpr int kClasses = 16;
constexpr int kUnreachedSteps = 6;  // of a cycle that is shown: enough to know the objects again

// Turns edges around: per vertex those that lead to it.
Csr reversed(size_t vertices, const int64_t* offsets, const int32_t* targets) {
  Csr back;
  const int64_t edges = offsets[vertices];
  back.offsets.assign(vertices + 1, 0);
  for (int64_t e = 0; e < edges; ++e) ++back.offsets[targets[e] + 1];
  for (size_t i = 0; i < vertices; ++i) back.offsets[i + 1] += back.offsets[i];
  back.targets.resize(static_cast<size_t>(edges));
  std::vector<int64_t> place(back.offsets.begin(), back.offsets.end() - 1);
  for (size_t source = 0; source < vertices; ++source) {
    for (int64_t e = offsets[source]; e < offsets[source + 1]; ++e) {
      back.targets[place[targets[e]]++] = static_cast<int32_t>(source);
    }
  }
  return back;
}

Csr from_edges(size_t vertices, const std::vector<std::pair<int32_t, int32_t>>& edges) {
  Csr csr;
  csr.offsets.assign(vertices + 1, 0);
  for (const auto& edge : edges) ++csr.offsets[edge.first + 1];
  for (size_t i = 0; i < vertices; ++i) csr.offsets[i + 1] += csr.offsets[i];
  csr.targets.resize(edges.size());
  std::vector<int64_t> place(csr.offsets.begin(), csr.offsets.end() - 1);
  for (const auto& edge : edges) csr.targets[place[edge.first]++] = edge.second;
  return csr;
}

// The label of smallest semidominator on the way from `v` to the root of its tree, shortening that way.
class Forest {
 public:
  explicit Forest(size_t size) : ancestor_(size, -1), label_(size) {
    for (size_t i = 0; i < size; ++i) label_[i] = static_cast<int32_t>(i);
  }

  void link(int32_t parent, int32_t v) { ancestor_[v] = parent; }

  int32_t eval(int32_t v, const std::vector<int32_t>& semi) {
    if (ancestor_[v] < 0) return v;
    way_.clear();
    for (int32_t u = v; ancestor_[ancestor_[u]] >= 0; u = ancestor_[u]) way_.push_back(u);
    while (!way_.empty()) {
      const int32_t u = way_.back();
      way_.pop_back();
      const int32_t above = ancestor_[u];
      if (semi[label_[above]] < semi[label_[u]]) label_[u] = label_[above];
      ancestor_[u] = ancestor_[above];
    }
    return label_[v];
  }

 private:
  std::vector<int32_t> ancestor_, label_, way_;
};

struct Search {
  std::vector<int32_t> number, parent;  // by vertex: -1 where the search did not come; by number: of its parent
};

Search depth_first(const std::vector<int64_t>& offsets, const std::vector<int32_t>& targets,
                   std::vector<int32_t>& preorder) {
  Search search{std::vector<int32_t>(offsets.size() - 1, -1), {}};
  std::vector<std::pair<int32_t, int64_t>> stack;
  const auto enter = [&](int32_t vertex, int32_t parent) {
    search.number[vertex] = static_cast<int32_t>(preorder.size());
    search.parent.push_back(parent);
    preorder.push_back(vertex);
    stack.emplace_back(vertex, offsets[vertex]);
  };
  preorder.clear();
  enter(0, -1);
  while (!stack.empty()) {
    auto& [vertex, edge] = stack.back();
    if (edge == offsets[vertex + 1]) {
      stack.pop_back();
      continue;
    }
    const int32_t target = targets[edge++];
    if (search.number[target] < 0) enter(target, search.number[vertex]);
  }
  return search;
}

}  // namespace

// The semi-NCA algorithm of Georgiadis, Tarjan and Werneck ("Finding Dominators in Practice", 2006).
std::vector<int32_t> dominators(const std::vector<int64_t>& offsets, const std::vector<int32_t>& targets,
                                std::vector<int32_t>& preorder) {
  const Search search = depth_first(offsets, targets, preorder);
  const Csr back = reversed(offsets.size() - 1, offsets.data(), targets.data());
  const auto reached = static_cast<int32_t>(preorder.size());
  std::vector<int32_t> semi(reached);
  for (int32_t v = 0; v < reached; ++v) semi[v] = v;
  Forest forest(reached);
  for (int32_t v = reached - 1; v > 0; --v) {
    for (int64_t e = back.offsets[preorder[v]]; e < back.offsets[preorder[v] + 1]; ++e) {
      const int32_t u = search.number[back.targets[e]];
      if (u >= 0) semi[v] = std::min(semi[v], semi[forest.eval(u, semi)]);
    }
    forest.link(search.parent[v], v);
  }
  std::vector<int32_t> numbered(reached, -1);
  std::vector<int32_t> immediate(offsets.size() - 1, -1);
  for (int32_t v = 1; v < reached; ++v) {
    int32_t u = search.parent[v];
    while (u > semi[v]) u = numbered[u];
    numbered[v] = u;
    immediate[preorder[v]] = preorder[u];
  }
  return immediate;
}

Retention::Retention(const Objects& objects, Names names, std::vector<Hold> holds, std::vector<uint64_t> memory_bytes)
    : names_(std::move(names)), holds_(std::move(holds)), memory_bytes_(std::move(memory_bytes)) {
  std::vector<int32_t> in_degrees;
  {
    const Csr referrers = reversed(static_cast<size_t>(objects.size), objects.offsets, objects.targets);
    collect_ancestors(objects, referrers);
    in_degrees.reserve(ancestors_.size());
    for (const int32_t node : ancestors_) {
      in_degrees.push_back(static_cast<int32_t>(referrers.offsets[node + 1] - referrers.offsets[node]));
    }
  }
  build(objects);
  spread_classes();
  decide_fates(objects, in_degrees);
  sum_dominated();
}

// Nodes from which a memory is reached, by following references backwards.
void Retention::collect_ancestors(const Objects& objects, const Csr& referrers) {
  vertex_of_node_.assign(static_cast<size_t>(objects.size), 0);
  const auto take = [&](int32_t node) {
    if (vertex_of_node_[node] != 0 || (objects.flags[node] & kNamespace) != 0) return;
    vertex_of_node_[node] = 1;
    ancestors_.push_back(node);
  };
  for (const Hold& hold : holds_) take(hold.node);
  for (size_t i = 0; i < ancestors_.size(); ++i) {
    const int32_t node = ancestors_[i];
    if ((objects.flags[node] & kAnchored) != 0) continue;
    for (int64_t e = referrers.offsets[node]; e < referrers.offsets[node + 1]; ++e) take(referrers.targets[e]);
  }
}

void Retention::build(const Objects& objects) {
  first_node_ = 1 + static_cast<int32_t>(names_.nodes.size());
  first_memory_ = first_node_ + static_cast<int32_t>(ancestors_.size());
  vertices_ = first_memory_ + static_cast<int32_t>(memory_bytes_.size());
  for (size_t i = 0; i < ancestors_.size(); ++i) {
    vertex_of_node_[ancestors_[i]] = first_node_ + static_cast<int32_t>(i);
  }
  std::vector<std::pair<int32_t, int32_t>> edges;
  for (size_t entry = 0; entry < names_.nodes.size(); ++entry) {
    const int32_t vertex = vertex_of_node_[names_.nodes[entry]];
    if (vertex == 0) continue;
    edges.emplace_back(0, entry_vertex(entry));
    edges.emplace_back(entry_vertex(entry), vertex);
  }
  for (const int32_t node : ancestors_) {
    for (int64_t e = objects.offsets[node]; e < objects.offsets[node + 1]; ++e) {
      const int32_t target = objects.targets[e];
      if (vertex_of_node_[target] == 0 || (objects.flags[target] & kAnchored) != 0) continue;
      edges.emplace_back(vertex_of_node_[node], vertex_of_node_[target]);
    }
  }
  for (const Hold& hold : holds_) {
    if (vertex_of_node_[hold.node] != 0) edges.emplace_back(vertex_of_node_[hold.node], memory_vertex(hold.memory));
  }
  forward_ = from_edges(static_cast<size_t>(vertices_), edges);
  backward_ = reversed(static_cast<size_t>(vertices_), forward_.offsets.data(), forward_.targets.data());
  seen_.assign(static_cast<size_t>(vertices_), 0);
  next_.assign(static_cast<size_t>(vertices_), -1);
}

// Masks only grow, so a vertex is looked at again at most once per class.
void Retention::spread_classes() {
  std::vector<uint32_t> masks(static_cast<size_t>(vertices_), 0);
  std::vector<int32_t> changed;
  for (size_t entry = 0; entry < names_.nodes.size(); ++entry) {
    const int32_t vertex = vertex_of_node_[names_.nodes[entry]];
    if (vertex == 0) continue;
    masks[vertex] |= 1u << names_.classes[entry];
    changed.push_back(vertex);
  }
  for (size_t i = 0; i < changed.size(); ++i) {
    const int32_t vertex = changed[i];
    for (int64_t e = forward_.offsets[vertex]; e < forward_.offsets[vertex + 1]; ++e) {
      const int32_t target = forward_.targets[e];
      if (!is_node(target) || (masks[target] | masks[vertex]) == masks[target]) continue;
      masks[target] |= masks[vertex];
      changed.push_back(target);
    }
  }
  reaching_.assign(memory_bytes_.size(), 0);
  for (const Hold& hold : holds_) {
    const int32_t vertex = vertex_of_node_[hold.node];
    if (vertex != 0) reaching_[hold.memory] |= masks[vertex] << (hold.hidden != 0 ? kClasses : 0);
  }
  is_reached_.assign(ancestors_.size(), 0);
  for (size_t i = 0; i < ancestors_.size(); ++i) is_reached_[i] = masks[first_node_ + i] != 0;
}

// As the collector does it: what is referred to more often than the graph shows is held from outside.
void Retention::decide_fates(const Objects& objects, const std::vector<int32_t>& in_degrees) {
  is_opaque_seed_.assign(ancestors_.size(), 0);
  std::vector<uint8_t> is_opaque(static_cast<size_t>(vertices_), 0);
  std::vector<int32_t> found;
  for (size_t i = 0; i < ancestors_.size(); ++i) {
    if (is_reached_[i] != 0 || objects.reference_counts[ancestors_[i]] <= in_degrees[i]) continue;
    is_opaque_seed_[i] = 1;
    found.push_back(first_node_ + static_cast<int32_t>(i));
    is_opaque[found.back()] = 1;
  }
  for (size_t i = 0; i < found.size(); ++i) {
    for (int64_t e = forward_.offsets[found[i]]; e < forward_.offsets[found[i] + 1]; ++e) {
      const int32_t target = forward_.targets[e];
      if (is_opaque[target] != 0) continue;
      is_opaque[target] = 1;
      found.push_back(target);
    }
  }
  is_opaque_.assign(is_opaque.begin() + first_memory_, is_opaque.end());
  fates_.assign(memory_bytes_.size(), kNobody);
  for (const Hold& hold : holds_) {
    if (vertex_of_node_[hold.node] == 0) continue;
    const uint8_t fate = reaching_[hold.memory] != 0 ? kReached : is_opaque_[hold.memory] != 0 ? kOpaque : kGarbage;
    fates_[hold.memory] = fate;
  }
}

void Retention::sum_dominated() {
  std::vector<int32_t> preorder;
  const std::vector<int32_t> immediate = dominators(forward_.offsets, forward_.targets, preorder);
  std::vector<uint64_t> sums(static_cast<size_t>(vertices_), 0);
  for (size_t memory = 0; memory < memory_bytes_.size(); ++memory) {
    sums[memory_vertex(static_cast<int32_t>(memory))] = is_opaque_[memory] != 0 ? 0 : memory_bytes_[memory];
  }
  for (size_t i = preorder.size() - 1; i > 0; --i) sums[immediate[preorder[i]]] += sums[preorder[i]];
  exclusive_.assign(names_.nodes.size(), 0);
  for (size_t entry = 0; entry < exclusive_.size(); ++entry) exclusive_[entry] = sums[entry_vertex(entry)];
}

// Vertices that are reached from those in `queue`, past none that is seen already.
std::vector<uint8_t> Retention::seen_from(std::vector<int32_t> queue, std::vector<uint8_t> is_seen) const {
  for (size_t i = 0; i < queue.size(); ++i) {
    for (int64_t e = forward_.offsets[queue[i]]; e < forward_.offsets[queue[i] + 1]; ++e) {
      const int32_t target = forward_.targets[e];
      if (is_seen[target] != 0) continue;
      is_seen[target] = 1;
      queue.push_back(target);
    }
  }
  return is_seen;
}

std::vector<int32_t> Retention::held(const std::vector<int32_t>& entries) const {
  std::vector<int32_t> queue;
  queue.reserve(entries.size());
  for (const int32_t entry : entries) queue.push_back(entry_vertex(static_cast<size_t>(entry)));
  const std::vector<uint8_t> is_seen = seen_from(queue, std::vector<uint8_t>(static_cast<size_t>(vertices_), 0));
  std::vector<int32_t> memories;
  for (int32_t memory = 0; memory < static_cast<int32_t>(memory_bytes_.size()); ++memory) {
    if (is_seen[memory_vertex(memory)] != 0) memories.push_back(memory);
  }
  return memories;
}

std::vector<int32_t> Retention::freed(const std::vector<int32_t>& entries) const {
  std::vector<uint8_t> is_gone(static_cast<size_t>(vertices_), 0);
  for (const int32_t entry : entries) is_gone[entry_vertex(static_cast<size_t>(entry))] = 1;
  const std::vector<uint8_t> is_seen = seen_from({0}, std::move(is_gone));
  std::vector<int32_t> memories;
  for (int32_t memory = 0; memory < static_cast<int32_t>(memory_bytes_.size()); ++memory) {
    const bool is_left = is_seen[memory_vertex(memory)] == 0;
    const bool is_kept = is_opaque_[memory] != 0 && memory_bytes_[memory] != 0;
    if (is_left && reaching_[memory] != 0 && !is_kept) memories.push_back(memory);
  }
  return memories;
}

std::vector<Path> Retention::paths(int32_t memory, size_t limit, size_t& total) {
  std::vector<Path> found;
  std::array<size_t, kClasses> of_class{};
  total = 0;
  ++search_;
  std::vector<int32_t> queue{memory_vertex(memory)};
  seen_[queue[0]] = search_;
  for (size_t i = 0; i < queue.size(); ++i) {
    const int32_t vertex = queue[i];
    if (vertex >= 1 && vertex < first_node_) {
      ++total;
      if (of_class[names_.classes[vertex - 1]]++ < limit) found.push_back({vertex - 1, {}});
      continue;
    }
    for (int64_t e = backward_.offsets[vertex]; e < backward_.offsets[vertex + 1]; ++e) {
      const int32_t source = backward_.targets[e];
      if (seen_[source] == search_) continue;
      seen_[source] = search_;
      next_[source] = vertex;
      queue.push_back(source);
    }
  }
  for (Path& path : found) {
    for (int32_t v = next_[entry_vertex(static_cast<size_t>(path.entry))]; is_node(v); v = next_[v]) {
      path.nodes.push_back(ancestors_[v - first_node_]);
    }
  }
  return found;
}

Path Retention::unreached_path(int32_t memory) {
  ++search_;
  std::vector<int32_t> queue{memory_vertex(memory)};
  std::vector<uint8_t> depth{0};
  seen_[queue[0]] = search_;
  int32_t first = -1;
  for (size_t i = 0; i < queue.size(); ++i) {
    const int32_t vertex = queue[i];
    if (is_node(vertex) && depth[i] <= kUnreachedSteps) first = vertex;
    if (is_node(vertex) && is_opaque_seed_[vertex - first_node_] != 0) {
      first = vertex;
      break;
    }
    for (int64_t e = backward_.offsets[vertex]; e < backward_.offsets[vertex + 1]; ++e) {
      const int32_t source = backward_.targets[e];
      if (seen_[source] == search_ || !is_node(source)) continue;
      seen_[source] = search_;
      next_[source] = vertex;
      queue.push_back(source);
      depth.push_back(static_cast<uint8_t>(std::min(depth[i] + 1, kUnreachedSteps + 1)));
    }
  }
  Path path{-1, {}};
  for (int32_t v = first; v >= 0 && is_node(v); v = next_[v]) path.nodes.push_back(ancestors_[v - first_node_]);
  return path;
}

}  // namespace gpumem
