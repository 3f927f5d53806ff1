/* The memory of graphs: a pool of each device's own that grows as the others do
 * and gives back only when it is trimmed. */
#include <stdlib.h>

#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "pool.h"

enum graph_memory_attribute {
  GRAPH_MEMORY_USED_CURRENT = 0,
  GRAPH_MEMORY_USED_HIGH = 1,
  GRAPH_MEMORY_RESERVED_CURRENT = 2,
  GRAPH_MEMORY_RESERVED_HIGH = 3,
};

static struct gsim_range_map addresses;

CUresult gsim_work_alloc(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct gsim_work *work) {
  const CUmemLocation *location = &params->poolProps.location;
  struct gsim_device *device = gsim_device_at(location->id);
  if (location->type != CU_LOCATION_DEVICE || !device || params->bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
  struct gsim_extent *extent = gsim_addresses_take(params->bytesize);
  struct gsim_graph_memory *memory = calloc(1, sizeof *memory);
  if (!extent || !memory) {
    free(memory);
    if (extent) gsim_addresses_give(extent);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  memory->range.start = extent->start;
  memory->range.size = params->bytesize;
  memory->extent = extent;
  memory->device = device;
  memory->references = 1;
  gsim_range_insert(&addresses, &memory->range);
  params->dptr = extent->start;
  work->type = CU_NODE_MEM_ALLOC;
  work->alloc = *params;
  work->alloc.accessDescs = NULL; /* the caller's array may be gone by the launch */
  work->memory = memory;
  return CUDA_SUCCESS;
}

CUresult gsim_work_free(CUdeviceptr address, struct gsim_work *work) {
  struct gsim_graph_memory *memory = (struct gsim_graph_memory *)gsim_range_find(&addresses, address);
  if (!memory || memory->range.start != address || memory->has_free_node) return CUDA_ERROR_INVALID_VALUE;
  memory->has_free_node = true;
  memory->references++;
  work->type = CU_NODE_MEM_FREE;
  work->memory = memory;
  return CUDA_SUCCESS;
}

void gsim_graph_memory_retain(struct gsim_graph_memory *memory) { memory->references++; }

void gsim_graph_memory_release(struct gsim_graph_memory *memory) {
  if (--memory->references > 0) return;
  gsim_range_remove(&addresses, &memory->range);
  gsim_addresses_give(memory->extent);
  free(memory);
}

/* The pool's reserve covers what is live; it grows in the steps of every pool. */
static bool reserve(struct gsim_device *device, uint64_t bytes) {
  uint64_t needed = device->graph_live + bytes;
  if (needed > device->graph_reserved) {
    uint64_t growth = gsim_round_up(needed - device->graph_reserved, GSIM_POOL_GROWTH);
    if (!gsim_device_take(device, growth)) return false;
    device->graph_reserved += growth;
  }
  device->graph_live = needed;
  if (device->graph_reserved > device->graph_reserved_high) device->graph_reserved_high = device->graph_reserved;
  return true;
}

CUresult gsim_graph_memory_start(struct gsim_graph_memory *memory) {
  uint64_t bytes = memory->extent->size;
  struct gsim_physical *physical;
  if (!reserve(memory->device, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult result = gsim_physical_take(NULL, bytes, &physical);
  if (result != CUDA_SUCCESS) return result;
  gsim_addresses_map(memory->extent->start, bytes, physical, 0);
  memory->live = gsim_allocation_new(GSIM_GRAPH_MEMORY, memory->range.start, memory->range.size, memory->device);
  memory->live->physical = physical;
  memory->references++;
  return CUDA_SUCCESS;
}

void gsim_graph_memory_free(struct gsim_allocation *allocation) {
  struct gsim_graph_memory *memory = (struct gsim_graph_memory *)gsim_range_find(&addresses, allocation->range.start);
  memory->device->graph_live -= memory->extent->size;
  gsim_addresses_unmap(memory->extent->start, memory->extent->size);
  gsim_physical_release(allocation->physical);
  gsim_allocation_forget(allocation);
  memory->live = NULL;
  gsim_graph_memory_release(memory);
}

DRIVER_API(640, cuDeviceGraphMemTrim, CUdevice, device) {
  struct gsim_device *on = gsim_device_at(device);
  if (!on) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  uint64_t keep = gsim_round_up(on->graph_live, GSIM_POOL_GROWTH);
  gsim_device_give(on, on->graph_reserved - keep);
  on->graph_reserved = keep;
  gsim_unlock();
  return CUDA_SUCCESS;
}

/* The real driver counts as used all that it reserved for graphs, also after
 * their allocations were freed, until it is trimmed. So both pairs agree. */
DRIVER_API(641, cuDeviceGetGraphMemAttribute, CUdevice, device, int, attr, void *, value) {
  struct gsim_device *on = gsim_device_at(device);
  if (!on) return CUDA_ERROR_INVALID_DEVICE;
  if (!value || attr < GRAPH_MEMORY_USED_CURRENT || attr > GRAPH_MEMORY_RESERVED_HIGH) return CUDA_ERROR_INVALID_VALUE;
  bool high = attr == GRAPH_MEMORY_USED_HIGH || attr == GRAPH_MEMORY_RESERVED_HIGH;
  gsim_lock();
  *(uint64_t *)value = high ? on->graph_reserved_high : on->graph_reserved;
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(642, cuDeviceSetGraphMemAttribute, CUdevice, device, int, attr, void *, value) {
  struct gsim_device *on = gsim_device_at(device);
  if (!on) return CUDA_ERROR_INVALID_DEVICE;
  bool high = attr == GRAPH_MEMORY_USED_HIGH || attr == GRAPH_MEMORY_RESERVED_HIGH;
  if (!value || !high || *(const uint64_t *)value != 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  on->graph_reserved_high = on->graph_reserved;
  gsim_unlock();
  return CUDA_SUCCESS;
}
