// The part of the Python face that deals with who holds what.
#pragma once

#include <nanobind/nanobind.h>

namespace gpumem {

void bind_graph(nanobind::module_& m);

}  // namespace gpumem
