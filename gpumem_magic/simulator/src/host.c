/* Page-locked host memory: allocated by the driver, or the caller's own,
 * registered. Unified addressing makes its device address the host's. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "allocation.h"
#include "entry.h"
#include "lock.h"
#include "stream.h"

#define HOST_PAGE 4096ull
#define ALLOC_FLAGS 0x7u    /* portable, device map, write combined */
#define REGISTER_FLAGS 0xfu /* portable, device map, I/O memory, read only */

static uint64_t address_of(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

static void give(struct gsim_allocation *allocation) {
  munmap((void *)(uintptr_t)allocation->range.start, gsim_round_up(allocation->range.size, HOST_PAGE));
  gsim_allocation_forget(allocation);
}

static void destroy_owned(struct gsim_owned *owned) {
  struct gsim_allocation *allocation = GSIM_CONTAINER(owned, struct gsim_allocation, owned);
  if (allocation->memory == GSIM_HOST_ALLOCATED)
    give(allocation);
  else
    gsim_allocation_forget(allocation);
}

static void record(CUcontext context, enum gsim_memory memory, void *start, size_t size, unsigned flags) {
  struct gsim_allocation *allocation = gsim_allocation_new(memory, address_of(start), size, context->device);
  allocation->context = context;
  allocation->flags = flags;
  gsim_own(&context->owned, &allocation->owned, destroy_owned);
}

static CUresult take(CUcontext context, size_t size, unsigned flags, void **out) {
  CUresult result = gsim_capture_forbid_unsafe();
  if (result != CUDA_SUCCESS) return result;
  void *start = mmap(NULL, gsim_round_up(size, HOST_PAGE), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  record(context, GSIM_HOST_ALLOCATED, start, size, flags);
  *out = start;
  return CUDA_SUCCESS;
}

static CUresult allocate(void **out, size_t size, unsigned flags) {
  if (!out || size == 0 || (flags & ~ALLOC_FLAGS)) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = take(context, size, flags, out);
  gsim_unlock();
  return result;
}

DRIVER_API(294, cuMemAllocHost_v2, void **, pp, size_t, bytesize) { return allocate(pp, bytesize, 0); }

DRIVER_API(39, cuMemHostAlloc, void **, pp, size_t, bytesize, unsigned int, Flags) {
  return allocate(pp, bytesize, Flags);
}

DRIVER_API(38, cuMemFreeHost, void *, p) {
  if (!p) return CUDA_SUCCESS;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_at(address_of(p));
  CUresult result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS && (!allocation || allocation->memory != GSIM_HOST_ALLOCATED))
    result = CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) give(allocation);
  gsim_unlock();
  return result;
}

/* A registered range may not overlap anything that the driver knows. */
static bool overlaps(uint64_t start, size_t size) {
  struct gsim_allocation *next = gsim_allocation_from(start);
  return gsim_allocation_find(start) || (next && next->range.start - start < size);
}

static CUresult register_host(void *p, size_t size, unsigned flags) {
  if (!p || size == 0 || (flags & ~REGISTER_FLAGS)) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS && overlaps(address_of(p), size)) result = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  if (result == CUDA_SUCCESS) record(context, GSIM_HOST_REGISTERED, p, size, flags);
  gsim_unlock();
  return result;
}

DRIVER_API(301, cuMemHostRegister, void *, p, size_t, bytesize, unsigned int, Flags) {
  return register_host(p, bytesize, Flags);
}

DRIVER_API(379, cuMemHostRegister_v2, void *, p, size_t, bytesize, unsigned int, Flags) {
  return register_host(p, bytesize, Flags);
}

DRIVER_API(302, cuMemHostUnregister, void *, p) {
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_at(address_of(p));
  bool registered = allocation && allocation->memory == GSIM_HOST_REGISTERED;
  if (registered) gsim_allocation_forget(allocation);
  gsim_unlock();
  return registered ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

static bool is_host(const struct gsim_allocation *allocation) {
  return allocation && (allocation->memory == GSIM_HOST_ALLOCATED || allocation->memory == GSIM_HOST_REGISTERED);
}

DRIVER_API(247, cuMemHostGetDevicePointer_v2, CUdeviceptr *, pdptr, void *, p, unsigned int, Flags) {
  if (!pdptr || Flags != 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool host = is_host(gsim_allocation_find(address_of(p)));
  gsim_unlock();
  if (host) *pdptr = address_of(p);
  return host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(42, cuMemHostGetFlags, unsigned int *, pFlags, void *, p) {
  if (!pFlags) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(address_of(p));
  bool host = is_host(allocation);
  if (host) *pFlags = allocation->flags;
  gsim_unlock();
  return host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
