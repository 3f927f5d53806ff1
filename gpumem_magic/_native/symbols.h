// Symbols of libraries that are opened by name: there is no header of theirs to build against.
#pragma once

#include <dlfcn.h>

namespace gpumem {

// Whether `library` has `name`; `function` is null when it has not.
template <class Function>
bool look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace gpumem
