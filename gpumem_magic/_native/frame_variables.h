// The variables of a Python frame, without the dictionary that `frame.f_locals` leaves behind on Python 3.11 and 3.12,
// which keeps the values alive for as long as the frame lives.
#pragma once

#include <Python.h>

namespace gpumem {

// A new list of (name, value) of the local, cell and free variables that are bound. Null with a Python error set.
PyObject* frame_variables(PyFrameObject* frame);

}  // namespace gpumem
