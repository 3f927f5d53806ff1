/* Events: recorded work is already done, so an event is a point in time. */
#include "callbacks.h"
#include "clock.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "pool.h"
#include "stream.h"

enum { EVENT_DISABLE_TIMING = 2, EVENT_FLAGS = 7 };

struct gsim_event {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  unsigned flags;
  uint64_t recorded_ns; /* 0: never */
  uint64_t capture_id;  /* what it was recorded into, 0 for none */
};

static void destroy(CUevent event) {
  gsim_disown(&event->owned);
  gsim_handle_free(event);
}

static void destroy_owned(struct gsim_owned *owned) { destroy(GSIM_CONTAINER(owned, struct gsim_event, owned)); }

DRIVER_API(118, cuEventCreate, CUevent *, phEvent, unsigned int, Flags) {
  if (!phEvent || (Flags & ~(unsigned)EVENT_FLAGS)) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) {
    CUevent event = gsim_handle_new(GSIM_KIND_EVENT, sizeof *event);
    event->context = context;
    event->flags = Flags;
    gsim_own(&context->owned, &event->owned, destroy_owned);
    *phEvent = event;
  }
  gsim_unlock();
  return result;
}

static CUresult destroy_checked(CUevent event) {
  gsim_lock();
  bool known = gsim_handle_is(event, GSIM_KIND_EVENT);
  if (known) destroy(event);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(325, cuEventDestroy_v2, CUevent, hEvent) { return destroy_checked(hEvent); }

static CUresult record(CUevent event, CUstream handle) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS && !gsim_handle_is(event, GSIM_KIND_EVENT)) result = CUDA_ERROR_INVALID_HANDLE;
  if (result == CUDA_SUCCESS) {
    event->recorded_ns = gsim_now_ns();
    event->capture_id = stream->capture ? stream->capture->id : 0;
  }
  gsim_unlock();
  return result;
}

DRIVER_API_PT(119, cuEventRecord, 441, cuEventRecord_ptsz, CUevent, hEvent, CUstream, hStream) {
  return record(hEvent, hStream);
}

DRIVER_API_PT(587, cuEventRecordWithFlags, 588, cuEventRecordWithFlags_ptsz, CUevent, hEvent, CUstream, hStream,
              unsigned int, flags) {
  return record(hEvent, hStream);
}

static CUresult check(CUevent event) {
  gsim_lock();
  bool known = gsim_handle_is(event, GSIM_KIND_EVENT);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(120, cuEventQuery, CUevent, hEvent) { return check(hEvent); }

DRIVER_API(121, cuEventSynchronize, CUevent, hEvent) {
  gsim_lock();
  bool known = gsim_handle_is(hEvent, GSIM_KIND_EVENT);
  if (known) gsim_pools_synchronize(hEvent->context->device);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult elapsed(float *milliseconds, CUevent start, CUevent end) {
  if (!milliseconds) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(start, GSIM_KIND_EVENT) && gsim_handle_is(end, GSIM_KIND_EVENT);
  bool timed = known && start->recorded_ns && end->recorded_ns && !((start->flags | end->flags) & EVENT_DISABLE_TIMING);
  if (timed) *milliseconds = (float)((double)(end->recorded_ns - start->recorded_ns) / 1e6);
  gsim_unlock();
  return timed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(123, cuEventElapsedTime, float *, pMilliseconds, CUevent, hStart, CUevent, hEnd) {
  return elapsed(pMilliseconds, hStart, hEnd);
}

DRIVER_API(780, cuEventElapsedTime_v2, float *, pMilliseconds, CUevent, hStart, CUevent, hEnd) {
  return elapsed(pMilliseconds, hStart, hEnd);
}

/* Waiting for an event that was recorded into a capture joins that capture. */
DRIVER_API_PT(295, cuStreamWaitEvent, 436, cuStreamWaitEvent_ptsz, CUstream, hStream, CUevent, hEvent, unsigned int,
              Flags) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS && !gsim_handle_is(hEvent, GSIM_KIND_EVENT)) result = CUDA_ERROR_INVALID_HANDLE;
  if (result == CUDA_SUCCESS) result = gsim_capture_join(stream, hEvent->capture_id);
  gsim_unlock();
  return result;
}
