/* Everything that has an address: the one ordered map of live allocations, from
 * which frees, copies and pointer queries find what an address belongs to.
 * Callers hold the driver's lock.
 */
#ifndef GSIM_ALLOCATION_H
#define GSIM_ALLOCATION_H

#include "address_space.h"
#include "context.h"

enum gsim_memory {
  GSIM_PLAIN,        /* cuMemAlloc, cuMemAllocPitch */
  GSIM_ASYNC,        /* from a stream-ordered pool */
  GSIM_GRAPH_MEMORY, /* from a graph's allocation node */
  GSIM_MANAGED,
  GSIM_HOST_ALLOCATED,  /* page-locked by the driver */
  GSIM_HOST_REGISTERED, /* the caller's, page-locked */
  GSIM_MAPPING,         /* cuMemMap */
  GSIM_IPC,             /* another process's */
  GSIM_EXTERNAL,        /* another API's */
};

struct gsim_allocation {
  struct gsim_range range; /* the bytes asked for */
  enum gsim_memory memory;
  CUcontext context; /* NULL for memory that outlives contexts */
  struct gsim_device *device;
  uint64_t buffer_id; /* unique in the process, never reused */
  struct gsim_owned owned;
  struct gsim_physical *physical; /* NULL when the bytes lie in a heap's chunk */
  struct gsim_extent *extent;     /* in the address space, or in the heap */
  CUmemoryPool pool;
  unsigned flags;    /* as given by the caller */
  unsigned access;   /* mappings: what cuMemSetAccess granted */
  uint64_t resident; /* managed: bytes on the device */
  bool sync_memops;
};

/* A new live allocation; the caller fills in the rest. Never NULL. */
struct gsim_allocation *gsim_allocation_new(enum gsim_memory memory, uint64_t start, uint64_t size,
                                            struct gsim_device *device);
/* Takes it out of the map and off its context, and frees the record only. */
void gsim_allocation_forget(struct gsim_allocation *allocation);

/* The allocation that contains, or begins at, the address, or NULL. */
struct gsim_allocation *gsim_allocation_find(CUdeviceptr address);
struct gsim_allocation *gsim_allocation_at(CUdeviceptr address);
/* The first one that begins at the address or above, or NULL. */
struct gsim_allocation *gsim_allocation_from(CUdeviceptr address);

/* Whole pages of device memory at new addresses, mapped to new physical memory. */
CUresult gsim_allocation_take_pages(enum gsim_memory memory, struct gsim_device *device, uint64_t size,
                                    struct gsim_allocation **out);
/* The opposite: unmaps, releases the physical memory and the addresses. */
void gsim_allocation_give_pages(struct gsim_allocation *allocation);

/* Frees memory of cuMemAlloc: pages of its own, or a part of a slab. */
void gsim_plain_free(struct gsim_allocation *allocation);

/* Whether all bytes are in one allocation, or in adjoining mappings; makes them
 * readable for the simulator. */
bool gsim_allocation_touch(CUdeviceptr address, uint64_t size);

#endif
