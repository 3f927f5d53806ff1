/* cuMemAlloc, cuMemAllocPitch, cuMemFree, cuMemGetInfo: memory of a context. */
#include "allocation.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "managed.h"
#include "pool.h"
#include "stream.h"

#define PITCH_ALIGNMENT 512

static void destroy_owned(struct gsim_owned *owned);

/* Requests under a page share slabs of one page each. */
static CUresult take_from_slab(CUcontext context, uint64_t size, struct gsim_allocation **out) {
  struct gsim_extent *extent = gsim_heap_take(&context->slabs, size);
  if (!extent) {
    struct gsim_physical *physical;
    CUresult result = gsim_physical_take(context->device, GSIM_PAGE, &physical);
    if (result != CUDA_SUCCESS) return result;
    struct gsim_extent *pages = gsim_addresses_take(GSIM_PAGE);
    if (!pages) {
      gsim_physical_release(physical);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    gsim_addresses_map(pages->start, GSIM_PAGE, physical, 0);
    gsim_heap_add_chunk(&context->slabs, pages->start, GSIM_PAGE, pages)->physical = physical;
    extent = gsim_heap_take(&context->slabs, size);
  }
  *out = gsim_allocation_new(GSIM_PLAIN, extent->start, size, context->device);
  (*out)->extent = extent;
  return CUDA_SUCCESS;
}

static void give_to_slab(struct gsim_allocation *allocation) {
  struct gsim_heap *slabs = &allocation->context->slabs;
  struct gsim_chunk *chunk = gsim_heap_give(slabs, allocation->extent);
  gsim_allocation_forget(allocation);
  if (chunk->used > 0) return;
  struct gsim_extent *pages = chunk->backing;
  gsim_addresses_unmap(pages->start, pages->size);
  gsim_physical_release(chunk->physical);
  gsim_addresses_give(pages);
  gsim_heap_remove_chunk(slabs, chunk);
}

static CUresult take_plain(CUcontext context, uint64_t size, CUdeviceptr *address) {
  struct gsim_allocation *allocation;
  CUresult result = size < GSIM_PAGE ? take_from_slab(context, size, &allocation)
                                     : gsim_allocation_take_pages(GSIM_PLAIN, context->device, size, &allocation);
  if (result != CUDA_SUCCESS) return result;
  allocation->context = context;
  gsim_own(&context->owned, &allocation->owned, destroy_owned);
  *address = allocation->range.start;
  return CUDA_SUCCESS;
}

void gsim_plain_free(struct gsim_allocation *allocation) {
  if (allocation->physical)
    gsim_allocation_give_pages(allocation);
  else
    give_to_slab(allocation);
}

static void destroy_owned(struct gsim_owned *owned) {
  gsim_plain_free(GSIM_CONTAINER(owned, struct gsim_allocation, owned));
}

static CUresult allocate(uint64_t size, CUdeviceptr *address) {
  if (!address || size == 0) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = take_plain(context, size, address);
  gsim_unlock();
  return result;
}

DRIVER_API(243, cuMemAlloc_v2, CUdeviceptr *, dptr, size_t, bytesize) { return allocate(bytesize, dptr); }

DRIVER_API(244, cuMemAllocPitch_v2, CUdeviceptr *, dptr, size_t *, pPitch, size_t, WidthInBytes, size_t, Height,
           unsigned int, ElementSizeBytes) {
  bool is_element = ElementSizeBytes == 4 || ElementSizeBytes == 8 || ElementSizeBytes == 16;
  if (!pPitch || !is_element || WidthInBytes == 0 || Height == 0) return CUDA_ERROR_INVALID_VALUE;
  size_t pitch = gsim_round_up(WidthInBytes, PITCH_ALIGNMENT);
  size_t bytes;
  if (pitch < WidthInBytes || __builtin_mul_overflow(pitch, Height, &bytes)) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = allocate(bytes, dptr);
  if (result == CUDA_SUCCESS) *pPitch = pitch;
  return result;
}

/* What cuMemFree does to each kind of memory that it may free. */
static CUresult free_allocation(struct gsim_allocation *allocation) {
  struct gsim_device *device = allocation->device;
  switch (allocation->memory) {
    case GSIM_PLAIN:
      gsim_plain_free(allocation);
      return CUDA_SUCCESS;
    case GSIM_MANAGED:
      gsim_managed_free(allocation);
      return CUDA_SUCCESS;
    case GSIM_EXTERNAL:
      gsim_allocation_give_pages(allocation);
      return CUDA_SUCCESS;
    case GSIM_GRAPH_MEMORY:
      gsim_graph_memory_free(allocation);
      return CUDA_SUCCESS;
    case GSIM_ASYNC:
      gsim_pool_free(allocation);
      if (device) gsim_pools_synchronize(device);
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

DRIVER_API(245, cuMemFree_v2, CUdeviceptr, dptr) {
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_at(dptr);
  CUresult result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS && dptr != 0) result = allocation ? free_allocation(allocation) : CUDA_ERROR_INVALID_VALUE;
  gsim_unlock();
  return result;
}

DRIVER_API(242, cuMemGetInfo_v2, size_t *, free, size_t *, total) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  gsim_lock();
  if (free) *free = gsim_device_free_bytes(context->device);
  if (total) *total = context->device->capacity;
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(246, cuMemGetAddressRange_v2, CUdeviceptr *, pbase, size_t *, psize, CUdeviceptr, dptr) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(dptr);
  if (allocation && pbase) *pbase = allocation->range.start;
  if (allocation && psize) *psize = allocation->range.size;
  gsim_unlock();
  return allocation ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
