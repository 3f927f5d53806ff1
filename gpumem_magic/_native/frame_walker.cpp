#include "frame_walker.h"

#define _Bool bool  // the mirror structs are shared with C
#include <atomic>

#include "frame_layout.h"

namespace gpumem {
namespace {

std::atomic<bool> walking{true};
CodeDestroyed on_destroyed = nullptr;

void append_utf8(std::string& out, Py_UCS4 c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 63));
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
}

// Strings are immutable and the code object holds them, so reading them needs no lock.
void read_string(PyObject* text, std::string& out) {
  out.clear();
  if (text == nullptr || !PyUnicode_Check(text)) {
    out = "?";
    return;
  }
  const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
  const int kind = PyUnicode_KIND(text);
  const void* data = PyUnicode_DATA(text);
  for (Py_ssize_t i = 0; i < length; ++i) append_utf8(out, PyUnicode_READ(kind, data, i));
}

#if GPUMEM_STACKS && PY_VERSION_HEX >= 0x030C0000
int watcher = -1;

int code_event(PyCodeEvent event, PyCodeObject* code) {
  if (event == PY_CODE_EVENT_DESTROY && on_destroyed != nullptr) on_destroyed(code);
  return 0;
}
#elif GPUMEM_STACKS
// 3.11 has no watchers. Code objects have a static type, whose deallocator every last reference goes through.
destructor original_dealloc = nullptr;

void dealloc_code(PyObject* code) {
  if (on_destroyed != nullptr) on_destroyed(code);
  original_dealloc(code);
}
#endif

}  // namespace

void stop_walking() { walking = false; }

#if GPUMEM_STACKS

int walk_frames(RawFrame* frames, int limit) {
  if (!walking.load(std::memory_order_relaxed)) return 0;
  PyThreadState* tstate = PyGILState_GetThisThreadState();  // thread-local storage: needs no GIL
  if (tstate == nullptr) return 0;
#if PY_VERSION_HEX < 0x030D0000
  if (tstate->cframe == nullptr) return 0;
#endif
  int count = 0;
  for (GpumemFrame* frame = GPUMEM_CURRENT_FRAME(tstate); frame != nullptr && count < limit; frame = frame->previous) {
    if (frame->owner >= GPUMEM_OWNED_BY_INTERPRETER) continue;
    PyObject* executable = GPUMEM_FRAME_CODE(frame);
    if (executable == nullptr || Py_TYPE(executable) != &PyCode_Type) continue;
    auto* code = reinterpret_cast<PyCodeObject*>(executable);
    const auto* base = reinterpret_cast<const uint16_t*>(code->co_code_adaptive);
    const auto lasti = static_cast<int32_t>(GPUMEM_FRAME_INSTRUCTION(frame) - base);
    // A frame that has not run its first instruction yet is invisible to Python too.
    if (frame->owner == 0 && lasti < code->_co_firsttraceable) continue;
    frames[count++] = RawFrame{frame, code, lasti};
  }
  return count;
}

bool watch_code(CodeDestroyed destroyed) {
  on_destroyed = destroyed;
#if PY_VERSION_HEX >= 0x030C0000
  if (watcher < 0) watcher = PyCode_AddWatcher(code_event);
  if (watcher < 0) PyErr_Clear();
  return watcher >= 0;
#else
  if (PyCode_Type.tp_dealloc != dealloc_code) {
    original_dealloc = PyCode_Type.tp_dealloc;
    PyCode_Type.tp_dealloc = dealloc_code;
  }
  return true;
#endif
}

void unwatch_code() {
#if PY_VERSION_HEX >= 0x030C0000
  if (watcher >= 0 && PyCode_ClearWatcher(watcher) < 0) PyErr_Clear();
  watcher = -1;
#else
  // Someone else may have wrapped the deallocator after us; then ours stays and only does nothing.
  if (PyCode_Type.tp_dealloc == dealloc_code) PyCode_Type.tp_dealloc = original_dealloc;
#endif
  on_destroyed = nullptr;
}

#else

int walk_frames(RawFrame*, int) { return 0; }
bool watch_code(CodeDestroyed) { return false; }
void unwatch_code() {}

#endif

void read_code(const void* address, CodeFacts& facts) {
  auto* code = const_cast<PyCodeObject*>(static_cast<const PyCodeObject*>(address));
  read_string(code->co_filename, facts.filename);
  read_string(code->co_qualname, facts.function);
  facts.first_line = code->co_firstlineno;
  PyObject* table = code->co_linetable;
  facts.line_table = PyBytes_Check(table)
                         ? std::string_view(PyBytes_AS_STRING(table), static_cast<size_t>(PyBytes_GET_SIZE(table)))
                         : std::string_view();
}

}  // namespace gpumem
