/* cuMemcpy* of bytes in a row, and between arrays and bytes in a row. */
#include "copy.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "pool.h"
#include "stream.h"

/* A synchronous copy. During capture it counts as unsafe. */
static CUresult copy_now(uint64_t dst, uint64_t src, size_t size, int known) {
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = gsim_copy_bytes(dst, src, size, known);
  gsim_unlock();
  return result;
}

static CUresult copy_on(CUstream handle, uint64_t dst, uint64_t src, size_t size, int known) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS && stream->capture) {
    CUDA_MEMCPY3D box = gsim_box_of_bytes(dst, src, size);
    result = gsim_capture_copy(stream, &box);
  } else if (result == CUDA_SUCCESS) {
    result = gsim_copy_bytes(dst, src, size, known);
  }
  gsim_unlock();
  return result;
}

static uint64_t of_host(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

#define BOTH (GSIM_KNOWN_DST | GSIM_KNOWN_SRC)

DRIVER_API_PT(305, cuMemcpy, 408, cuMemcpy_ptds, CUdeviceptr, dst, CUdeviceptr, src, size_t, ByteCount) {
  return copy_now(dst, src, ByteCount, GSIM_KNOWN_NEITHER);
}

DRIVER_API_PT(306, cuMemcpyAsync, 418, cuMemcpyAsync_ptsz, CUdeviceptr, dst, CUdeviceptr, src, size_t, ByteCount,
              CUstream, hStream) {
  return copy_on(hStream, dst, src, ByteCount, GSIM_KNOWN_NEITHER);
}

DRIVER_API_PT(276, cuMemcpyHtoD_v2, 397, cuMemcpyHtoD_v2_ptds, CUdeviceptr, dstDevice, const void *, srcHost, size_t,
              ByteCount) {
  return copy_now(dstDevice, of_host(srcHost), ByteCount, GSIM_KNOWN_DST);
}

DRIVER_API_PT(277, cuMemcpyHtoDAsync_v2, 421, cuMemcpyHtoDAsync_v2_ptsz, CUdeviceptr, dstDevice, const void *, srcHost,
              size_t, ByteCount, CUstream, hStream) {
  return copy_on(hStream, dstDevice, of_host(srcHost), ByteCount, GSIM_KNOWN_DST);
}

DRIVER_API_PT(278, cuMemcpyDtoH_v2, 398, cuMemcpyDtoH_v2_ptds, void *, dstHost, CUdeviceptr, srcDevice, size_t,
              ByteCount) {
  return copy_now(of_host(dstHost), srcDevice, ByteCount, GSIM_KNOWN_SRC);
}

DRIVER_API_PT(279, cuMemcpyDtoHAsync_v2, 422, cuMemcpyDtoHAsync_v2_ptsz, void *, dstHost, CUdeviceptr, srcDevice,
              size_t, ByteCount, CUstream, hStream) {
  return copy_on(hStream, of_host(dstHost), srcDevice, ByteCount, GSIM_KNOWN_SRC);
}

DRIVER_API_PT(280, cuMemcpyDtoD_v2, 399, cuMemcpyDtoD_v2_ptds, CUdeviceptr, dstDevice, CUdeviceptr, srcDevice, size_t,
              ByteCount) {
  return copy_now(dstDevice, srcDevice, ByteCount, BOTH);
}

DRIVER_API_PT(281, cuMemcpyDtoDAsync_v2, 423, cuMemcpyDtoDAsync_v2_ptsz, CUdeviceptr, dstDevice, CUdeviceptr, srcDevice,
              size_t, ByteCount, CUstream, hStream) {
  return copy_on(hStream, dstDevice, srcDevice, ByteCount, BOTH);
}

DRIVER_API_PT(318, cuMemcpyPeer, 409, cuMemcpyPeer_ptds, CUdeviceptr, dstDevice, CUcontext, dstContext, CUdeviceptr,
              srcDevice, CUcontext, srcContext, size_t, ByteCount) {
  return copy_now(dstDevice, srcDevice, ByteCount, BOTH);
}

DRIVER_API_PT(319, cuMemcpyPeerAsync, 426, cuMemcpyPeerAsync_ptsz, CUdeviceptr, dstDevice, CUcontext, dstContext,
              CUdeviceptr, srcDevice, CUcontext, srcContext, size_t, ByteCount, CUstream, hStream) {
  return copy_on(hStream, dstDevice, srcDevice, ByteCount, BOTH);
}

/* A run of bytes in an array, which is contiguous here; 0 if out of bounds. */
static uint64_t in_array(CUarray array, size_t offset, size_t size) {
  if (!gsim_handle_is(array, GSIM_KIND_ARRAY)) return 0;
  uint64_t bytes = array->row_bytes * array->rows;
  if (size > bytes || offset > bytes - size) return 0;
  return gsim_addresses_touch(array->start, bytes) ? array->start + offset : 0;
}

/* Copies where one side or both are arrays; a NULL array means the address. */
static CUresult copy_array(CUarray dst_array, uint64_t dst, CUarray src_array, uint64_t src, size_t size) {
  gsim_lock();
  uint64_t to = dst_array ? in_array(dst_array, dst, size) : dst;
  uint64_t from = src_array ? in_array(src_array, src, size) : src;
  bool reachable =
      to && from && (dst_array || gsim_reach(to, size, false)) && (src_array || gsim_reach(from, size, false));
  if (reachable) __builtin_memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size);
  gsim_unlock();
  return reachable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API_PT(292, cuMemcpyHtoA_v2, 402, cuMemcpyHtoA_v2_ptds, CUarray, dstArray, size_t, dstOffset, const void *,
              srcHost, size_t, ByteCount) {
  return copy_array(dstArray, dstOffset, NULL, of_host(srcHost), ByteCount);
}

DRIVER_API_PT(293, cuMemcpyHtoAAsync_v2, 419, cuMemcpyHtoAAsync_v2_ptsz, CUarray, dstArray, size_t, dstOffset,
              const void *, srcHost, size_t, ByteCount, CUstream, hStream) {
  return copy_array(dstArray, dstOffset, NULL, of_host(srcHost), ByteCount);
}

DRIVER_API_PT(282, cuMemcpyAtoH_v2, 403, cuMemcpyAtoH_v2_ptds, void *, dstHost, CUarray, srcArray, size_t, srcOffset,
              size_t, ByteCount) {
  return copy_array(NULL, of_host(dstHost), srcArray, srcOffset, ByteCount);
}

DRIVER_API_PT(283, cuMemcpyAtoHAsync_v2, 420, cuMemcpyAtoHAsync_v2_ptsz, void *, dstHost, CUarray, srcArray, size_t,
              srcOffset, size_t, ByteCount, CUstream, hStream) {
  return copy_array(NULL, of_host(dstHost), srcArray, srcOffset, ByteCount);
}

DRIVER_API_PT(285, cuMemcpyDtoA_v2, 400, cuMemcpyDtoA_v2_ptds, CUarray, dstArray, size_t, dstOffset, CUdeviceptr,
              srcDevice, size_t, ByteCount) {
  return copy_array(dstArray, dstOffset, NULL, srcDevice, ByteCount);
}

DRIVER_API_PT(284, cuMemcpyAtoD_v2, 401, cuMemcpyAtoD_v2_ptds, CUdeviceptr, dstDevice, CUarray, srcArray, size_t,
              srcOffset, size_t, ByteCount) {
  return copy_array(NULL, dstDevice, srcArray, srcOffset, ByteCount);
}

DRIVER_API_PT(286, cuMemcpyAtoA_v2, 404, cuMemcpyAtoA_v2_ptds, CUarray, dstArray, size_t, dstOffset, CUarray, srcArray,
              size_t, srcOffset, size_t, ByteCount) {
  return copy_array(dstArray, dstOffset, srcArray, srcOffset, ByteCount);
}
