// The variables of a Python frame, without the dictionary that `frame.f_locals` leaves behind on Python 3.11 and 3.12,
// which keeps the values alive for as long as the frame lives.
#pragma once

#include <Python.h>

namespace gpumem {

// A new list of (name, value) of the local, cell and free variables that are bound. Null with a Python error set.
PyObject* frame_variables(PyFrameObject* frame);

// A new list of what runs on every thread, innermost first: (code, line, globals, names, variables) of each frame,
// where `names` is the dictionary of code that is in no function, else None. Null with a Python error set.
//
// All at once, and no frame is kept: on some releases of Python 3.13 a frame whose generator has gone points nowhere,
// so that not even its end is safe. As long as nobody else has the interpreter, nothing goes.
PyObject* running_code();

}  // namespace gpumem
