// CPython's interpreter frame, as each minor version lays it out. Only what the walker reads is named; frame_proof.c
// proves the offsets against the interpreter's own internal headers, and start-up checks a walk against
// sys._getframe().
#pragma once

#include <Python.h>
#include <stdint.h>

#ifdef Py_GIL_DISABLED
#define GPUMEM_STACKS 0 /* free-threaded builds: frames may move between threads under the walker's feet */
#elif PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000
#define GPUMEM_STACKS 1
#else
#define GPUMEM_STACKS 0
#endif

#if PY_VERSION_HEX < 0x030C0000 /* 3.11 */
typedef struct GpumemFrame {
  void *f_func, *f_globals, *f_builtins, *f_locals;
  void *f_code;
  void *frame_obj;
  struct GpumemFrame *previous;
  uint16_t *prev_instr;
  int stacktop;
  _Bool is_entry;
  char owner;
} GpumemFrame;
#elif PY_VERSION_HEX < 0x030D0000 /* 3.12 */
typedef struct GpumemFrame {
  void *f_code;
  struct GpumemFrame *previous;
  void *f_funcobj, *f_globals, *f_builtins, *f_locals, *frame_obj;
  uint16_t *prev_instr;
  int stacktop;
  uint16_t return_offset;
  char owner;
} GpumemFrame;
#elif PY_VERSION_HEX < 0x030E0000 /* 3.13 */
typedef struct GpumemFrame {
  void *f_executable;
  struct GpumemFrame *previous;
  void *f_funcobj, *f_globals, *f_builtins, *f_locals, *frame_obj;
  uint16_t *instr_ptr;
  int stacktop;
  uint16_t return_offset;
  char owner;
} GpumemFrame;
#else                             /* 3.14: references are tagged in their low bits */
typedef struct GpumemFrame {
  uintptr_t f_executable;
  struct GpumemFrame *previous;
  uintptr_t f_funcobj;
  void *f_globals, *f_builtins, *f_locals, *frame_obj;
  uint16_t *instr_ptr;
  void *stackpointer;
  uint16_t return_offset;
  char owner;
} GpumemFrame;
#endif

#if PY_VERSION_HEX < 0x030D0000
#define GPUMEM_CURRENT_FRAME(tstate) ((GpumemFrame *)(tstate)->cframe->current_frame)
#define GPUMEM_FRAME_CODE(frame) ((PyObject *)(frame)->f_code)
#define GPUMEM_FRAME_INSTRUCTION(frame) ((frame)->prev_instr)
#elif PY_VERSION_HEX < 0x030E0000
#define GPUMEM_CURRENT_FRAME(tstate) ((GpumemFrame *)(tstate)->current_frame)
#define GPUMEM_FRAME_CODE(frame) ((PyObject *)(frame)->f_executable)
#define GPUMEM_FRAME_INSTRUCTION(frame) ((frame)->instr_ptr)
#else
#define GPUMEM_CURRENT_FRAME(tstate) ((GpumemFrame *)(tstate)->current_frame)
#define GPUMEM_FRAME_CODE(frame) ((PyObject *)((frame)->f_executable & ~(uintptr_t)3))
#define GPUMEM_FRAME_INSTRUCTION(frame) ((frame)->instr_ptr)
#endif

/* `owner`: 0 thread, 1 generator, 2 frame object; from 3 on frames of the interpreter itself, without code. */
#define GPUMEM_OWNED_BY_INTERPRETER 3
