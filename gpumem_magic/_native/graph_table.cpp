#include "graph_table.h"

#include <algorithm>

namespace gpumem {
namespace {

bool has(const std::vector<Event>& nodes, uint8_t kind, uint64_t address) {
  return std::any_of(nodes.begin(), nodes.end(),
                     [=](const Event& node) { return node.kind == kind && node.address == address; });
}

}  // namespace

void GraphTable::copy_nodes(Nodes& to, uint64_t key, const Nodes& from, uint64_t original) {
  const auto found = from.find(original);
  if (found == from.end()) {
    to.erase(key);  // the handle may have been another graph's before
  } else {
    to[key] = std::vector<Event>(found->second);
  }
}

std::vector<Event> GraphTable::launch(uint64_t executable) const {
  const auto found = executables_.find(executable);
  if (found == executables_.end()) return {};
  const std::vector<Event>& nodes = found->second;
  std::vector<Event> events;
  for (const Event& node : nodes) {
    Event event = node;
    if (node.kind == kGraphNodeFree && !has(nodes, kGraphNodeAlloc, node.address)) {
      event.kind = kFreeGraph;
    } else if (node.kind == kGraphNodeAlloc && !has(nodes, kGraphNodeFree, node.address)) {
      event.kind = kAllocGraph;
    } else {
      continue;
    }
    events.push_back(event);
  }
  return events;
}

}  // namespace gpumem
