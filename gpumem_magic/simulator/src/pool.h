/* Stream-ordered pools. Work on a simulated stream is done when it is submitted,
 * so a free makes its bytes reusable at once; what a pool holds unused above its
 * release threshold goes back to the device at the next synchronise.
 * Callers hold the driver's lock.
 */
#ifndef GSIM_POOL_H
#define GSIM_POOL_H

#include "allocation.h"

/* A pool takes physical memory in multiples of this. */
#define GSIM_POOL_GROWTH (32ull << 20)

struct gsim_pool {
  struct gsim_handle handle;
  struct gsim_device *device; /* NULL for a pool of host memory */
  struct gsim_heap heap;
  bool host_visible; /* pinned or managed: the host may touch it */
  bool is_destroyed; /* kept until its last allocation is freed */
  int allocation_type;
  int handle_types;
  CUmemLocation location;
  uint64_t max_size; /* 0: the device's capacity */
  uint64_t release_threshold;
  uint64_t reserved_high;
  uint64_t used; /* as asked for, which is what the attribute counts */
  uint64_t used_high;
  int reuse_policy[3];     /* kept and answered; streams need none of it */
  uint32_t read_only_from; /* devices granted read, one bit each */
  uint32_t writable_from;  /* devices granted read and write */
  CUmemoryPool next;       /* on the device */
};

CUmemoryPool gsim_pool_new(const CUmemPoolProps *props);
void gsim_pool_destroy(CUmemoryPool pool);

CUresult gsim_pool_allocate(CUmemoryPool pool, uint64_t size, struct gsim_allocation **out);
void gsim_pool_free(struct gsim_allocation *allocation);

/* Gives back wholly free chunks until at most `keep` bytes are reserved. */
void gsim_pool_trim(CUmemoryPool pool, uint64_t keep);

/* Of every pool on the device: down to its threshold; to nothing. */
void gsim_pools_synchronize(struct gsim_device *device);
void gsim_pools_trim(struct gsim_device *device);

/* The device's default pool and current pool, made when first asked for. */
CUmemoryPool gsim_default_pool(struct gsim_device *device);
CUmemoryPool gsim_current_pool(struct gsim_device *device);

#endif
