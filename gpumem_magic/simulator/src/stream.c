#include "stream.h"

#include "callbacks.h"
#include "entry.h"
#include "lock.h"
#include "pool.h"

enum { STREAM_NON_BLOCKING = 1 };

static uint64_t next_id = 1;

static CUstream new_stream(CUcontext context, unsigned flags, int priority) {
  CUstream stream = gsim_handle_new(GSIM_KIND_STREAM, sizeof *stream);
  stream->context = context;
  stream->flags = flags;
  stream->priority = priority;
  stream->id = next_id++;
  return stream;
}

static void destroy(CUstream stream) {
  gsim_capture_abandon(stream);
  gsim_disown(&stream->owned);
  gsim_handle_free(stream);
}

static void destroy_owned(struct gsim_owned *owned) { destroy(GSIM_CONTAINER(owned, struct gsim_stream, owned)); }

static CUstream default_stream(CUcontext context, CUstream *slot) {
  if (!*slot) {
    *slot = new_stream(context, 0, 0);
    (*slot)->is_default = true;
    gsim_own(&context->owned, &(*slot)->owned, destroy_owned);
  }
  return *slot;
}

CUresult gsim_stream_resolve(CUstream handle, CUstream *out) {
  CUcontext context;
  bool legacy = handle == CU_STREAM_LEGACY || (!handle && !gsim_per_thread_default);
  if (!handle || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    CUresult result = gsim_require_context(&context);
    if (result != CUDA_SUCCESS) return result;
    *out = default_stream(context, legacy ? &context->legacy_stream : &context->thread_stream);
    return CUDA_SUCCESS;
  }
  *out = handle;
  return gsim_handle_is(handle, GSIM_KIND_STREAM) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult create(CUstream *out, unsigned flags, int priority) {
  if (!out || (flags & ~(unsigned)STREAM_NON_BLOCKING)) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  CUstream stream = NULL;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) {
    stream = new_stream(context, flags, priority);
    gsim_own(&context->owned, &stream->owned, destroy_owned);
  }
  gsim_unlock();
  if (result != CUDA_SUCCESS) return result;
  gsim_dispatch_resource(CUPTI_STREAM_CREATED, context, stream, NULL);
  *out = stream;
  return CUDA_SUCCESS;
}

DRIVER_API(124, cuStreamCreate, CUstream *, phStream, unsigned int, Flags) { return create(phStream, Flags, 0); }

DRIVER_API(367, cuStreamCreateWithPriority, CUstream *, phStream, unsigned int, flags, int, priority) {
  return create(phStream, flags, priority < -5 ? -5 : priority > 0 ? 0 : priority);
}

DRIVER_API(326, cuStreamDestroy_v2, CUstream, hStream) {
  gsim_lock();
  bool destroyable = gsim_handle_is(hStream, GSIM_KIND_STREAM) && !hStream->is_default;
  CUcontext context = destroyable ? hStream->context : NULL;
  gsim_unlock();
  if (!destroyable) return CUDA_ERROR_INVALID_HANDLE;
  gsim_dispatch_resource(CUPTI_STREAM_DESTROY_STARTING, context, hStream, NULL);
  gsim_lock();
  bool still_there = gsim_handle_is(hStream, GSIM_KIND_STREAM);
  if (still_there) destroy(hStream);
  gsim_unlock();
  return still_there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Waiting is over at once, but it is when pools give memory back. */
static CUresult wait_for(CUstream handle, bool releases_memory) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_wait(stream);
  if (result == CUDA_SUCCESS && releases_memory) gsim_pools_synchronize(stream->context->device);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(126, cuStreamSynchronize, 440, cuStreamSynchronize_ptsz, CUstream, hStream) {
  return wait_for(hStream, true);
}

DRIVER_API_PT(125, cuStreamQuery, 439, cuStreamQuery_ptsz, CUstream, hStream) { return wait_for(hStream, false); }

/* The stream a handle means, for the plain questions below. */
static CUresult look_up(CUstream handle, const void *answer, CUstream *stream) {
  if (!answer) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, stream);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(368, cuStreamGetPriority, 434, cuStreamGetPriority_ptsz, CUstream, hStream, int *, priority) {
  CUstream stream;
  CUresult result = look_up(hStream, priority, &stream);
  if (result == CUDA_SUCCESS) *priority = stream->priority;
  return result;
}

DRIVER_API_PT(369, cuStreamGetFlags, 435, cuStreamGetFlags_ptsz, CUstream, hStream, unsigned int *, flags) {
  CUstream stream;
  CUresult result = look_up(hStream, flags, &stream);
  if (result == CUDA_SUCCESS) *flags = stream->flags;
  return result;
}

DRIVER_API_PT(693, cuStreamGetId, 694, cuStreamGetId_ptsz, CUstream, hStream, unsigned long long *, streamId) {
  CUstream stream;
  CUresult result = look_up(hStream, streamId, &stream);
  if (result == CUDA_SUCCESS) *streamId = stream->id;
  return result;
}

DRIVER_API_PT(774, cuStreamGetDevice, 775, cuStreamGetDevice_ptsz, CUstream, hStream, CUdevice *, device) {
  CUstream stream;
  CUresult result = look_up(hStream, device, &stream);
  if (result == CUDA_SUCCESS) *device = stream->context->device->ordinal;
  return result;
}

DRIVER_API_PT(483, cuStreamGetCtx, 484, cuStreamGetCtx_ptsz, CUstream, hStream, CUcontext *, pctx) {
  CUstream stream;
  CUresult result = look_up(hStream, pctx, &stream);
  if (result == CUDA_SUCCESS) *pctx = stream->context;
  return result;
}

DRIVER_API_PT(759, cuStreamGetCtx_v2, 760, cuStreamGetCtx_v2_ptsz, CUstream, hStream, CUcontext *, pCtx, void **,
              pGreenCtx) {
  CUstream stream;
  CUresult result = look_up(hStream, pCtx, &stream);
  if (result != CUDA_SUCCESS) return result;
  *pCtx = stream->context;
  if (pGreenCtx) *pGreenCtx = NULL;
  return CUDA_SUCCESS;
}
