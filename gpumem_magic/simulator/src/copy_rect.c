/* cuMemcpy2D*, cuMemcpy3D*: boxes of rows. */
#include "copy.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"
#include "stream.h"

static CUresult copy_now(const CUDA_MEMCPY3D *box) {
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = gsim_copy_box(box);
  gsim_unlock();
  return result;
}

static CUresult copy_on(CUstream handle, const CUDA_MEMCPY3D *box) {
  CUstream stream;
  gsim_lock();
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result == CUDA_SUCCESS) result = stream->capture ? gsim_capture_copy(stream, box) : gsim_copy_box(box);
  gsim_unlock();
  return result;
}

static CUresult copy_2d(const CUDA_MEMCPY2D *copy) {
  if (!copy) return CUDA_ERROR_INVALID_VALUE;
  CUDA_MEMCPY3D box = gsim_box_of_2d(copy);
  return copy_now(&box);
}

DRIVER_API_PT(287, cuMemcpy2D_v2, 405, cuMemcpy2D_v2_ptds, const CUDA_MEMCPY2D *, pCopy) { return copy_2d(pCopy); }

DRIVER_API_PT(288, cuMemcpy2DUnaligned_v2, 406, cuMemcpy2DUnaligned_v2_ptds, const CUDA_MEMCPY2D *, pCopy) {
  return copy_2d(pCopy);
}

DRIVER_API_PT(289, cuMemcpy2DAsync_v2, 424, cuMemcpy2DAsync_v2_ptsz, const CUDA_MEMCPY2D *, pCopy, CUstream, hStream) {
  if (!pCopy) return CUDA_ERROR_INVALID_VALUE;
  CUDA_MEMCPY3D box = gsim_box_of_2d(pCopy);
  return copy_on(hStream, &box);
}

DRIVER_API_PT(290, cuMemcpy3D_v2, 407, cuMemcpy3D_v2_ptds, const CUDA_MEMCPY3D *, pCopy) {
  return pCopy ? copy_now(pCopy) : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API_PT(291, cuMemcpy3DAsync_v2, 425, cuMemcpy3DAsync_v2_ptsz, const CUDA_MEMCPY3D *, pCopy, CUstream, hStream) {
  return pCopy ? copy_on(hStream, pCopy) : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API_PT(320, cuMemcpy3DPeer, 410, cuMemcpy3DPeer_ptds, const CUDA_MEMCPY3D_PEER *, pCopy) {
  return pCopy ? copy_now(pCopy) : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API_PT(321, cuMemcpy3DPeerAsync, 427, cuMemcpy3DPeerAsync_ptsz, const CUDA_MEMCPY3D_PEER *, pCopy, CUstream,
              hStream) {
  return pCopy ? copy_on(hStream, pCopy) : CUDA_ERROR_INVALID_VALUE;
}
