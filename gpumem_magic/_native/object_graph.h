// Which Python objects refer to which, as their types tell the garbage collector: a compact directed graph.
//
// Everything here needs the GIL. The caller owns the list of objects, which keeps every node alive, and calls scan() in
// slices, so that other threads run in between.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

namespace gpumem {

struct AddressRange {
  uint64_t begin, end;
};

class ObjectGraph {
 public:
  static constexpr int32_t kAbsent = -1;

  // `objects` is a list that nobody else changes; it grows by what is found. `ranges` are ordered and disjoint.
  ObjectGraph(PyObject* objects, std::vector<AddressRange> ranges);
  ~ObjectGraph() { Py_DECREF(objects_); }
  ObjectGraph(const ObjectGraph&) = delete;
  ObjectGraph& operator=(const ObjectGraph&) = delete;

  // Enters up to `count` further objects of the list into the map. True while there are more; comes before all else.
  bool index(size_t count);
  // Makes `object` a node unless it is one, or can refer to nothing. False with a Python error set.
  bool add(PyObject* object);
  // Records the references that leave up to `count` further nodes. False with a Python error set.
  bool scan(size_t count);
  bool finished() const { return offsets_.size() > size(); }

  size_t size() const { return static_cast<size_t>(PyList_GET_SIZE(objects_)); }
  // The node of `wanted`, or kAbsent.
  int32_t find(PyObject* wanted) const;

  const std::vector<int64_t>& offsets() const { return offsets_; }
  const std::vector<int32_t>& targets() const { return targets_; }
  // References to each node when it was scanned, without that of the list.
  const std::vector<int64_t>& reference_counts() const { return reference_counts_; }

 private:
  static int visit(PyObject* referent, void* found);
  bool resolve();
  bool is_worth_a_node(PyObject* object) const;
  bool is_in_range(PyObject* number) const;
  bool append(PyObject* object, int32_t* node);
  PyObject* object(int32_t node) const { return PyList_GET_ITEM(objects_, node); }
  size_t home(const PyObject* object) const;
  void enter(const PyObject* object, int32_t node);
  void grow(size_t slots);

  PyObject* objects_;
  std::vector<AddressRange> ranges_;
  std::vector<int32_t> slots_;  // node + 1, 0 where free
  size_t entered_ = 0;
  std::vector<PyObject*> referents_;  // of the object that is looked at
  std::vector<int64_t> offsets_{0};
  std::vector<int32_t> targets_;
  std::vector<int64_t> reference_counts_;
};

}  // namespace gpumem
