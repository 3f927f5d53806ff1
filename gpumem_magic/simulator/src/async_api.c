/* cuMemAllocAsync, cuMemAllocFromPoolAsync, cuMemFreeAsync: stream-ordered
 * memory. On a stream that is being captured they become graph nodes. */
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "pool.h"
#include "stream.h"

static CUresult allocate(CUmemoryPool pool, CUstream stream, size_t size, CUdeviceptr *address) {
  if (size == 0) {
    *address = 0;
    return CUDA_SUCCESS;
  }
  if (stream->capture) return gsim_capture_allocate(stream, pool, size, address);
  struct gsim_allocation *allocation;
  CUresult result = gsim_pool_allocate(pool, size, &allocation);
  if (result == CUDA_SUCCESS) *address = allocation->range.start;
  return result;
}

DRIVER_API_PT(598, cuMemAllocAsync, 599, cuMemAllocAsync_ptsz, CUdeviceptr *, dptr, size_t, bytesize, CUstream,
              hStream) {
  if (!dptr) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUstream stream;
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS) result = allocate(gsim_current_pool(stream->context->device), stream, bytesize, dptr);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(611, cuMemAllocFromPoolAsync, 612, cuMemAllocFromPoolAsync_ptsz, CUdeviceptr *, dptr, size_t, bytesize,
              CUmemoryPool, pool, CUstream, hStream) {
  if (!dptr) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUstream stream;
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS && (!gsim_handle_is(pool, GSIM_KIND_POOL) || pool->is_destroyed))
    result = CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) result = allocate(pool, stream, bytesize, dptr);
  gsim_unlock();
  return result;
}

static CUresult free_on(CUstream stream, CUdeviceptr address) {
  if (stream->capture) return gsim_capture_free(stream, address);
  if (address == 0) return CUDA_SUCCESS;
  struct gsim_allocation *allocation = gsim_allocation_at(address);
  if (!allocation) return CUDA_ERROR_INVALID_VALUE;
  switch (allocation->memory) {
    case GSIM_ASYNC:
      gsim_pool_free(allocation);
      return CUDA_SUCCESS;
    case GSIM_PLAIN:
      gsim_plain_free(allocation);
      return CUDA_SUCCESS;
    case GSIM_MANAGED:
      return CUDA_ERROR_NOT_SUPPORTED;
    case GSIM_GRAPH_MEMORY:
      gsim_graph_memory_free(allocation);
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

DRIVER_API_PT(600, cuMemFreeAsync, 601, cuMemFreeAsync_ptsz, CUdeviceptr, dptr, CUstream, hStream) {
  gsim_lock();
  CUstream stream;
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS) result = free_on(stream, dptr);
  gsim_unlock();
  return result;
}
