#include "binding_graph.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "frame_variables.h"
#include "object_graph.h"
#include "retention.h"

namespace nb = nanobind;

namespace gpumem {
namespace {

template <class Value>
using Column = nb::ndarray<const Value, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class Value>
std::vector<Value> values(const Column<Value>& column) {
  return std::vector<Value>(column.data(), column.data() + column.size());
}

template <class Row>
nb::bytes rows(const std::vector<Row>& table) {
  return nb::bytes(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(Row));
}

void create_graph(ObjectGraph* self, const nb::list& objects, const Column<uint64_t>& begins,
                  const Column<uint64_t>& ends) {
  if (begins.size() != ends.size()) throw nb::value_error("each range has a begin and an end");
  std::vector<AddressRange> ranges;
  ranges.reserve(begins.size());
  for (size_t i = 0; i < begins.size(); ++i) ranges.push_back({begins.data()[i], ends.data()[i]});
  new (self) ObjectGraph(objects.ptr(), std::move(ranges));
}

void add_all(ObjectGraph& graph, const nb::list& objects) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects.ptr()); ++i) {
    if (!graph.add(PyList_GET_ITEM(objects.ptr(), i))) throw nb::python_error();
  }
}

nb::bytes find_all(const ObjectGraph& graph, const nb::list& objects) {
  std::vector<int32_t> nodes;
  nodes.reserve(objects.size());
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects.ptr()); ++i) {
    nodes.push_back(graph.find(PyList_GET_ITEM(objects.ptr(), i)));
  }
  return rows(nodes);
}

bool scan(ObjectGraph& graph, size_t count) {
  if (!graph.scan(count)) throw nb::python_error();
  return !graph.finished();
}

nb::tuple columns(const ObjectGraph& graph) {
  if (!graph.finished()) throw nb::value_error("the graph is not scanned to its end");
  return nb::make_tuple(rows(graph.offsets()), rows(graph.targets()), rows(graph.reference_counts()));
}

bool all_below(const std::vector<int32_t>& nodes, size_t limit) {
  for (const int32_t node : nodes) {
    if (node < 0 || static_cast<size_t>(node) >= limit) return false;
  }
  return true;
}

void create_retention(Retention* self, const Column<int64_t>& offsets, const Column<int32_t>& targets,
                      const Column<int64_t>& reference_counts, const Column<uint8_t>& flags,
                      const Column<int32_t>& entry_nodes, const Column<uint8_t>& entry_classes,
                      const Column<int32_t>& hold_nodes, const Column<int32_t>& hold_memories,
                      const Column<uint8_t>& hold_hidden, const Column<uint64_t>& memory_bytes) {
  const size_t nodes = reference_counts.size();
  const Names names{values(entry_nodes), values(entry_classes)};
  const bool fits = offsets.size() == nodes + 1 && flags.size() == nodes &&
                    offsets.data()[nodes] == static_cast<int64_t>(targets.size()) &&
                    names.nodes.size() == names.classes.size() && hold_nodes.size() == hold_memories.size() &&
                    hold_nodes.size() == hold_hidden.size();
  if (!fits || !all_below(names.nodes, nodes) || !all_below(values(hold_nodes), nodes) ||
      !all_below(values(hold_memories), memory_bytes.size())) {
    throw nb::value_error("the columns of a graph do not fit together");
  }
  for (const uint8_t each : names.classes) {
    if (each >= 16) throw nb::value_error("a class is below 16");
  }
  std::vector<Hold> holds;
  holds.reserve(hold_nodes.size());
  for (size_t i = 0; i < hold_nodes.size(); ++i) {
    holds.push_back({hold_nodes.data()[i], hold_memories.data()[i], hold_hidden.data()[i]});
  }
  const Objects objects{static_cast<int32_t>(nodes), offsets.data(), targets.data(), reference_counts.data(),
                        flags.data()};
  std::vector<uint64_t> bytes = values(memory_bytes);
  const nb::gil_scoped_release release;
  new (self) Retention(objects, names, std::move(holds), std::move(bytes));
}

nb::tuple paths(Retention& retention, int32_t memory, size_t limit) {
  if (memory < 0 || static_cast<size_t>(memory) >= retention.fates().size()) throw nb::index_error("no such memory");
  std::vector<Path> found;
  size_t total = 0;
  {
    const nb::gil_scoped_release release;
    found = retention.paths(memory, limit, total);
  }
  nb::list list;
  for (const Path& path : found) list.append(nb::make_tuple(path.entry, path.nodes));
  return nb::make_tuple(list, total);
}

std::vector<int32_t> held(const Retention& retention, const std::vector<int32_t>& entries) {
  if (!all_below(entries, retention.exclusive_bytes().size())) throw nb::index_error("no such name");
  const nb::gil_scoped_release release;
  return retention.held(entries);
}

std::vector<int32_t> freed(const Retention& retention, const std::vector<int32_t>& entries) {
  if (!all_below(entries, retention.exclusive_bytes().size())) throw nb::index_error("no such name");
  const nb::gil_scoped_release release;
  return retention.freed(entries);
}

nb::object variables(const nb::handle& frame) {
  if (!PyFrame_Check(frame.ptr())) throw nb::type_error("frame_variables() takes a frame");
  PyObject* list = frame_variables(reinterpret_cast<PyFrameObject*>(frame.ptr()));
  if (list == nullptr) throw nb::python_error();
  return nb::steal(list);
}

nb::object running() {
  PyObject* list = running_code();
  if (list == nullptr) throw nb::python_error();
  return nb::steal(list);
}

nb::object instance_dict(const nb::handle& object) {
  PyObject* dict = PyObject_GenericGetDict(object.ptr(), nullptr);
  if (dict == nullptr && !PyErr_ExceptionMatches(PyExc_AttributeError)) throw nb::python_error();
  if (dict == nullptr) PyErr_Clear();
  return dict == nullptr ? nb::none() : nb::steal(dict);
}

}  // namespace

void bind_graph(nb::module_& m) {
  m.def("frame_variables", variables, nb::arg("frame"), nb::sig("def frame_variables(frame: object) -> list"),
        "(name, value) of a frame's local, cell and free variables, without the dictionary that f_locals leaves.");
  m.def("running_code", running, nb::sig("def running_code() -> list"),
        "(code, line, globals, names or None, [(name, value), ...]) of every frame of every thread, innermost first.");
  m.def("instance_dict", instance_dict, nb::arg("object").none(),
        nb::sig("def instance_dict(object: object | None) -> dict | None"),
        "The dictionary of an object's attributes, whatever its class defines as __dict__; None when it has none.");
  nb::class_<ObjectGraph>(m, "ObjectGraph",
                          "Which of a list of objects refer to which. The list grows by what is found.")
      .def("__init__", create_graph, nb::arg("objects"), nb::arg("range_begins"), nb::arg("range_ends"))
      .def("index", &ObjectGraph::index, nb::arg("count"),
           "Take in that many objects of the list. True while there are more.")
      .def("add", add_all, nb::arg("objects"), "Make nodes of those that are none yet and can refer to something.")
      .def("scan", scan, nb::arg("count"), "Look at that many further nodes. True while there are more.")
      .def("find", find_all, nb::arg("objects"), "Per object its node (int32), below 0 when it is none.")
      .def("columns", columns, "Offsets (int64), targets (int32) and reference counts (int64) of the nodes.");
  nb::class_<Retention>(m, "Retention", "Who keeps what alive in a graph.")
      .def("__init__", create_retention, nb::arg("offsets"), nb::arg("targets"), nb::arg("reference_counts"),
           nb::arg("flags"), nb::arg("entry_nodes"), nb::arg("entry_classes"), nb::arg("hold_nodes"),
           nb::arg("hold_memories"), nb::arg("hold_hidden"), nb::arg("memory_bytes"))
      .def("reaching_classes", [](const Retention& self) { return rows(self.reaching_classes()); })
      .def("fates", [](const Retention& self) { return rows(self.fates()); })
      .def("exclusive_bytes", [](const Retention& self) { return rows(self.exclusive_bytes()); })
      .def("paths", paths, nb::arg("memory"), nb::arg("limit"),
           "([(entry, [node, ...]), ...] nearest first, number of names that reach the memory).")
      .def("held", held, nb::arg("entries"), "Memories that these names reach.")
      .def("freed", freed, nb::arg("entries"), "Memories that would go if these names went together.")
      .def(
          "unreached_path", [](Retention& self, int32_t memory) { return self.unreached_path(memory).nodes; },
          nb::arg("memory"), "Nodes from what is held from outside, or from a few references away, to the memory.");
}

}  // namespace gpumem
