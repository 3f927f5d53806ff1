/* cuLibrary* and cuKernel*: code that belongs to no context until it is used.
 * The first use in a context loads a module there, as lazy loading does. */
#include <unistd.h>

#include "entry.h"
#include "lock.h"
#include "module.h"

struct gsim_library {
  struct gsim_handle handle;
  CUmodule module; /* loaded by the first use */
  CUcontext module_context;
  uint32_t module_context_uid; /* the module died with it if this has changed */
  CUfunction kernels;
};

static CUresult load(CUlibrary *out, const void *code) {
  if (!out || !code) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  *out = gsim_handle_new(GSIM_KIND_LIBRARY, sizeof **out);
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(678, cuLibraryLoadData, CUlibrary *, library, const void *, code, int *, jitOptions, void **,
           jitOptionsValues, unsigned int, numJitOptions, int *, libraryOptions, void **, libraryOptionValues,
           unsigned int, numLibraryOptions) {
  return load(library, code);
}

DRIVER_API(679, cuLibraryLoadFromFile, CUlibrary *, library, const char *, fileName, int *, jitOptions, void **,
           jitOptionsValues, unsigned int, numJitOptions, int *, libraryOptions, void **, libraryOptionValues,
           unsigned int, numLibraryOptions) {
  if (fileName && access(fileName, R_OK) != 0) return CUDA_ERROR_FILE_NOT_FOUND;
  return load(library, fileName);
}

static bool module_lives(CUlibrary library) {
  return library->module && library->module_context->life != GSIM_DEAD &&
         library->module_context->uid == library->module_context_uid;
}

DRIVER_API(680, cuLibraryUnload, CUlibrary, library) {
  gsim_lock();
  bool known = gsim_handle_is(library, GSIM_KIND_LIBRARY);
  if (known) {
    if (module_lives(library)) gsim_module_destroy(library->module);
    gsim_functions_destroy(library->kernels);
    gsim_handle_free(library);
  }
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult use(CUlibrary library) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS || module_lives(library)) return result;
  result = gsim_module_new(context, &library->module);
  if (result != CUDA_SUCCESS) return result;
  library->module->of_library = true;
  library->module_context = context;
  library->module_context_uid = context->uid;
  return CUDA_SUCCESS;
}

DRIVER_API(682, cuLibraryGetModule, CUmodule *, pMod, CUlibrary, library) {
  if (!pMod) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = CUDA_ERROR_INVALID_HANDLE;
  if (gsim_handle_is(library, GSIM_KIND_LIBRARY)) result = use(library);
  if (result == CUDA_SUCCESS) *pMod = library->module;
  gsim_unlock();
  return result;
}

DRIVER_API(681, cuLibraryGetKernel, CUkernel *, pKernel, CUlibrary, library, const char *, name) {
  if (!pKernel || !name) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(library, GSIM_KIND_LIBRARY);
  if (known) {
    *pKernel = gsim_function_named(&library->kernels, name);
    (*pKernel)->library = library;
  }
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult function_of(CUkernel kernel, CUfunction *out) {
  if (!gsim_handle_is(kernel, GSIM_KIND_FUNCTION) || !kernel->library) return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = use(kernel->library);
  if (result != CUDA_SUCCESS) return result;
  CUmodule module = kernel->library->module;
  *out = gsim_function_named(&module->functions, kernel->name);
  (*out)->module = module;
  return CUDA_SUCCESS;
}

DRIVER_API(683, cuKernelGetFunction, CUfunction *, pFunc, CUkernel, kernel) {
  if (!pFunc) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = function_of(kernel, pFunc);
  gsim_unlock();
  return result;
}

DRIVER_API(684, cuLibraryGetGlobal, CUdeviceptr *, dptr, size_t *, bytes, CUlibrary, library, const char *, name) {
  return CUDA_ERROR_NOT_FOUND;
}

DRIVER_API(685, cuLibraryGetManaged, CUdeviceptr *, dptr, size_t *, bytes, CUlibrary, library, const char *, name) {
  return CUDA_ERROR_NOT_FOUND;
}
