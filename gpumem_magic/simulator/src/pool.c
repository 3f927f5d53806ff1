#include "pool.h"

#include <stdlib.h>

#define POOL_GRANULE 512

CUmemoryPool gsim_pool_new(const CUmemPoolProps *props) {
  CUmemoryPool pool = gsim_handle_new(GSIM_KIND_POOL, sizeof *pool);
  bool on_device = props->allocType == CU_ALLOCATION_PINNED && props->location.type == CU_LOCATION_DEVICE;
  pool->device = on_device ? gsim_device_at(props->location.id) : NULL;
  pool->host_visible = !on_device;
  pool->heap.granule = POOL_GRANULE;
  pool->allocation_type = props->allocType;
  pool->handle_types = props->handleTypes;
  pool->location = props->location;
  pool->max_size = props->maxSize;
  for (int i = 0; i < 3; i++) pool->reuse_policy[i] = 1;
  if (pool->device) {
    pool->writable_from = 1u << pool->device->ordinal;
    pool->next = pool->device->pools;
    pool->device->pools = pool;
  }
  return pool;
}

/* The backing of a pool's chunk is the page range it was cut from. */
static CUresult add_chunk(CUmemoryPool pool, uint64_t size) {
  if (size == 0) return CUDA_ERROR_OUT_OF_MEMORY; /* rounding up overflowed */
  if (pool->max_size && pool->heap.reserved + size > pool->max_size) return CUDA_ERROR_OUT_OF_MEMORY;
  struct gsim_physical *physical;
  CUresult result = gsim_physical_take(pool->device, size, &physical);
  if (result != CUDA_SUCCESS) return result;
  struct gsim_extent *pages = gsim_addresses_take(size);
  if (!pages || (pool->host_visible && !gsim_addresses_map_host(pages->start, size))) {
    if (pages) gsim_addresses_give(pages);
    gsim_physical_release(physical);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (!pool->host_visible) gsim_addresses_map(pages->start, size, physical, 0);
  struct gsim_chunk *chunk = gsim_heap_add_chunk(&pool->heap, pages->start, size, pages);
  chunk->physical = physical;
  if (pool->heap.reserved > pool->reserved_high) pool->reserved_high = pool->heap.reserved;
  return CUDA_SUCCESS;
}

static void drop_chunk(CUmemoryPool pool, struct gsim_chunk *chunk) {
  struct gsim_extent *pages = chunk->backing;
  gsim_addresses_unmap(pages->start, pages->size);
  gsim_physical_release(chunk->physical);
  gsim_addresses_give(pages);
  gsim_heap_remove_chunk(&pool->heap, chunk);
}

void gsim_pool_trim(CUmemoryPool pool, uint64_t keep) {
  struct gsim_chunk *next;
  for (struct gsim_chunk *chunk = pool->heap.chunks; chunk; chunk = next) {
    next = chunk->next;
    if (pool->heap.reserved <= keep) return;
    if (chunk->used == 0) drop_chunk(pool, chunk);
  }
}

CUresult gsim_pool_allocate(CUmemoryPool pool, uint64_t size, struct gsim_allocation **out) {
  struct gsim_extent *extent = gsim_heap_take(&pool->heap, size);
  if (!extent) {
    CUresult result = add_chunk(pool, gsim_round_up(size, GSIM_POOL_GROWTH));
    if (result != CUDA_SUCCESS) return result;
    extent = gsim_heap_take(&pool->heap, size);
  }
  pool->used += size;
  if (pool->used > pool->used_high) pool->used_high = pool->used;
  *out = gsim_allocation_new(GSIM_ASYNC, extent->start, size, pool->device);
  (*out)->extent = extent;
  (*out)->pool = pool;
  return CUDA_SUCCESS;
}

static void unlink_from_device(CUmemoryPool pool) {
  if (!pool->device) return;
  CUmemoryPool *link = &pool->device->pools;
  while (*link != pool) link = &(*link)->next;
  *link = pool->next;
}

static void bury_if_empty(CUmemoryPool pool) {
  if (!pool->is_destroyed || pool->heap.used > 0) return;
  gsim_pool_trim(pool, 0);
  unlink_from_device(pool);
  gsim_handle_free(pool);
}

void gsim_pool_free(struct gsim_allocation *allocation) {
  CUmemoryPool pool = allocation->pool;
  pool->used -= allocation->range.size;
  gsim_heap_give(&pool->heap, allocation->extent);
  gsim_allocation_forget(allocation);
  bury_if_empty(pool);
}

void gsim_pool_destroy(CUmemoryPool pool) {
  pool->is_destroyed = true;
  if (pool->device && pool->device->current_pool == pool) pool->device->current_pool = pool->device->default_pool;
  bury_if_empty(pool);
}

void gsim_pools_synchronize(struct gsim_device *device) {
  for (CUmemoryPool pool = device->pools; pool; pool = pool->next)
    if (pool->heap.reserved > pool->release_threshold) gsim_pool_trim(pool, pool->release_threshold);
}

void gsim_pools_trim(struct gsim_device *device) {
  for (CUmemoryPool pool = device->pools; pool; pool = pool->next) gsim_pool_trim(pool, 0);
}

CUmemoryPool gsim_default_pool(struct gsim_device *device) {
  if (!device->default_pool) {
    CUmemPoolProps props = {
        .allocType = CU_ALLOCATION_PINNED,
        .location = {CU_LOCATION_DEVICE, device->ordinal},
    };
    device->default_pool = gsim_pool_new(&props);
  }
  return device->default_pool;
}

CUmemoryPool gsim_current_pool(struct gsim_device *device) {
  if (!device->current_pool) device->current_pool = gsim_default_pool(device);
  return device->current_pool;
}
