#include "allocation.h"

#include <stdlib.h>

static struct gsim_range_map live;
static uint64_t next_buffer_id = 1;

struct gsim_allocation *gsim_allocation_new(enum gsim_memory memory, uint64_t start, uint64_t size,
                                            struct gsim_device *device) {
  struct gsim_allocation *allocation = calloc(1, sizeof *allocation);
  if (!allocation) abort();
  allocation->range.start = start;
  allocation->range.size = size;
  allocation->memory = memory;
  allocation->device = device;
  allocation->buffer_id = next_buffer_id++;
  gsim_range_insert(&live, &allocation->range);
  return allocation;
}

void gsim_allocation_forget(struct gsim_allocation *allocation) {
  gsim_disown(&allocation->owned);
  gsim_range_remove(&live, &allocation->range);
  free(allocation);
}

struct gsim_allocation *gsim_allocation_find(CUdeviceptr address) {
  return (struct gsim_allocation *)gsim_range_find(&live, address);
}

struct gsim_allocation *gsim_allocation_at(CUdeviceptr address) {
  struct gsim_allocation *found = gsim_allocation_find(address);
  return found && found->range.start == address ? found : NULL;
}

struct gsim_allocation *gsim_allocation_from(CUdeviceptr address) {
  return (struct gsim_allocation *)gsim_range_from(&live, address);
}

CUresult gsim_allocation_take_pages(enum gsim_memory memory, struct gsim_device *device, uint64_t size,
                                    struct gsim_allocation **out) {
  struct gsim_physical *physical;
  CUresult result = gsim_physical_take(device, size, &physical);
  if (result != CUDA_SUCCESS) return result;
  struct gsim_extent *extent = gsim_addresses_take(physical->size);
  if (!extent) {
    gsim_physical_release(physical);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  gsim_addresses_map(extent->start, physical->size, physical, 0);
  *out = gsim_allocation_new(memory, extent->start, size, device);
  (*out)->physical = physical;
  (*out)->extent = extent;
  return CUDA_SUCCESS;
}

void gsim_allocation_give_pages(struct gsim_allocation *allocation) {
  gsim_addresses_unmap(allocation->extent->start, allocation->extent->size);
  gsim_physical_release(allocation->physical);
  gsim_addresses_give(allocation->extent);
  gsim_allocation_forget(allocation);
}

/* Whether the simulator may read the bytes: host memory always, device memory
 * once its pages are in place. */
static bool reach(const struct gsim_allocation *allocation, uint64_t start, uint64_t size) {
  if (allocation->memory == GSIM_MAPPING && allocation->access == CU_ACCESS_NONE) return false;
  return !gsim_addresses_contain(start) || gsim_addresses_touch(start, size);
}

bool gsim_allocation_touch(CUdeviceptr address, uint64_t size) {
  struct gsim_allocation *allocation = gsim_allocation_find(address);
  while (allocation) {
    uint64_t left = allocation->range.start + allocation->range.size - address;
    uint64_t here = size < left ? size : left;
    if (!reach(allocation, address, here)) return false;
    address += here;
    size -= here;
    if (size == 0) return true;
    if (allocation->memory != GSIM_MAPPING) return false;
    allocation = gsim_allocation_at(address);
    if (allocation && allocation->memory != GSIM_MAPPING) return false;
  }
  return false;
}
