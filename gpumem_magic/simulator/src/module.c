#include "module.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "callbacks.h"
#include "entry.h"
#include "lock.h"

static uint32_t next_id = 1;

static void destroy_owned(struct gsim_owned *owned) {
  gsim_module_destroy(GSIM_CONTAINER(owned, struct gsim_module, owned));
}

CUresult gsim_module_new(CUcontext context, CUmodule *out) {
  if (!gsim_device_take(context->device, GSIM_MODULE_BYTES)) return CUDA_ERROR_OUT_OF_MEMORY;
  CUmodule module = gsim_handle_new(GSIM_KIND_MODULE, sizeof *module);
  module->context = context;
  module->id = next_id++;
  gsim_own(&context->owned, &module->owned, destroy_owned);
  *out = module;
  return CUDA_SUCCESS;
}

void gsim_module_destroy(CUmodule module) {
  gsim_disown(&module->owned);
  gsim_functions_destroy(module->functions);
  gsim_device_give(module->context->device, GSIM_MODULE_BYTES);
  gsim_handle_free(module);
}

CUfunction gsim_function_named(CUfunction *list, const char *name) {
  for (CUfunction f = *list; f; f = f->next)
    if (strcmp(f->name, name) == 0) return f;
  CUfunction function = gsim_handle_new(GSIM_KIND_FUNCTION, sizeof *function);
  function->name = strdup(name);
  function->next = *list;
  *list = function;
  return function;
}

void gsim_functions_destroy(CUfunction list) {
  while (list) {
    CUfunction function = list;
    list = function->next;
    free(function->name);
    gsim_handle_free(function);
  }
}

static void tell(uint32_t cbid, CUmodule module) {
  struct gsim_module_data data = {.module_id = module->id};
  gsim_dispatch_resource(cbid, module->context, NULL, &data);
}

static CUresult load(CUmodule *out, const void *image) {
  if (!out || !image) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_module_new(context, out);
  gsim_unlock();
  if (result == CUDA_SUCCESS) tell(CUPTI_MODULE_LOADED, *out);
  return result;
}

DRIVER_API(18, cuModuleLoad, CUmodule *, module, const char *, fname) {
  if (fname && access(fname, R_OK) != 0) return CUDA_ERROR_FILE_NOT_FOUND;
  return load(module, fname);
}

DRIVER_API(19, cuModuleLoadData, CUmodule *, module, const void *, image) { return load(module, image); }

DRIVER_API(20, cuModuleLoadDataEx, CUmodule *, module, const void *, image, unsigned int, numOptions, int *, options,
           void **, optionValues) {
  return load(module, image);
}

DRIVER_API(21, cuModuleLoadFatBinary, CUmodule *, module, const void *, fatCubin) { return load(module, fatCubin); }

static bool may_unload(CUmodule module) {
  gsim_lock();
  bool may = gsim_handle_is(module, GSIM_KIND_MODULE) && !module->of_library;
  gsim_unlock();
  return may;
}

DRIVER_API(22, cuModuleUnload, CUmodule, hmod) {
  if (!may_unload(hmod)) return CUDA_ERROR_INVALID_HANDLE;
  tell(CUPTI_MODULE_UNLOAD_STARTING, hmod);
  gsim_lock();
  bool still_there = gsim_handle_is(hmod, GSIM_KIND_MODULE);
  if (still_there) gsim_module_destroy(hmod);
  gsim_unlock();
  return still_there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(23, cuModuleGetFunction, CUfunction *, hfunc, CUmodule, hmod, const char *, name) {
  if (!hfunc || !name) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(hmod, GSIM_KIND_MODULE);
  if (known) {
    *hfunc = gsim_function_named(&hmod->functions, name);
    (*hfunc)->module = hmod;
  }
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Images are not read, so what globals they have is not known. */
DRIVER_API(241, cuModuleGetGlobal_v2, CUdeviceptr *, dptr, size_t *, bytes, CUmodule, hmod, const char *, name) {
  return CUDA_ERROR_NOT_FOUND;
}

enum { LAZY_LOADING = 2 };

DRIVER_API(673, cuModuleGetLoadingMode, int *, mode) {
  if (!mode) return CUDA_ERROR_INVALID_VALUE;
  *mode = LAZY_LOADING;
  return CUDA_SUCCESS;
}
