/* Contexts and which of them is current to a thread.
 *
 * A context that was destroyed stays as a tombstone, so that its handle still
 * answers CONTEXT_IS_DESTROYED; a primary context comes back to life in place.
 */
#ifndef GSIM_CONTEXT_H
#define GSIM_CONTEXT_H

#include "device.h"
#include "handle.h"
#include "heap.h"

enum gsim_life { GSIM_ALIVE, GSIM_DYING, GSIM_DEAD };

#define GSIM_LIMITS 11

struct gsim_context {
  struct gsim_handle handle;
  struct gsim_device *device;
  uint32_t uid; /* 1, 2, ...: new for each life */
  enum gsim_life life;
  bool is_primary;
  unsigned flags;
  uint32_t peers; /* devices whose memory it may reach, one bit each */
  size_t limits[GSIM_LIMITS];
  struct gsim_heap slabs;  /* allocations under 2 MiB */
  struct gsim_owned owned; /* head of what dies with the context */
  CUstream legacy_stream;  /* made when first used */
  CUstream thread_stream;
};

/* The thread's current context, or NULL. Takes no lock. */
CUcontext gsim_current_context(void);
uint32_t gsim_context_uid(CUcontext context);

/* The current context, or why there is none that can be used. What follows is
 * safe from its destruction only under the driver's lock. */
CUresult gsim_require_context(CUcontext *out);

/* Whether a handle given by a caller can be used: INVALID_CONTEXT,
 * CONTEXT_IS_DESTROYED or success. Call with the driver's lock. */
CUresult gsim_check_context(CUcontext context);

/* Brings a context to life and counts its bytes. Call with the lock. */
CUresult gsim_context_start(struct gsim_device *device, unsigned flags, CUcontext *context);

/* Tells subscribers, then frees all that it owns. Call without the lock, after
 * the context was marked dying under it. */
void gsim_context_finish(CUcontext context);

CUresult gsim_push_context(CUcontext context);
CUresult gsim_pop_context(CUcontext *context);
void gsim_set_context(CUcontext context);

#endif
