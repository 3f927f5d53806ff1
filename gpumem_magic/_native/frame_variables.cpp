#include "frame_variables.h"

#define _Bool bool  // the mirror structs are shared with C
#include "frame_layout.h"

namespace gpumem {
namespace {

#if PY_VERSION_HEX < 0x030C0000
// 3.11 has no PyFrame_GetVar. The variables follow the frame's head; a cell in place of a variable holds its value.
PyObject* variable(PyFrameObject* frame, PyCodeObject*, Py_ssize_t index, PyObject*) {
  struct FrameObject {
    PyObject_HEAD PyFrameObject* f_back;
    GpumemFrame* f_frame;
  };
  auto* head = reinterpret_cast<FrameObject*>(frame)->f_frame;
  PyObject* value = reinterpret_cast<PyObject**>(head + 1)[index];
  if (value != nullptr && PyCell_Check(value)) value = PyCell_GET(value);
  Py_XINCREF(value);
  return value;
}
#else
PyObject* variable(PyFrameObject* frame, PyCodeObject*, Py_ssize_t, PyObject* name) {
  PyObject* value = PyFrame_GetVar(frame, name);
  if (value == nullptr && PyErr_ExceptionMatches(PyExc_NameError)) PyErr_Clear();  // not bound now
  return value;
}
#endif

bool append_variable(PyObject* list, PyObject* name, PyObject* value) {
  PyObject* pair = PyTuple_Pack(2, name, value);
  const bool good = pair != nullptr && PyList_Append(list, pair) == 0;
  Py_XDECREF(pair);
  return good;
}

}  // namespace

PyObject* frame_variables(PyFrameObject* frame) {
  PyObject* list = PyList_New(0);
  if (list == nullptr) return nullptr;
  PyCodeObject* code = PyFrame_GetCode(frame);
  bool good = true;
  for (Py_ssize_t i = 0; good && (code->co_flags & CO_OPTIMIZED) != 0 && i < code->co_nlocalsplus; ++i) {
    PyObject* name = PyTuple_GET_ITEM(code->co_localsplusnames, i);
    PyObject* value = variable(frame, code, i, name);
    if (value != nullptr) good = append_variable(list, name, value);
    if (value == nullptr && PyErr_Occurred() != nullptr) good = false;
    Py_XDECREF(value);
  }
  Py_DECREF(code);
  if (!good) Py_CLEAR(list);
  return list;
}

namespace {

bool append_frame(PyObject* list, PyFrameObject* frame) {
  PyCodeObject* code = PyFrame_GetCode(frame);
  PyObject* globals = PyFrame_GetGlobals(frame);
  PyObject* names = (code->co_flags & CO_OPTIMIZED) != 0 ? Py_NewRef(Py_None) : PyFrame_GetLocals(frame);
  PyObject* variables = frame_variables(frame);
  bool good = globals != nullptr && names != nullptr && variables != nullptr;
  PyObject* row =
      good ? Py_BuildValue("(OiOOO)", code, PyFrame_GetLineNumber(frame), globals, names, variables) : nullptr;
  good = row != nullptr && PyList_Append(list, row) == 0;
  Py_XDECREF(row);
  Py_XDECREF(variables);
  Py_XDECREF(names);
  Py_XDECREF(globals);
  Py_DECREF(code);
  return good;
}

}  // namespace

PyObject* running_code() {
  PyObject* list = PyList_New(0);
  PyObject* ask = PySys_GetObject("_current_frames");  // borrowed
  PyObject* innermost = list != nullptr && ask != nullptr ? PyObject_CallNoArgs(ask) : nullptr;
  bool good = innermost != nullptr;
  PyObject *thread = nullptr, *each = nullptr;
  for (Py_ssize_t i = 0; good && PyDict_Next(innermost, &i, &thread, &each) != 0;) {
    auto* frame = reinterpret_cast<PyFrameObject*>(Py_NewRef(each));
    while (good && frame != nullptr) {
      good = append_frame(list, frame);
      PyFrameObject* back = PyFrame_GetBack(frame);
      Py_DECREF(frame);
      frame = back;
    }
    Py_XDECREF(frame);
  }
  Py_XDECREF(innermost);
  if (!good) Py_CLEAR(list);
  return list;
}

}  // namespace gpumem
