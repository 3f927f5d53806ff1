/* External memory: what another API of this process allocated on the device. Its
 * bytes are counted from the import to the destruction, since this process is the
 * one that uses them; each mapped buffer gives them an address. */
#include <unistd.h>

#include "allocation.h"
#include "array.h"
#include "entry.h"
#include "lock.h"

enum { HANDLE_OPAQUE_FD = 1, HANDLE_DMABUF_FD = 9 };

struct gsim_external_memory {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  struct gsim_physical *physical;
  uint64_t size;
};

static void destroy(CUexternalMemory memory) {
  gsim_disown(&memory->owned);
  gsim_physical_release(memory->physical);
  gsim_handle_free(memory);
}

static void destroy_owned_memory(struct gsim_owned *owned) {
  destroy(GSIM_CONTAINER(owned, struct gsim_external_memory, owned));
}

static CUresult import(CUexternalMemory *out, uint64_t size) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  struct gsim_physical *physical;
  result = gsim_physical_take(context->device, size, &physical);
  if (result != CUDA_SUCCESS) return result;
  *out = gsim_handle_new(GSIM_KIND_EXTERNAL, sizeof **out);
  (*out)->context = context;
  (*out)->physical = physical;
  (*out)->size = size;
  gsim_own(&context->owned, &(*out)->owned, destroy_owned_memory);
  return CUDA_SUCCESS;
}

/* A file descriptor that was imported belongs to the driver. */
DRIVER_API(485, cuImportExternalMemory, CUexternalMemory *, extMem_out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *,
           memHandleDesc) {
  const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *desc = memHandleDesc;
  if (!extMem_out || !desc || desc->size == 0) return CUDA_ERROR_INVALID_VALUE;
  if (desc->type != HANDLE_OPAQUE_FD && desc->type != HANDLE_DMABUF_FD) return CUDA_ERROR_NOT_SUPPORTED;
  gsim_lock();
  CUresult result = import(extMem_out, desc->size);
  gsim_unlock();
  if (result == CUDA_SUCCESS) close(desc->handle.fd);
  return result;
}

static void destroy_owned_buffer(struct gsim_owned *owned) {
  gsim_allocation_give_pages(GSIM_CONTAINER(owned, struct gsim_allocation, owned));
}

static CUresult map(CUexternalMemory memory, uint64_t offset, uint64_t size, CUdeviceptr *address) {
  if (size == 0 || size > memory->size || offset > memory->size - size) return CUDA_ERROR_INVALID_VALUE;
  struct gsim_extent *extent = gsim_addresses_take(memory->physical->size);
  if (!extent) return CUDA_ERROR_OUT_OF_MEMORY;
  gsim_addresses_map(extent->start, extent->size, memory->physical, 0);
  gsim_physical_retain(memory->physical);
  struct gsim_allocation *allocation =
      gsim_allocation_new(GSIM_EXTERNAL, extent->start + offset, size, memory->context->device);
  allocation->physical = memory->physical;
  allocation->extent = extent;
  allocation->context = memory->context;
  gsim_own(&memory->context->owned, &allocation->owned, destroy_owned_buffer);
  *address = allocation->range.start;
  return CUDA_SUCCESS;
}

DRIVER_API(486, cuExternalMemoryGetMappedBuffer, CUdeviceptr *, devPtr, CUexternalMemory, extMem,
           const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *, bufferDesc) {
  if (!devPtr || !bufferDesc) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = gsim_handle_is(extMem, GSIM_KIND_EXTERNAL)
                        ? map(extMem, bufferDesc->offset, bufferDesc->size, devPtr)
                        : CUDA_ERROR_INVALID_HANDLE;
  gsim_unlock();
  return result;
}

DRIVER_API(488, cuDestroyExternalMemory, CUexternalMemory, extMem) {
  gsim_lock();
  bool known = gsim_handle_is(extMem, GSIM_KIND_EXTERNAL);
  if (known) destroy(extMem);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
