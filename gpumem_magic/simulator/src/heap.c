#include "heap.h"

#include <stdlib.h>

/* How many extents of the request's own bin are tried before a larger bin is
 * split: bounds the time, costs a little fragmentation. */
#define SAME_BIN_TRIES 16

/* Four bins to each power of two. */
static int bin_of(const struct gsim_heap *heap, uint64_t size) {
  uint64_t units = size / heap->granule;
  if (units < 4) return (int)units;
  int log = 63 - __builtin_clzll(units);
  return log * 4 + (int)(units >> (log - 2) & 3);
}

static void put_in_bin(struct gsim_heap *heap, struct gsim_extent *extent) {
  int bin = bin_of(heap, extent->size);
  extent->free = true;
  extent->bin_prev = NULL;
  extent->bin_next = heap->bins[bin];
  if (extent->bin_next) extent->bin_next->bin_prev = extent;
  heap->bins[bin] = extent;
  heap->occupied[bin / 64] |= 1ull << (bin % 64);
}

static void take_from_bin(struct gsim_heap *heap, struct gsim_extent *extent) {
  int bin = bin_of(heap, extent->size);
  extent->free = false;
  if (extent->bin_prev)
    extent->bin_prev->bin_next = extent->bin_next;
  else
    heap->bins[bin] = extent->bin_next;
  if (extent->bin_next) extent->bin_next->bin_prev = extent->bin_prev;
  if (!heap->bins[bin]) heap->occupied[bin / 64] &= ~(1ull << (bin % 64));
}

static struct gsim_extent *first_above(const struct gsim_heap *heap, int bin) {
  for (int word = bin / 64; word < GSIM_HEAP_BINS / 64; word++) {
    uint64_t bits = heap->occupied[word];
    if (word == bin / 64) bits &= bin % 64 == 63 ? 0 : ~0ull << (bin % 64 + 1);
    if (bits) return heap->bins[word * 64 + __builtin_ctzll(bits)];
  }
  return NULL;
}

static struct gsim_extent *find_fit(const struct gsim_heap *heap, uint64_t size) {
  int bin = bin_of(heap, size);
  int tries = SAME_BIN_TRIES;
  for (struct gsim_extent *e = heap->bins[bin]; e && tries; e = e->bin_next, tries--)
    if (e->size >= size) return e;
  struct gsim_extent *larger = first_above(heap, bin);
  if (larger) return larger;
  for (struct gsim_extent *e = heap->bins[bin]; e; e = e->bin_next)
    if (e->size >= size) return e;
  return NULL;
}

static struct gsim_extent *new_extent(struct gsim_chunk *chunk, uint64_t start, uint64_t size) {
  struct gsim_extent *extent = calloc(1, sizeof *extent);
  if (!extent) abort();
  extent->chunk = chunk;
  extent->start = start;
  extent->size = size;
  return extent;
}

static void split(struct gsim_heap *heap, struct gsim_extent *extent, uint64_t size) {
  if (extent->size == size) return;
  struct gsim_extent *rest = new_extent(extent->chunk, extent->start + size, extent->size - size);
  extent->size = size;
  rest->prev = extent;
  rest->next = extent->next;
  if (rest->next) rest->next->prev = rest;
  extent->next = rest;
  put_in_bin(heap, rest);
}

struct gsim_extent *gsim_heap_take(struct gsim_heap *heap, uint64_t size) {
  size = gsim_round_up(size, heap->granule);
  struct gsim_extent *extent = find_fit(heap, size);
  if (!extent) return NULL;
  take_from_bin(heap, extent);
  split(heap, extent, size);
  extent->chunk->used += size;
  heap->used += size;
  return extent;
}

/* Takes the right-hand neighbour into the extent; both are in no bin. */
static void absorb_next(struct gsim_extent *extent) {
  struct gsim_extent *next = extent->next;
  extent->size += next->size;
  extent->next = next->next;
  if (extent->next) extent->next->prev = extent;
  free(next);
}

struct gsim_chunk *gsim_heap_give(struct gsim_heap *heap, struct gsim_extent *extent) {
  struct gsim_chunk *chunk = extent->chunk;
  chunk->used -= extent->size;
  heap->used -= extent->size;
  if (extent->next && extent->next->free) {
    take_from_bin(heap, extent->next);
    absorb_next(extent);
  }
  if (extent->prev && extent->prev->free) {
    extent = extent->prev;
    take_from_bin(heap, extent);
    absorb_next(extent);
  }
  put_in_bin(heap, extent);
  return chunk;
}

struct gsim_chunk *gsim_heap_add_chunk(struct gsim_heap *heap, uint64_t start, uint64_t size,
                                       struct gsim_extent *backing) {
  struct gsim_chunk *chunk = calloc(1, sizeof *chunk);
  if (!chunk) abort();
  chunk->start = start;
  chunk->size = size;
  chunk->backing = backing;
  chunk->first = new_extent(chunk, start, size);
  chunk->next = heap->chunks;
  if (chunk->next) chunk->next->prev = chunk;
  heap->chunks = chunk;
  heap->reserved += size;
  put_in_bin(heap, chunk->first);
  return chunk;
}

void gsim_heap_remove_chunk(struct gsim_heap *heap, struct gsim_chunk *chunk) {
  take_from_bin(heap, chunk->first);
  free(chunk->first);
  if (chunk->prev)
    chunk->prev->next = chunk->next;
  else
    heap->chunks = chunk->next;
  if (chunk->next) chunk->next->prev = chunk->prev;
  heap->reserved -= chunk->size;
  free(chunk);
}
