/* Compiled, never linked into anything that runs: the mirror in frame_layout.h must agree with CPython's headers. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <stddef.h>

#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#else
#include "internal/pycore_frame.h"
#endif

#include "frame_layout.h"

#define SAME_OFFSET(field) \
  _Static_assert(offsetof(GpumemFrame, field) == offsetof(_PyInterpreterFrame, field), "frame layout: " #field)

SAME_OFFSET(previous);
SAME_OFFSET(owner);
#if PY_VERSION_HEX < 0x030D0000
SAME_OFFSET(f_code);
SAME_OFFSET(prev_instr);
#else
SAME_OFFSET(f_executable);
SAME_OFFSET(instr_ptr);
#endif

#if PY_VERSION_HEX < 0x030C0000
/* frame_variables.cpp reads the variables behind the head. */
_Static_assert(sizeof(GpumemFrame) == offsetof(_PyInterpreterFrame, localsplus), "frame layout: localsplus");
#endif

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
_Static_assert(FRAME_OWNED_BY_CSTACK >= GPUMEM_OWNED_BY_INTERPRETER, "frames of the interpreter");
#endif

int gpumem_frame_layout_is_proved = 1;
