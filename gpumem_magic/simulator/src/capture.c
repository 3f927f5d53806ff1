/* Stream capture: work goes into a graph instead of being done, and calls that
 * would break the promise of doing nothing are refused and spoil the capture. */
#include <stdlib.h>

#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "pool.h"

static struct gsim_capture *captures;
static uint64_t next_id = 1;

/* How strict the thread is about unsafe calls; it may relax itself. */
static _Thread_local int thread_mode = GSIM_CAPTURE_GLOBAL;
static _Thread_local char thread_marker; /* its address tells threads apart */

static uint64_t this_thread(void) { return (uint64_t)(uintptr_t)&thread_marker; }

static bool stands_in_the_way(const struct gsim_capture *capture) {
  if (thread_mode == GSIM_CAPTURE_RELAXED) return false;
  if (capture->thread == this_thread()) return capture->mode != GSIM_CAPTURE_RELAXED;
  return thread_mode == GSIM_CAPTURE_GLOBAL && capture->mode == GSIM_CAPTURE_GLOBAL;
}

CUresult gsim_capture_forbid_unsafe(void) {
  CUresult result = CUDA_SUCCESS;
  for (struct gsim_capture *capture = captures; capture; capture = capture->next) {
    if (!stands_in_the_way(capture)) continue;
    capture->invalidated = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

CUresult gsim_capture_forbid_wait(CUstream stream) {
  if (!stream->capture) return CUDA_SUCCESS;
  stream->capture->invalidated = true;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult gsim_capture_forbid_context_wait(CUcontext context) {
  CUresult result = CUDA_SUCCESS;
  for (struct gsim_capture *capture = captures; capture; capture = capture->next)
    if (capture->origin->context == context) result = gsim_capture_forbid_wait(capture->origin);
  return result;
}

static struct gsim_capture *capture_with_id(uint64_t id) {
  struct gsim_capture *capture = captures;
  while (capture && capture->id != id) capture = capture->next;
  return capture;
}

static void enter(CUstream stream, struct gsim_capture *capture) {
  stream->capture = capture;
  stream->next_captured = capture->streams;
  capture->streams = stream;
  stream->tail = capture->graph->last;
}

CUresult gsim_capture_join(CUstream stream, uint64_t capture_id) {
  struct gsim_capture *capture = capture_with_id(capture_id);
  if (!capture || stream->capture == capture) return CUDA_SUCCESS;
  if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  enter(stream, capture);
  return CUDA_SUCCESS;
}

/* Takes the capture off the list and every stream out of it. */
static void finish(struct gsim_capture *capture) {
  struct gsim_capture **link = &captures;
  while (*link != capture) link = &(*link)->next;
  *link = capture->next;
  while (capture->streams) {
    CUstream stream = capture->streams;
    capture->streams = stream->next_captured;
    stream->capture = NULL;
    stream->tail = NULL;
  }
}

void gsim_capture_abandon(CUstream stream) {
  struct gsim_capture *capture = stream->capture;
  if (!capture) return;
  finish(capture);
  if (capture->owns_graph) gsim_graph_destroy(capture->graph);
  free(capture);
}

static CUresult begin(CUstream handle, int mode, CUgraph graph) {
  CUstream stream;
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (mode < GSIM_CAPTURE_GLOBAL || mode > GSIM_CAPTURE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (stream == stream->context->legacy_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  struct gsim_capture *capture = calloc(1, sizeof *capture);
  if (!capture) abort();
  capture->graph = graph ? graph : gsim_graph_new();
  capture->owns_graph = !graph;
  capture->origin = stream;
  capture->mode = mode;
  capture->id = next_id++;
  capture->thread = this_thread();
  capture->next = captures;
  captures = capture;
  enter(stream, capture);
  return CUDA_SUCCESS;
}

static CUresult begin_locked(CUstream handle, int mode) {
  gsim_lock();
  CUresult result = begin(handle, mode, NULL);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(495, cuStreamBeginCapture, 496, cuStreamBeginCapture_ptsz, CUstream, hStream) {
  return begin_locked(hStream, GSIM_CAPTURE_GLOBAL);
}

DRIVER_API_PT(539, cuStreamBeginCapture_v2, 540, cuStreamBeginCapture_v2_ptsz, CUstream, hStream, int, mode) {
  return begin_locked(hStream, mode);
}

DRIVER_API_PT(720, cuStreamBeginCaptureToGraph, 721, cuStreamBeginCaptureToGraph_ptsz, CUstream, hStream, CUgraph,
              hGraph, const CUgraphNode *, dependencies, const CUgraphEdgeData *, dependencyData, size_t,
              numDependencies, int, mode) {
  gsim_lock();
  CUresult result = gsim_handle_is(hGraph, GSIM_KIND_GRAPH) ? begin(hStream, mode, hGraph) : CUDA_ERROR_INVALID_VALUE;
  gsim_unlock();
  return result;
}

static CUresult end(CUstream handle, CUgraph *out) {
  CUstream stream;
  *out = NULL;
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result != CUDA_SUCCESS) return result;
  struct gsim_capture *capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != GSIM_CAPTURE_RELAXED && capture->thread != this_thread())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  finish(capture);
  if (capture->invalidated) {
    if (capture->owns_graph) gsim_graph_destroy(capture->graph);
    result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  } else {
    *out = capture->graph;
  }
  free(capture);
  return result;
}

DRIVER_API_PT(497, cuStreamEndCapture, 498, cuStreamEndCapture_ptsz, CUstream, hStream, CUgraph *, phGraph) {
  if (!phGraph) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = end(hStream, phGraph);
  gsim_unlock();
  return result;
}

DRIVER_API(541, cuThreadExchangeStreamCaptureMode, int *, mode) {
  if (!mode || *mode < GSIM_CAPTURE_GLOBAL || *mode > GSIM_CAPTURE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  int before = thread_mode;
  thread_mode = *mode;
  *mode = before;
  return CUDA_SUCCESS;
}

/* Appends to the stream's chain in the graph; makes the next piece depend on it. */
static CUresult append(CUstream stream, const struct gsim_work *work) {
  CUgraphNode node;
  CUresult result = gsim_graph_add(stream->capture->graph, work, &stream->tail, stream->tail != NULL, &node);
  if (result == CUDA_SUCCESS) stream->tail = node;
  return result;
}

CUresult gsim_capture_allocate(CUstream stream, CUmemoryPool pool, uint64_t size, CUdeviceptr *address) {
  if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  CUDA_MEM_ALLOC_NODE_PARAMS params = {
      .poolProps = {.allocType = pool->allocation_type, .location = pool->location},
      .bytesize = size,
  };
  struct gsim_work work = {.type = CU_NODE_MEM_ALLOC};
  CUresult result = gsim_work_alloc(&params, &work);
  if (result != CUDA_SUCCESS) return result;
  *address = params.dptr;
  return append(stream, &work);
}

CUresult gsim_capture_free(CUstream stream, CUdeviceptr address) {
  if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (address == 0) return CUDA_SUCCESS;
  struct gsim_work work = {.type = CU_NODE_MEM_FREE};
  CUresult result = gsim_work_free(address, &work);
  return result == CUDA_SUCCESS ? append(stream, &work) : result;
}

static CUresult capture_work(CUstream stream, const struct gsim_work *work) {
  if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  return append(stream, work);
}

CUresult gsim_capture_copy(CUstream stream, const CUDA_MEMCPY3D *copy) {
  return capture_work(stream, &(struct gsim_work){.type = CU_NODE_MEMCPY, .copy = *copy});
}

CUresult gsim_capture_fill(CUstream stream, const CUDA_MEMSET_NODE_PARAMS *fill) {
  return capture_work(stream, &(struct gsim_work){.type = CU_NODE_MEMSET, .fill = *fill});
}

CUresult gsim_capture_host_function(CUstream stream, gsim_host_function function, void *data) {
  return capture_work(stream, &(struct gsim_work){.type = CU_NODE_HOST, .host = {function, data}});
}
