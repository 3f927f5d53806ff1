#include "copy.h"

#include <string.h>

static void *host(uint64_t address) { return (void *)(uintptr_t)address; }

bool gsim_reach(uint64_t address, uint64_t size, bool must_be_known) {
  if (size == 0) return true;
  if (gsim_allocation_find(address)) return gsim_allocation_touch(address, size);
  return !must_be_known && !gsim_addresses_contain(address) && address != 0;
}

CUresult gsim_copy_bytes(uint64_t dst, uint64_t src, uint64_t size, int known) {
  if (!gsim_reach(dst, size, known & GSIM_KNOWN_DST) || !gsim_reach(src, size, known & GSIM_KNOWN_SRC))
    return CUDA_ERROR_INVALID_VALUE;
  memmove(host(dst), host(src), size);
  return CUDA_SUCCESS;
}

/* One side of a box copy: where row `row` of slice `slice` begins. */
struct side {
  uint64_t start;
  uint64_t row_stride;
  uint64_t slice_stride;
  bool known;     /* its rows must be in driver memory */
  bool reachable; /* the whole box was found in bounds already */
};

static bool set_up_array(struct side *side, CUarray array, size_t x, size_t y, size_t z, const CUDA_MEMCPY3D *copy) {
  if (!gsim_handle_is(array, GSIM_KIND_ARRAY)) return false;
  uint64_t height = array->shape.Height ? array->shape.Height : 1;
  uint64_t depth = array->shape.Depth ? array->shape.Depth : 1;
  if (x + copy->WidthInBytes > array->row_bytes || y + copy->Height > height || z + copy->Depth > depth) return false;
  side->row_stride = array->row_bytes;
  side->slice_stride = array->row_bytes * height;
  side->start = array->start + z * side->slice_stride + y * side->row_stride + x;
  side->reachable = true;
  return gsim_addresses_touch(array->start, array->row_bytes * array->rows);
}

static bool set_up_linear(struct side *side, uint64_t base, bool known, size_t pitch, size_t slice_height, size_t x,
                          size_t y, size_t z, const CUDA_MEMCPY3D *copy) {
  side->row_stride = pitch ? pitch : copy->WidthInBytes;
  if (side->row_stride < copy->WidthInBytes && copy->Height > 1) return false;
  side->slice_stride = side->row_stride * (slice_height ? slice_height : copy->Height);
  side->start = base + z * side->slice_stride + y * side->row_stride + x;
  side->known = known;
  return base != 0;
}

static bool set_up_src(struct side *side, const CUDA_MEMCPY3D *c) {
  if (c->srcMemoryType == CU_MEMORYTYPE_ARRAY)
    return set_up_array(side, c->srcArray, c->srcXInBytes, c->srcY, c->srcZ, c);
  bool on_host = c->srcMemoryType == CU_MEMORYTYPE_HOST;
  return set_up_linear(side, on_host ? (uint64_t)(uintptr_t)c->srcHost : c->srcDevice,
                       c->srcMemoryType == CU_MEMORYTYPE_DEVICE, c->srcPitch, c->srcHeight, c->srcXInBytes, c->srcY,
                       c->srcZ, c);
}

static bool set_up_dst(struct side *side, const CUDA_MEMCPY3D *c) {
  if (c->dstMemoryType == CU_MEMORYTYPE_ARRAY)
    return set_up_array(side, c->dstArray, c->dstXInBytes, c->dstY, c->dstZ, c);
  bool on_host = c->dstMemoryType == CU_MEMORYTYPE_HOST;
  return set_up_linear(side, on_host ? (uint64_t)(uintptr_t)c->dstHost : c->dstDevice,
                       c->dstMemoryType == CU_MEMORYTYPE_DEVICE, c->dstPitch, c->dstHeight, c->dstXInBytes, c->dstY,
                       c->dstZ, c);
}

static uint64_t row_at(const struct side *side, uint64_t slice, uint64_t row) {
  return side->start + slice * side->slice_stride + row * side->row_stride;
}

static bool reach_rows(const struct side *side, const CUDA_MEMCPY3D *copy) {
  if (side->reachable) return true;
  for (uint64_t slice = 0; slice < copy->Depth; slice++)
    for (uint64_t row = 0; row < copy->Height; row++)
      if (!gsim_reach(row_at(side, slice, row), copy->WidthInBytes, side->known)) return false;
  return true;
}

CUresult gsim_copy_box(const CUDA_MEMCPY3D *copy) {
  struct side src = {0}, dst = {0};
  if (copy->WidthInBytes == 0 || copy->Height == 0 || copy->Depth == 0) return CUDA_SUCCESS;
  if (!set_up_src(&src, copy) || !set_up_dst(&dst, copy) || !reach_rows(&src, copy) || !reach_rows(&dst, copy))
    return CUDA_ERROR_INVALID_VALUE;
  for (uint64_t slice = 0; slice < copy->Depth; slice++)
    for (uint64_t row = 0; row < copy->Height; row++)
      memmove(host(row_at(&dst, slice, row)), host(row_at(&src, slice, row)), copy->WidthInBytes);
  return CUDA_SUCCESS;
}

CUDA_MEMCPY3D gsim_box_of_bytes(uint64_t dst, uint64_t src, uint64_t size) {
  return (CUDA_MEMCPY3D){
      .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
      .srcDevice = src,
      .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
      .dstDevice = dst,
      .WidthInBytes = size,
      .Height = 1,
      .Depth = 1,
  };
}

CUDA_MEMCPY3D gsim_box_of_2d(const CUDA_MEMCPY2D *copy) {
  return (CUDA_MEMCPY3D){
      .srcXInBytes = copy->srcXInBytes,
      .srcY = copy->srcY,
      .srcMemoryType = copy->srcMemoryType,
      .srcHost = copy->srcHost,
      .srcDevice = copy->srcDevice,
      .srcArray = copy->srcArray,
      .srcPitch = copy->srcPitch,
      .dstXInBytes = copy->dstXInBytes,
      .dstY = copy->dstY,
      .dstMemoryType = copy->dstMemoryType,
      .dstHost = copy->dstHost,
      .dstDevice = copy->dstDevice,
      .dstArray = copy->dstArray,
      .dstPitch = copy->dstPitch,
      .WidthInBytes = copy->WidthInBytes,
      .Height = copy->Height,
      .Depth = 1,
  };
}

static void fill_row(uint64_t start, unsigned value, unsigned element, uint64_t count) {
  uint8_t *bytes = host(start);
  if (element == 1) {
    memset(bytes, (int)value, count);
    return;
  }
  for (uint64_t i = 0; i < count; i++) memcpy(bytes + i * element, &value, element);
}

CUresult gsim_fill(const CUDA_MEMSET_NODE_PARAMS *fill) {
  uint64_t row_bytes = fill->width * fill->elementSize;
  bool aligned = fill->dst % fill->elementSize == 0;
  if (!aligned || (fill->height > 1 && fill->pitch < row_bytes)) return CUDA_ERROR_INVALID_VALUE;
  for (uint64_t row = 0; row < fill->height; row++)
    if (!gsim_reach(fill->dst + row * fill->pitch, row_bytes, true)) return CUDA_ERROR_INVALID_VALUE;
  for (uint64_t row = 0; row < fill->height; row++)
    fill_row(fill->dst + row * fill->pitch, fill->value, fill->elementSize, fill->width);
  return CUDA_SUCCESS;
}
