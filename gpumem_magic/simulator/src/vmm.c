#include "vmm.h"

#include <stdlib.h>

#include "entry.h"
#include "lock.h"

/* Reserved address ranges, by address. */
struct reservation {
  struct gsim_range range;
  struct gsim_extent *extent; /* may begin earlier, for the sake of alignment */
};

static struct gsim_range_map reservations;

static bool is_page_multiple(uint64_t value) { return value % GSIM_PAGE == 0; }

static bool are_valid(const CUmemAllocationProp *prop) {
  bool device = prop->location.type == CU_LOCATION_DEVICE && gsim_device_at(prop->location.id);
  bool host = prop->location.type >= CU_LOCATION_HOST;
  bool handles = (prop->requestedHandleTypes & ~CU_HANDLE_POSIX_FD) == 0;
  return prop->type == CU_ALLOCATION_PINNED && (device || host) && handles;
}

struct gsim_physical_handle *gsim_physical_handle_of(CUmemGenericAllocationHandle handle) {
  void *object = (void *)(uintptr_t)handle;
  return gsim_handle_is(object, GSIM_KIND_PHYSICAL) ? object : NULL;
}

CUmemGenericAllocationHandle gsim_physical_handle_new(struct gsim_physical *physical, const CUmemAllocationProp *prop) {
  struct gsim_physical_handle *object = gsim_handle_new(GSIM_KIND_PHYSICAL, sizeof *object);
  object->physical = physical;
  object->prop = *prop;
  object->references = 1;
  physical->named_by = object;
  return (CUmemGenericAllocationHandle)(uintptr_t)object;
}

DRIVER_API(556, cuMemGetAllocationGranularity, size_t *, granularity, const CUmemAllocationProp *, prop, int, option) {
  if (!granularity || !prop || !are_valid(prop)) return CUDA_ERROR_INVALID_VALUE;
  *granularity = GSIM_PAGE;
  return CUDA_SUCCESS;
}

DRIVER_API(549, cuMemCreate, CUmemGenericAllocationHandle *, handle, size_t, size, const CUmemAllocationProp *, prop,
           unsigned long long, flags) {
  if (!handle || !prop || !are_valid(prop) || size == 0 || !is_page_multiple(size) || flags)
    return CUDA_ERROR_INVALID_VALUE;
  bool on_device = prop->location.type == CU_LOCATION_DEVICE;
  struct gsim_physical *physical;
  gsim_lock();
  CUresult result = gsim_physical_take(on_device ? gsim_device_at(prop->location.id) : NULL, size, &physical);
  if (result == CUDA_SUCCESS) *handle = gsim_physical_handle_new(physical, prop);
  gsim_unlock();
  return result;
}

DRIVER_API(550, cuMemRelease, CUmemGenericAllocationHandle, handle) {
  gsim_lock();
  struct gsim_physical_handle *object = gsim_physical_handle_of(handle);
  if (object && --object->references == 0) {
    if (object->physical->named_by == object) object->physical->named_by = NULL;
    gsim_physical_release(object->physical);
    gsim_handle_free(object);
  }
  gsim_unlock();
  return object ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(557, cuMemGetAllocationPropertiesFromHandle, CUmemAllocationProp *, prop, CUmemGenericAllocationHandle,
           handle) {
  if (!prop) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_physical_handle *object = gsim_physical_handle_of(handle);
  if (object) *prop = object->prop;
  gsim_unlock();
  return object ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The wanted address is only a hint, which this driver does not take. */
DRIVER_API(547, cuMemAddressReserve, CUdeviceptr *, ptr, size_t, size, size_t, alignment, CUdeviceptr, addr,
           unsigned long long, flags) {
  bool aligned = (alignment & (alignment - 1)) == 0;
  if (!ptr || size == 0 || !is_page_multiple(size) || !aligned || flags) return CUDA_ERROR_INVALID_VALUE;
  if (alignment < GSIM_PAGE) alignment = GSIM_PAGE;
  gsim_lock();
  struct gsim_extent *extent = gsim_addresses_take(size + alignment - GSIM_PAGE);
  if (extent) {
    struct reservation *reservation = calloc(1, sizeof *reservation);
    if (!reservation) abort();
    reservation->range.start = gsim_round_up(extent->start, alignment);
    reservation->range.size = size;
    reservation->extent = extent;
    gsim_range_insert(&reservations, &reservation->range);
    *ptr = reservation->range.start;
  }
  gsim_unlock();
  return extent ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static bool has_mappings(const struct reservation *reservation) {
  struct gsim_allocation *next = gsim_allocation_from(reservation->range.start);
  return next && next->range.start - reservation->range.start < reservation->range.size;
}

DRIVER_API(548, cuMemAddressFree, CUdeviceptr, ptr, size_t, size) {
  gsim_lock();
  struct reservation *reservation = (struct reservation *)gsim_range_find(&reservations, ptr);
  bool exact =
      reservation && reservation->range.start == ptr && reservation->range.size == size && !has_mappings(reservation);
  if (exact) {
    gsim_range_remove(&reservations, &reservation->range);
    gsim_addresses_give(reservation->extent);
    free(reservation);
  }
  gsim_unlock();
  return exact ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Whether the range lies in one reservation and nothing is mapped there yet. */
static bool is_vacant(CUdeviceptr address, size_t size) {
  struct gsim_range *reservation = gsim_range_find(&reservations, address);
  if (!reservation || size > reservation->start + reservation->size - address) return false;
  struct gsim_allocation *next = gsim_allocation_from(address);
  return !gsim_allocation_find(address) && (!next || next->range.start - address >= size);
}

/* A handle is mapped whole, as the real driver insists. */
static CUresult map(CUdeviceptr address, size_t size, size_t offset, struct gsim_physical_handle *object) {
  if (!object) return CUDA_ERROR_INVALID_VALUE;
  if (size != object->physical->size || offset != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if (!is_vacant(address, size)) return CUDA_ERROR_INVALID_VALUE;
  struct gsim_allocation *mapping =
      gsim_allocation_new(GSIM_MAPPING, address, size, gsim_device_at(object->prop.location.id));
  mapping->physical = object->physical;
  mapping->flags = (unsigned)object->prop.requestedHandleTypes;
  gsim_physical_retain(object->physical);
  gsim_addresses_map(address, size, object->physical, 0);
  return CUDA_SUCCESS;
}

DRIVER_API(551, cuMemMap, CUdeviceptr, ptr, size_t, size, size_t, offset, CUmemGenericAllocationHandle, handle,
           unsigned long long, flags) {
  if (size == 0 || !is_page_multiple(ptr | size | offset) || flags) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = map(ptr, size, offset, gsim_physical_handle_of(handle));
  gsim_unlock();
  return result;
}

/* Whether the range consists of whole mappings. */
static bool is_mapped_exactly(CUdeviceptr address, size_t size) {
  while (size > 0) {
    struct gsim_allocation *mapping = gsim_allocation_at(address);
    if (!mapping || mapping->memory != GSIM_MAPPING || mapping->range.size > size) return false;
    address += mapping->range.size;
    size -= mapping->range.size;
  }
  return true;
}

static void unmap(struct gsim_allocation *mapping) {
  gsim_addresses_unmap(mapping->range.start, mapping->range.size);
  gsim_physical_release(mapping->physical);
  gsim_allocation_forget(mapping);
}

/* Whether no mapping reaches across the range's ends; holes are fine. */
static bool cuts_no_mapping(CUdeviceptr start, CUdeviceptr end) {
  struct gsim_allocation *first = gsim_allocation_find(start);
  struct gsim_allocation *last = gsim_allocation_find(end - 1);
  return (!first || first->range.start == start) && (!last || last->range.start + last->range.size == end);
}

DRIVER_API(552, cuMemUnmap, CUdeviceptr, ptr, size_t, size) {
  CUdeviceptr end = ptr + size;
  gsim_lock();
  bool whole = size > 0 && gsim_range_find(&reservations, ptr) && cuts_no_mapping(ptr, end);
  struct gsim_allocation *next = whole ? gsim_allocation_from(ptr) : NULL;
  while (next && next->range.start < end) {
    unmap(next);
    next = gsim_allocation_from(ptr);
  }
  gsim_unlock();
  return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set_access(CUdeviceptr address, size_t size, unsigned flags) {
  if (!is_mapped_exactly(address, size)) return CUDA_ERROR_INVALID_VALUE;
  for (CUdeviceptr end = address + size; address < end;) {
    struct gsim_allocation *mapping = gsim_allocation_at(address);
    mapping->access = flags;
    address += mapping->range.size;
  }
  return CUDA_SUCCESS;
}

DRIVER_API(553, cuMemSetAccess, CUdeviceptr, ptr, size_t, size, const CUmemAccessDesc *, desc, size_t, count) {
  if (!desc || count == 0 || size == 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = CUDA_SUCCESS;
  for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) result = set_access(ptr, size, (unsigned)desc[i].flags);
  gsim_unlock();
  return result;
}

DRIVER_API(558, cuMemGetAccess, unsigned long long *, flags, const CUmemLocation *, location, CUdeviceptr, ptr) {
  if (!flags || !location) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_allocation *mapping = gsim_allocation_find(ptr);
  bool mapped = mapping && mapping->memory == GSIM_MAPPING;
  if (mapped) *flags = mapping->access;
  gsim_unlock();
  return mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool gsim_reservation_of(CUdeviceptr address, CUdeviceptr *start, uint64_t *size) {
  struct gsim_range *reservation = gsim_range_find(&reservations, address);
  if (!reservation) return false;
  *start = reservation->start;
  *size = reservation->size;
  return true;
}
