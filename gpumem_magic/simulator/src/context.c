#include "context.h"

#include <string.h>

#include "callbacks.h"
#include "lock.h"

#define STACK_DEPTH 64

static _Thread_local struct {
  CUcontext contexts[STACK_DEPTH];
  int depth;
} stack;

static uint32_t next_uid = 1;

/* CUlimit defaults: stack, printf FIFO, heap, sync depth, pending launches, ... */
static const size_t default_limits[GSIM_LIMITS] = {1024, 1 << 20, 8 << 20, 2, 2048, 64};

CUcontext gsim_current_context(void) { return stack.depth > 0 ? stack.contexts[stack.depth - 1] : NULL; }

uint32_t gsim_context_uid(CUcontext context) { return context ? context->uid : 0; }

CUresult gsim_require_context(CUcontext *out) {
  *out = gsim_current_context();
  if (!*out) return CUDA_ERROR_INVALID_CONTEXT;
  return (*out)->life == GSIM_DEAD ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

CUresult gsim_check_context(CUcontext context) {
  if (!gsim_handle_is(context, GSIM_KIND_CONTEXT)) return CUDA_ERROR_INVALID_CONTEXT;
  return context->life == GSIM_DEAD ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

CUresult gsim_context_start(struct gsim_device *device, unsigned flags, CUcontext *context) {
  if (!gsim_device_take(device, GSIM_CONTEXT_BYTES)) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!*context) *context = gsim_handle_new(GSIM_KIND_CONTEXT, sizeof **context);
  (*context)->device = device;
  (*context)->flags = flags;
  (*context)->uid = next_uid++;
  (*context)->life = GSIM_ALIVE;
  (*context)->peers = 0;
  (*context)->slabs.granule = 512;
  memcpy((*context)->limits, default_limits, sizeof default_limits);
  return CUDA_SUCCESS;
}

static void free_all_owned(CUcontext context) {
  while (context->owned.next) {
    struct gsim_owned *owned = context->owned.next;
    gsim_disown(owned);
    owned->destroy(owned);
  }
  context->legacy_stream = context->thread_stream = NULL;
}

void gsim_context_finish(CUcontext context) {
  gsim_dispatch_resource(CUPTI_CONTEXT_DESTROY_STARTING, context, NULL, NULL);
  gsim_lock();
  free_all_owned(context);
  gsim_device_give(context->device, GSIM_CONTEXT_BYTES);
  context->life = GSIM_DEAD;
  gsim_unlock();
}

CUresult gsim_push_context(CUcontext context) {
  if (stack.depth == STACK_DEPTH) return CUDA_ERROR_OUT_OF_MEMORY;
  stack.contexts[stack.depth++] = context;
  return CUDA_SUCCESS;
}

CUresult gsim_pop_context(CUcontext *context) {
  if (stack.depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  *context = stack.contexts[--stack.depth];
  return CUDA_SUCCESS;
}

void gsim_set_context(CUcontext context) {
  if (stack.depth > 0) stack.depth--;
  if (context) stack.contexts[stack.depth++] = context;
}
