/* An ordered map of address ranges that do not overlap: a treap whose nodes are
 * embedded in what they name. Also used as the set of live handles, where the
 * key is the handle and the size is 1. Callers hold the driver's lock.
 */
#ifndef GSIM_RANGE_MAP_H
#define GSIM_RANGE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct gsim_range {
  uint64_t start;
  uint64_t size;
  struct gsim_range *left;
  struct gsim_range *right;
  uint32_t priority;
};

struct gsim_range_map {
  struct gsim_range *root;
};

void gsim_range_insert(struct gsim_range_map *map, struct gsim_range *range);
void gsim_range_remove(struct gsim_range_map *map, struct gsim_range *range);

/* The range that contains the address, or NULL. */
struct gsim_range *gsim_range_find(const struct gsim_range_map *map, uint64_t address);

/* The first range that starts at the address or above, or NULL. */
struct gsim_range *gsim_range_from(const struct gsim_range_map *map, uint64_t address);

#endif
