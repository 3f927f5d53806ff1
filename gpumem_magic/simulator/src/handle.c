#include "handle.h"

#include <stdlib.h>

static struct gsim_range_map live;

void *gsim_handle_new(enum gsim_kind kind, size_t size) {
  struct gsim_handle *handle = calloc(1, size);
  if (!handle) abort();
  handle->kind = kind;
  handle->range.start = (uint64_t)(uintptr_t)handle;
  handle->range.size = 1;
  gsim_range_insert(&live, &handle->range);
  return handle;
}

void gsim_handle_free(void *object) {
  gsim_range_remove(&live, &((struct gsim_handle *)object)->range);
  free(object);
}

bool gsim_handle_is(const void *object, enum gsim_kind kind) {
  struct gsim_range *found = gsim_range_find(&live, (uint64_t)(uintptr_t)object);
  return found && ((struct gsim_handle *)found)->kind == kind;
}

void gsim_own(struct gsim_owned *list, struct gsim_owned *owned, void (*destroy)(struct gsim_owned *)) {
  owned->destroy = destroy;
  owned->prev = list;
  owned->next = list->next;
  if (owned->next) owned->next->prev = owned;
  list->next = owned;
}

void gsim_disown(struct gsim_owned *owned) {
  if (!owned->prev) return;
  owned->prev->next = owned->next;
  if (owned->next) owned->next->prev = owned->prev;
  owned->prev = owned->next = NULL;
}
