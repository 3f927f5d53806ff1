#include "object_graph.h"

#include <algorithm>

namespace gpumem {
namespace {

// Exact types whose objects refer to nothing that could hold device memory, and of which there are very many.
bool is_plain(PyTypeObject* type) {
  return type == &PyUnicode_Type || type == &PyBytes_Type || type == &PyFloat_Type || type == &PyBool_Type ||
         type == &PyComplex_Type || type == &PyCode_Type || type == &PyType_Type || type == Py_TYPE(Py_None) ||
         type == Py_TYPE(Py_Ellipsis);
}

constexpr size_t kAhead = 16;

}  // namespace

ObjectGraph::ObjectGraph(PyObject* objects, std::vector<AddressRange> ranges)
    : objects_(objects), ranges_(std::move(ranges)) {
  Py_INCREF(objects_);
  grow(size() * 2);
  offsets_.reserve(size() + 1);
  reference_counts_.reserve(size());
}

bool ObjectGraph::index(size_t count) {
  for (; count > 0 && entered_ < size(); --count) {
    const auto node = static_cast<int32_t>(entered_);
    enter(object(node), node);
  }
  return entered_ < size();
}

bool ObjectGraph::add(PyObject* object) {
  int32_t node = kAbsent;
  return find(object) != kAbsent || !is_worth_a_node(object) || append(object, &node);
}

bool ObjectGraph::scan(size_t count) {
  for (; count > 0 && !finished(); --count) {
    PyObject* object = PyList_GET_ITEM(objects_, static_cast<Py_ssize_t>(offsets_.size() - 1));
    const traverseproc traverse = PyObject_IS_GC(object) ? Py_TYPE(object)->tp_traverse : nullptr;
    referents_.clear();
    if (traverse != nullptr && traverse(object, &ObjectGraph::visit, &referents_) != 0) return false;
    if (!resolve()) return false;
    reference_counts_.push_back(static_cast<int64_t>(Py_REFCNT(object)) - 1);
    offsets_.push_back(static_cast<int64_t>(targets_.size()));
  }
  return true;
}

// A module may show what it keeps for reuse, which is dead: a reference to it would make it live and die once more.
int ObjectGraph::visit(PyObject* referent, void* found) {
  if (Py_REFCNT(referent) > 0) static_cast<std::vector<PyObject*>*>(found)->push_back(referent);
  return 0;
}

// A container may refer to a million objects that lie all over memory: they are fetched ahead of their turn.
bool ObjectGraph::resolve() {
  for (size_t i = 0; i < referents_.size(); ++i) {
    if (i + kAhead < referents_.size()) {
      __builtin_prefetch(referents_[i + kAhead]);
      __builtin_prefetch(&slots_[home(referents_[i + kAhead])]);
    }
    PyObject* referent = referents_[i];
    if (referent == objects_ || (is_plain(Py_TYPE(referent)) && !PyObject_IS_GC(referent))) continue;
    int32_t node = find(referent);
    // What the collector does not track is not in its list: dictionaries and tuples of numbers, arrays, numbers.
    if (node == kAbsent && is_worth_a_node(referent) && !append(referent, &node)) return false;
    if (node >= 0) targets_.push_back(node);
  }
  return true;
}

bool ObjectGraph::is_worth_a_node(PyObject* object) const {
  if (PyObject_IS_GC(object)) return !(PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 0);
  if (PyLong_CheckExact(object)) return is_in_range(object);
  return !is_plain(Py_TYPE(object));
}

bool ObjectGraph::is_in_range(PyObject* number) const {
  if (ranges_.empty()) return false;
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
  if (overflow != 0 || value <= 0) return false;
  const auto address = static_cast<uint64_t>(value);
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](uint64_t each, const AddressRange& range) { return each < range.begin; });
  return after != ranges_.begin() && address < std::prev(after)->end;
}

bool ObjectGraph::append(PyObject* object, int32_t* node) {
  *node = static_cast<int32_t>(size());
  if (PyList_Append(objects_, object) != 0) return false;
  enter(object, *node);
  return true;
}

// ---- the map from objects to nodes: open addressing, four bytes a slot ----------------------------------------------

size_t ObjectGraph::home(const PyObject* object) const {
  const uint64_t mixed = (reinterpret_cast<uint64_t>(object) >> 4) * 0x9E3779B97F4A7C15ull;
  return static_cast<size_t>(mixed >> 20) & (slots_.size() - 1);
}

int32_t ObjectGraph::find(PyObject* wanted) const {
  for (size_t i = home(wanted); slots_[i] != 0; i = (i + 1) & (slots_.size() - 1)) {
    if (object(slots_[i] - 1) == wanted) return slots_[i] - 1;
  }
  return kAbsent;
}

void ObjectGraph::enter(const PyObject* object, int32_t node) {
  if ((entered_ + 1) * 3 > slots_.size() * 2) grow(slots_.size() * 2);
  size_t i = home(object);
  while (slots_[i] != 0) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = node + 1;
  ++entered_;
}

void ObjectGraph::grow(size_t slots) {
  size_t rounded = 64;
  while (rounded < slots) rounded *= 2;
  std::vector<int32_t> old(rounded, 0);
  old.swap(slots_);
  for (const int32_t each : old) {
    if (each == 0) continue;
    size_t i = home(object(each - 1));
    while (slots_[i] != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = each;
  }
}

}  // namespace gpumem
