/* cuArray*, cuMipmappedArray*. */
#include "array.h"
#include "entry.h"
#include "lock.h"
#include "stream.h"

static CUresult create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *shape) {
  bool known = gsim_array_element_bytes(shape->Format, shape->NumChannels) > 0;
  if (!out || shape->Width == 0 || !known) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_capture_forbid_unsafe();
  if (result == CUDA_SUCCESS) result = gsim_array_new(context, shape, out);
  gsim_unlock();
  return result;
}

DRIVER_API(272, cuArrayCreate_v2, CUarray *, pHandle, const CUDA_ARRAY_DESCRIPTOR *, pAllocateArray) {
  if (!pAllocateArray) return CUDA_ERROR_INVALID_VALUE;
  CUDA_ARRAY3D_DESCRIPTOR shape = {
      .Width = pAllocateArray->Width,
      .Height = pAllocateArray->Height,
      .Format = pAllocateArray->Format,
      .NumChannels = pAllocateArray->NumChannels,
  };
  return create(pHandle, &shape);
}

DRIVER_API(274, cuArray3DCreate_v2, CUarray *, pHandle, const CUDA_ARRAY3D_DESCRIPTOR *, pAllocateArray) {
  return pAllocateArray ? create(pHandle, pAllocateArray) : CUDA_ERROR_INVALID_VALUE;
}

/* Levels of a mipmap die with it, not alone. */
DRIVER_API(89, cuArrayDestroy, CUarray, hArray) {
  gsim_lock();
  bool destroyable = gsim_handle_is(hArray, GSIM_KIND_ARRAY) && hArray->extent;
  if (destroyable) gsim_array_destroy(hArray);
  gsim_unlock();
  return destroyable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(275, cuArray3DGetDescriptor_v2, CUDA_ARRAY3D_DESCRIPTOR *, pArrayDescriptor, CUarray, hArray) {
  if (!pArrayDescriptor) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(hArray, GSIM_KIND_ARRAY);
  if (known) *pArrayDescriptor = hArray->shape;
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(273, cuArrayGetDescriptor_v2, CUDA_ARRAY_DESCRIPTOR *, pArrayDescriptor, CUarray, hArray) {
  if (!pArrayDescriptor) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(hArray, GSIM_KIND_ARRAY);
  if (known)
    *pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR){hArray->shape.Width, hArray->shape.Height, hArray->shape.Format,
                                                hArray->shape.NumChannels};
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(654, cuArrayGetMemoryRequirements, CUDA_ARRAY_MEMORY_REQUIREMENTS *, memoryRequirements, CUarray, array,
           CUdevice, device) {
  if (!memoryRequirements) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(array, GSIM_KIND_ARRAY);
  if (known)
    *memoryRequirements = (CUDA_ARRAY_MEMORY_REQUIREMENTS){
        .size = gsim_round_up(array->row_bytes * array->rows, GSIM_PAGE), .alignment = GSIM_PAGE};
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API(347, cuMipmappedArrayCreate, CUmipmappedArray *, pHandle, const CUDA_ARRAY3D_DESCRIPTOR *,
           pMipmappedArrayDesc, unsigned int, numMipmapLevels) {
  const CUDA_ARRAY3D_DESCRIPTOR *shape = pMipmappedArrayDesc;
  if (!pHandle || !shape || numMipmapLevels == 0 || shape->Width == 0 ||
      gsim_array_element_bytes(shape->Format, shape->NumChannels) == 0)
    return CUDA_ERROR_INVALID_VALUE;
  unsigned levels = numMipmapLevels < GSIM_MAX_LEVELS ? numMipmapLevels : GSIM_MAX_LEVELS;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = gsim_mipmap_new(context, shape, levels, pHandle);
  gsim_unlock();
  return result;
}

DRIVER_API(348, cuMipmappedArrayGetLevel, CUarray *, pLevelArray, CUmipmappedArray, hMipmappedArray, unsigned int,
           level) {
  if (!pLevelArray) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_SUCCESS;
  gsim_lock();
  if (!gsim_handle_is(hMipmappedArray, GSIM_KIND_MIPMAP))
    result = CUDA_ERROR_INVALID_HANDLE;
  else if (level >= hMipmappedArray->level_count)
    result = CUDA_ERROR_INVALID_VALUE;
  else
    *pLevelArray = hMipmappedArray->levels[level];
  gsim_unlock();
  return result;
}

DRIVER_API(349, cuMipmappedArrayDestroy, CUmipmappedArray, hMipmappedArray) {
  gsim_lock();
  bool known = gsim_handle_is(hMipmappedArray, GSIM_KIND_MIPMAP);
  if (known) gsim_mipmap_destroy(hMipmappedArray);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
