/* A suballocator of address ranges: chunks cut into extents, free extents kept
 * in bins by size, neighbours merged when freed. It touches no memory of the
 * ranges it manages. The address space, the slabs of small allocations and the
 * stream-ordered pools are each a heap. Callers hold the driver's lock.
 */
#ifndef GSIM_HEAP_H
#define GSIM_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#define GSIM_HEAP_BINS 256

struct gsim_extent;
struct gsim_physical;

struct gsim_chunk {
  uint64_t start;
  uint64_t size;
  uint64_t used;                  /* bytes handed out */
  struct gsim_extent *backing;    /* the page range it was cut from, in the address space */
  struct gsim_physical *physical; /* what is behind it */
  struct gsim_extent *first;
  struct gsim_chunk *prev, *next;
};

struct gsim_extent {
  uint64_t start;
  uint64_t size;
  bool free;
  struct gsim_chunk *chunk;
  struct gsim_extent *prev, *next;         /* neighbours by address */
  struct gsim_extent *bin_prev, *bin_next; /* while free */
};

struct gsim_heap {
  uint64_t granule;  /* sizes are rounded up to it; a power of two */
  uint64_t reserved; /* bytes in chunks */
  uint64_t used;     /* bytes handed out, after rounding */
  struct gsim_chunk *chunks;
  uint64_t occupied[GSIM_HEAP_BINS / 64]; /* bins that are not empty */
  struct gsim_extent *bins[GSIM_HEAP_BINS];
};

/* NULL when no extent is large enough: add a chunk and try again. */
struct gsim_extent *gsim_heap_take(struct gsim_heap *heap, uint64_t size);
/* Frees the extent and returns its chunk. */
struct gsim_chunk *gsim_heap_give(struct gsim_heap *heap, struct gsim_extent *extent);

struct gsim_chunk *gsim_heap_add_chunk(struct gsim_heap *heap, uint64_t start, uint64_t size,
                                       struct gsim_extent *backing);
/* The chunk must have nothing handed out. It is freed; its backing is not. */
void gsim_heap_remove_chunk(struct gsim_heap *heap, struct gsim_chunk *chunk);

static inline uint64_t gsim_round_up(uint64_t size, uint64_t granule) { return (size + granule - 1) & ~(granule - 1); }

#endif
