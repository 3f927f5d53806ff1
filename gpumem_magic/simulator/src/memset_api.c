/* cuMemset*. */
#include "copy.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "stream.h"

static CUDA_MEMSET_NODE_PARAMS rows(CUdeviceptr dst, size_t pitch, unsigned value, unsigned element, size_t width,
                                    size_t height) {
  return (CUDA_MEMSET_NODE_PARAMS){dst, pitch, value, element, width, height};
}

static CUresult set_now(CUDA_MEMSET_NODE_PARAMS fill) {
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = gsim_fill(&fill);
  gsim_unlock();
  return result;
}

static CUresult set_on(CUstream handle, CUDA_MEMSET_NODE_PARAMS fill) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS) result = stream->capture ? gsim_capture_fill(stream, &fill) : gsim_fill(&fill);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(249, cuMemsetD8_v2, 411, cuMemsetD8_v2_ptds, CUdeviceptr, dstDevice, unsigned char, uc, size_t, N) {
  return set_now(rows(dstDevice, 0, uc, 1, N, 1));
}

DRIVER_API_PT(250, cuMemsetD16_v2, 412, cuMemsetD16_v2_ptds, CUdeviceptr, dstDevice, unsigned short, us, size_t, N) {
  return set_now(rows(dstDevice, 0, us, 2, N, 1));
}

DRIVER_API_PT(251, cuMemsetD32_v2, 413, cuMemsetD32_v2_ptds, CUdeviceptr, dstDevice, unsigned int, ui, size_t, N) {
  return set_now(rows(dstDevice, 0, ui, 4, N, 1));
}

DRIVER_API_PT(252, cuMemsetD2D8_v2, 414, cuMemsetD2D8_v2_ptds, CUdeviceptr, dstDevice, size_t, dstPitch, unsigned char,
              uc, size_t, Width, size_t, Height) {
  return set_now(rows(dstDevice, dstPitch, uc, 1, Width, Height));
}

DRIVER_API_PT(253, cuMemsetD2D16_v2, 415, cuMemsetD2D16_v2_ptds, CUdeviceptr, dstDevice, size_t, dstPitch,
              unsigned short, us, size_t, Width, size_t, Height) {
  return set_now(rows(dstDevice, dstPitch, us, 2, Width, Height));
}

DRIVER_API_PT(254, cuMemsetD2D32_v2, 416, cuMemsetD2D32_v2_ptds, CUdeviceptr, dstDevice, size_t, dstPitch, unsigned int,
              ui, size_t, Width, size_t, Height) {
  return set_now(rows(dstDevice, dstPitch, ui, 4, Width, Height));
}

DRIVER_API_PT(216, cuMemsetD8Async, 428, cuMemsetD8Async_ptsz, CUdeviceptr, dstDevice, unsigned char, uc, size_t, N,
              CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, 0, uc, 1, N, 1));
}

DRIVER_API_PT(218, cuMemsetD16Async, 429, cuMemsetD16Async_ptsz, CUdeviceptr, dstDevice, unsigned short, us, size_t, N,
              CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, 0, us, 2, N, 1));
}

DRIVER_API_PT(220, cuMemsetD32Async, 430, cuMemsetD32Async_ptsz, CUdeviceptr, dstDevice, unsigned int, ui, size_t, N,
              CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, 0, ui, 4, N, 1));
}

DRIVER_API_PT(222, cuMemsetD2D8Async, 431, cuMemsetD2D8Async_ptsz, CUdeviceptr, dstDevice, size_t, dstPitch,
              unsigned char, uc, size_t, Width, size_t, Height, CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, dstPitch, uc, 1, Width, Height));
}

DRIVER_API_PT(224, cuMemsetD2D16Async, 432, cuMemsetD2D16Async_ptsz, CUdeviceptr, dstDevice, size_t, dstPitch,
              unsigned short, us, size_t, Width, size_t, Height, CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, dstPitch, us, 2, Width, Height));
}

DRIVER_API_PT(226, cuMemsetD2D32Async, 433, cuMemsetD2D32Async_ptsz, CUdeviceptr, dstDevice, size_t, dstPitch,
              unsigned int, ui, size_t, Width, size_t, Height, CUstream, hStream) {
  return set_on(hStream, rows(dstDevice, dstPitch, ui, 4, Width, Height));
}
