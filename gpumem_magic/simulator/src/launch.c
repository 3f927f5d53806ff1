/* Functions can be looked at but not launched: there is nothing to run them. Host
 * functions do run, at once. */
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "module.h"
#include "stream.h"

DRIVER_API_PT(307, cuLaunchKernel, 442, cuLaunchKernel_ptsz, CUfunction, f, unsigned int, gridDimX, unsigned int,
              gridDimY, unsigned int, gridDimZ, unsigned int, blockDimX, unsigned int, blockDimY, unsigned int,
              blockDimZ, unsigned int, sharedMemBytes, CUstream, hStream, void **, kernelParams, void **, extra) {
  return CUDA_ERROR_NOT_SUPPORTED;
}

DRIVER_API_PT(652, cuLaunchKernelEx, 653, cuLaunchKernelEx_ptsz, const void *, config, CUfunction, f, void **,
              kernelParams, void **, extra) {
  return CUDA_ERROR_NOT_SUPPORTED;
}

DRIVER_API_PT(477, cuLaunchCooperativeKernel, 478, cuLaunchCooperativeKernel_ptsz, CUfunction, f, unsigned int,
              gridDimX, unsigned int, gridDimY, unsigned int, gridDimZ, unsigned int, blockDimX, unsigned int,
              blockDimY, unsigned int, blockDimZ, unsigned int, sharedMemBytes, CUstream, hStream, void **,
              kernelParams) {
  return CUDA_ERROR_NOT_SUPPORTED;
}

DRIVER_API_PT(527, cuLaunchHostFunc, 528, cuLaunchHostFunc_ptsz, CUstream, hStream, gsim_host_function, fn, void *,
              userData) {
  if (!fn) return CUDA_ERROR_INVALID_VALUE;
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(hStream, &stream);
  bool captured = result == CUDA_SUCCESS && stream->capture;
  if (captured) result = gsim_capture_host_function(stream, fn, userData);
  gsim_unlock();
  if (result == CUDA_SUCCESS && !captured) fn(userData);
  return result;
}

typedef void (*stream_callback)(CUstream stream, CUresult status, void *data);

DRIVER_API_PT(346, cuStreamAddCallback, 437, cuStreamAddCallback_ptsz, CUstream, hStream, stream_callback, callback,
              void *, userData, unsigned int, flags) {
  if (!callback || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_wait(stream);
  gsim_unlock();
  if (result == CUDA_SUCCESS) callback(hStream, CUDA_SUCCESS, userData);
  return result;
}

static CUresult check(CUfunction function) {
  gsim_lock();
  bool known = gsim_handle_is(function, GSIM_KIND_FUNCTION);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* What a small kernel compiled for the device would say. */
enum {
  FUNCTION_MAX_THREADS = 0,
  FUNCTION_REGISTERS = 4,
  FUNCTION_PTX_VERSION = 5,
  FUNCTION_BINARY_VERSION = 6,
  FUNCTION_ATTRIBUTES = 18,
};

static CUresult get_attribute(int *value, int attribute, CUfunction function) {
  static const int values[FUNCTION_ATTRIBUTES] = {
      [FUNCTION_MAX_THREADS] = 1024,
      [FUNCTION_REGISTERS] = 32,
      [FUNCTION_PTX_VERSION] = 90,
      [FUNCTION_BINARY_VERSION] = 90,
  };
  if (!value || attribute < 0 || attribute >= FUNCTION_ATTRIBUTES) return CUDA_ERROR_INVALID_VALUE;
  *value = values[attribute];
  return check(function);
}

DRIVER_API(85, cuFuncGetAttribute, int *, pi, int, attrib, CUfunction, hfunc) {
  return get_attribute(pi, attrib, hfunc);
}

DRIVER_API(686, cuKernelGetAttribute, int *, pi, int, attrib, CUkernel, kernel, CUdevice, dev) {
  return get_attribute(pi, attrib, kernel);
}

DRIVER_API(481, cuFuncSetAttribute, CUfunction, hfunc, int, attrib, int, value) { return check(hfunc); }

DRIVER_API(687, cuKernelSetAttribute, int, attrib, int, val, CUkernel, kernel, CUdevice, dev) { return check(kernel); }

DRIVER_API(86, cuFuncSetCacheConfig, CUfunction, hfunc, int, config) { return check(hfunc); }

DRIVER_API(566, cuFuncGetModule, CUmodule *, hmod, CUfunction, hfunc) {
  CUresult result = check(hfunc);
  if (!hmod) return CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) *hmod = hfunc->module;
  return result;
}

static CUresult get_name(const char **name, CUfunction function) {
  CUresult result = check(function);
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) *name = function->name;
  return result;
}

DRIVER_API(718, cuFuncGetName, const char **, name, CUfunction, hfunc) { return get_name(name, hfunc); }

DRIVER_API(719, cuKernelGetName, const char **, name, CUkernel, hfunc) { return get_name(name, hfunc); }
