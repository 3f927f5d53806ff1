/* Physical memory handles between processes, and back from addresses. */
#include <unistd.h>

#include "entry.h"
#include "lock.h"
#include "share.h"
#include "vmm.h"

static CUresult export_handle(struct gsim_physical_handle *object, int *fd) {
  if (!object || !(object->prop.requestedHandleTypes & CU_HANDLE_POSIX_FD)) return CUDA_ERROR_INVALID_VALUE;
  *fd = gsim_share_file(object->physical);
  return *fd >= 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

DRIVER_API(554, cuMemExportToShareableHandle, void *, shareableHandle, CUmemGenericAllocationHandle, handle, int,
           handleType, unsigned long long, flags) {
  if (!shareableHandle || handleType != CU_HANDLE_POSIX_FD || flags) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = export_handle(gsim_physical_handle_of(handle), shareableHandle);
  gsim_unlock();
  return result;
}

DRIVER_API(555, cuMemImportFromShareableHandle, CUmemGenericAllocationHandle *, handle, void *, osHandle, int,
           shHandleType) {
  if (!handle || shHandleType != CU_HANDLE_POSIX_FD) return CUDA_ERROR_INVALID_VALUE;
  CUmemAllocationProp prop = {
      .type = CU_ALLOCATION_PINNED,
      .requestedHandleTypes = CU_HANDLE_POSIX_FD,
      .location = {CU_LOCATION_DEVICE, 0},
  };
  gsim_lock();
  struct gsim_physical *physical = gsim_share_open((int)(intptr_t)osHandle, &prop.location.id);
  if (physical) *handle = gsim_physical_handle_new(physical, &prop);
  gsim_unlock();
  return physical ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The handle of what is mapped at the address, or a new one if its own is gone. */
static CUmemGenericAllocationHandle retain(struct gsim_allocation *mapping) {
  struct gsim_physical_handle *object = mapping->physical->named_by;
  if (object) {
    object->references++;
    return (CUmemGenericAllocationHandle)(uintptr_t)object;
  }
  CUmemAllocationProp prop = {
      .type = CU_ALLOCATION_PINNED,
      .requestedHandleTypes = (int)mapping->flags,
      .location = {CU_LOCATION_DEVICE, mapping->device ? mapping->device->ordinal : 0},
  };
  gsim_physical_retain(mapping->physical);
  return gsim_physical_handle_new(mapping->physical, &prop);
}

DRIVER_API(565, cuMemRetainAllocationHandle, CUmemGenericAllocationHandle *, handle, void *, addr) {
  if (!handle) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_allocation *mapping = gsim_allocation_find((uint64_t)(uintptr_t)addr);
  bool mapped = mapping && mapping->memory == GSIM_MAPPING;
  if (mapped) *handle = retain(mapping);
  gsim_unlock();
  return mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
