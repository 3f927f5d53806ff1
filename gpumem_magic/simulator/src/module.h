/* Modules and functions: any image loads and any name is found, since nothing can
 * be launched; what counts is that a module takes device memory. Callers hold the
 * driver's lock.
 */
#ifndef GSIM_MODULE_H
#define GSIM_MODULE_H

#include "context.h"

struct gsim_function {
  struct gsim_handle handle;
  char *name;
  CUmodule module;   /* of a function */
  CUlibrary library; /* of a kernel */
  CUfunction next;   /* of the same module or library */
};

struct gsim_module {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  uint32_t id;
  bool of_library; /* unloaded with its library, not alone */
  CUfunction functions;
};

/* OUT_OF_MEMORY when the device cannot hold it. */
CUresult gsim_module_new(CUcontext context, CUmodule *out);
void gsim_module_destroy(CUmodule module);

/* The function of that name in the list; made, if it is new. */
CUfunction gsim_function_named(CUfunction *list, const char *name);
void gsim_functions_destroy(CUfunction list);

#endif
