#include "range_map.h"

/* A hash of the start serves as the random priority that keeps a treap level. */
static uint32_t priority_of(uint64_t start) {
  start ^= start >> 33;
  start *= 0xff51afd7ed558ccdull;
  start ^= start >> 33;
  start *= 0xc4ceb9fe1a85ec53ull;
  return (uint32_t)(start >> 32);
}

void gsim_range_insert(struct gsim_range_map *map, struct gsim_range *range) {
  range->priority = priority_of(range->start);
  struct gsim_range **link = &map->root;
  while (*link && (*link)->priority >= range->priority)
    link = range->start < (*link)->start ? &(*link)->left : &(*link)->right;
  struct gsim_range *rest = *link;
  struct gsim_range **below = &range->left, **above = &range->right;
  while (rest) {
    if (rest->start < range->start) {
      *below = rest;
      below = &rest->right;
    } else {
      *above = rest;
      above = &rest->left;
    }
    rest = rest->start < range->start ? rest->right : rest->left;
  }
  *below = *above = NULL;
  *link = range;
}

void gsim_range_remove(struct gsim_range_map *map, struct gsim_range *range) {
  struct gsim_range **link = &map->root;
  while (*link != range) link = range->start < (*link)->start ? &(*link)->left : &(*link)->right;
  struct gsim_range *left = range->left, *right = range->right;
  while (left && right) {
    if (left->priority >= right->priority) {
      *link = left;
      link = &left->right;
      left = left->right;
    } else {
      *link = right;
      link = &right->left;
      right = right->left;
    }
  }
  *link = left ? left : right;
}

struct gsim_range *gsim_range_find(const struct gsim_range_map *map, uint64_t address) {
  struct gsim_range *node = map->root, *floor = NULL;
  while (node) {
    if (node->start <= address) floor = node;
    node = node->start <= address ? node->right : node->left;
  }
  return floor && address - floor->start < floor->size ? floor : NULL;
}

struct gsim_range *gsim_range_from(const struct gsim_range_map *map, uint64_t address) {
  struct gsim_range *node = map->root, *ceiling = NULL;
  while (node) {
    if (node->start >= address) ceiling = node;
    node = node->start >= address ? node->left : node->right;
  }
  return ceiling;
}
