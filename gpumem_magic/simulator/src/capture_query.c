/* What can be asked about a capture, also by tools while it goes on. */
#include "entry.h"
#include "graph.h"
#include "lock.h"

static int status_of(CUstream stream) {
  if (!stream->capture) return GSIM_NOT_CAPTURING;
  return stream->capture->invalidated ? GSIM_CAPTURE_INVALIDATED : GSIM_CAPTURING;
}

DRIVER_API_PT(499, cuStreamIsCapturing, 500, cuStreamIsCapturing_ptsz, CUstream, hStream, int *, captureStatus) {
  if (!captureStatus) return CUDA_ERROR_INVALID_VALUE;
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(hStream, &stream);
  if (result == CUDA_SUCCESS) *captureStatus = status_of(stream);
  gsim_unlock();
  return result;
}

/* Everything but the status is answered for an intact capture only. */
static CUresult describe(CUstream handle, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **dependencies,
                         size_t *count) {
  if (!status) return CUDA_ERROR_INVALID_VALUE;
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS) {
    *status = status_of(stream);
    bool intact = *status == GSIM_CAPTURING;
    if (id) *id = intact ? stream->capture->id : 0;
    if (graph) *graph = intact ? stream->capture->graph : NULL;
    if (dependencies) *dependencies = &stream->tail;
    if (count) *count = intact && stream->tail;
  }
  gsim_unlock();
  return result;
}

DRIVER_API_PT(536, cuStreamGetCaptureInfo, 537, cuStreamGetCaptureInfo_ptsz, CUstream, hStream, int *,
              captureStatus_out, uint64_t *, id_out) {
  return describe(hStream, captureStatus_out, id_out, NULL, NULL, NULL);
}

DRIVER_API_PT(629, cuStreamGetCaptureInfo_v2, 630, cuStreamGetCaptureInfo_v2_ptsz, CUstream, hStream, int *,
              captureStatus_out, uint64_t *, id_out, CUgraph *, graph_out, const CUgraphNode **, dependencies_out,
              size_t *, numDependencies_out) {
  return describe(hStream, captureStatus_out, id_out, graph_out, dependencies_out, numDependencies_out);
}

DRIVER_API_PT(729, cuStreamGetCaptureInfo_v3, 730, cuStreamGetCaptureInfo_v3_ptsz, CUstream, hStream, int *,
              captureStatus_out, uint64_t *, id_out, CUgraph *, graph_out, const CUgraphNode **, dependencies_out,
              const CUgraphEdgeData **, edgeData_out, size_t *, numDependencies_out) {
  if (edgeData_out) *edgeData_out = NULL;
  return describe(hStream, captureStatus_out, id_out, graph_out, dependencies_out, numDependencies_out);
}
