#include "managed.h"

#include "entry.h"
#include "lock.h"
#include "stream.h"

enum { ATTACH_GLOBAL = 1, ATTACH_HOST = 2 };

/* The device whose memory the resident bytes take is the allocation's. */
static void evict(struct gsim_allocation *allocation) {
  gsim_device_give(allocation->device, allocation->resident);
  allocation->resident = 0;
}

void gsim_managed_free(struct gsim_allocation *allocation) {
  evict(allocation);
  gsim_addresses_unmap(allocation->extent->start, allocation->extent->size);
  gsim_addresses_give(allocation->extent);
  gsim_allocation_forget(allocation);
}

static void destroy_owned(struct gsim_owned *owned) {
  gsim_managed_free(GSIM_CONTAINER(owned, struct gsim_allocation, owned));
}

static CUresult take(CUcontext context, uint64_t size, unsigned flags, CUdeviceptr *address) {
  uint64_t rounded = gsim_round_up(size, GSIM_PAGE);
  struct gsim_extent *extent = gsim_addresses_take(rounded);
  if (!extent) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!gsim_addresses_map_host(extent->start, rounded)) {
    gsim_addresses_give(extent);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  struct gsim_allocation *allocation = gsim_allocation_new(GSIM_MANAGED, extent->start, size, context->device);
  allocation->extent = extent;
  allocation->context = context;
  allocation->flags = flags;
  gsim_own(&context->owned, &allocation->owned, destroy_owned);
  *address = extent->start;
  return CUDA_SUCCESS;
}

DRIVER_API(371, cuMemAllocManaged, CUdeviceptr *, dptr, size_t, bytesize, unsigned int, flags) {
  if (!dptr || bytesize == 0 || (flags != ATTACH_GLOBAL && flags != ATTACH_HOST)) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = take(context, bytesize, flags, dptr);
  gsim_unlock();
  return result;
}

/* Prefetching is per page on a device; here the whole allocation moves, limited
 * by what is free, since managed memory may exceed a device. */
static CUresult prefetch(CUdeviceptr address, uint64_t count, struct gsim_device *device) {
  struct gsim_allocation *allocation = gsim_allocation_find(address);
  if (!allocation || allocation->memory != GSIM_MANAGED) return CUDA_ERROR_INVALID_VALUE;
  if (count == 0 || count > allocation->range.start + allocation->range.size - address) return CUDA_ERROR_INVALID_VALUE;
  evict(allocation);
  if (!device) return CUDA_SUCCESS;
  allocation->device = device;
  uint64_t wanted = gsim_round_up(count, GSIM_PAGE);
  uint64_t room = gsim_device_free_bytes(device) & ~(GSIM_PAGE - 1);
  allocation->resident = wanted < room ? wanted : room;
  device->used += allocation->resident;
  return CUDA_SUCCESS;
}

static CUresult prefetch_to(CUdeviceptr address, uint64_t count, bool to_host, int ordinal) {
  struct gsim_device *device = to_host ? NULL : gsim_device_at(ordinal);
  if (!to_host && !device) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  CUresult result = prefetch(address, count, device);
  gsim_unlock();
  return result;
}

#define DEVICE_CPU (-1)

DRIVER_API_PT(467, cuMemPrefetchAsync, 468, cuMemPrefetchAsync_ptsz, CUdeviceptr, devPtr, size_t, count, CUdevice,
              dstDevice, CUstream, hStream) {
  return prefetch_to(devPtr, count, dstDevice == DEVICE_CPU, dstDevice);
}

DRIVER_API_PT(716, cuMemPrefetchAsync_v2, 717, cuMemPrefetchAsync_v2_ptsz, CUdeviceptr, devPtr, size_t, count,
              CUmemLocation, location, unsigned int, flags, CUstream, hStream) {
  return prefetch_to(devPtr, count, location.type != CU_LOCATION_DEVICE, location.id);
}

/* Advice changes nothing here, but it must be about managed memory. */
static CUresult advise(CUdeviceptr address) {
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(address);
  bool managed = allocation && allocation->memory == GSIM_MANAGED;
  gsim_unlock();
  return managed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(457, cuMemAdvise, CUdeviceptr, devPtr, size_t, count, int, advice, CUdevice, device) {
  return advise(devPtr);
}

DRIVER_API(715, cuMemAdvise_v2, CUdeviceptr, devPtr, size_t, count, int, advice, CUmemLocation, location) {
  return advise(devPtr);
}

DRIVER_API_PT(377, cuStreamAttachMemAsync, 438, cuStreamAttachMemAsync_ptsz, CUstream, hStream, CUdeviceptr, dptr,
              size_t, length, unsigned int, flags) {
  return advise(dptr);
}
