/* Handles given to callers, and who owns what they name.
 *
 * An object that callers hold begins with a gsim_handle, so that any value they
 * pass can be checked before it is followed. Callers hold the driver's lock.
 */
#ifndef GSIM_HANDLE_H
#define GSIM_HANDLE_H

#include <stdbool.h>

#include "range_map.h"

enum gsim_kind {
  GSIM_KIND_CONTEXT = 1,
  GSIM_KIND_STREAM,
  GSIM_KIND_EVENT,
  GSIM_KIND_POOL,
  GSIM_KIND_PHYSICAL,
  GSIM_KIND_ARRAY,
  GSIM_KIND_MIPMAP,
  GSIM_KIND_MODULE,
  GSIM_KIND_LIBRARY,
  GSIM_KIND_FUNCTION,
  GSIM_KIND_GRAPH,
  GSIM_KIND_NODE,
  GSIM_KIND_EXEC,
  GSIM_KIND_EXTERNAL,
};

struct gsim_handle {
  struct gsim_range range;
  enum gsim_kind kind;
};

/* Zeroed memory of the given size that begins with a live handle. Never NULL. */
void *gsim_handle_new(enum gsim_kind kind, size_t size);
void gsim_handle_free(void *object);
bool gsim_handle_is(const void *object, enum gsim_kind kind);

/* Membership in a context: what dies with it, newest first. */
struct gsim_owned {
  struct gsim_owned *prev, *next;
  void (*destroy)(struct gsim_owned *owned);
};

void gsim_own(struct gsim_owned *list, struct gsim_owned *owned, void (*destroy)(struct gsim_owned *));
void gsim_disown(struct gsim_owned *owned);

#define GSIM_CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
