#include "array.h"

unsigned gsim_array_element_bytes(int format, unsigned channels) {
  if (channels != 1 && channels != 2 && channels != 4) return 0;
  switch (format) {
    case 0x01: /* 8 bits, unsigned and signed */
    case 0x08:
      return channels;
    case 0x02: /* 16 bits, unsigned, signed and half */
    case 0x09:
    case 0x10:
      return 2 * channels;
    case 0x03: /* 32 bits, unsigned, signed and float */
    case 0x0a:
    case 0x20:
      return 4 * channels;
    default:
      return 0;
  }
}

static uint64_t at_least_one(uint64_t n) { return n ? n : 1; }

uint64_t gsim_array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *shape) {
  return shape->Width * at_least_one(shape->Height) * at_least_one(shape->Depth) *
         gsim_array_element_bytes(shape->Format, shape->NumChannels);
}

static CUresult take_pages(CUcontext context, uint64_t bytes, struct gsim_extent **extent,
                           struct gsim_physical **physical) {
  CUresult result = gsim_physical_take(context->device, bytes, physical);
  if (result != CUDA_SUCCESS) return result;
  *extent = gsim_addresses_take((*physical)->size);
  if (!*extent) {
    gsim_physical_release(*physical);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  gsim_addresses_map((*extent)->start, (*physical)->size, *physical, 0);
  return CUDA_SUCCESS;
}

static void give_pages(struct gsim_extent *extent, struct gsim_physical *physical) {
  gsim_addresses_unmap(extent->start, extent->size);
  gsim_physical_release(physical);
  gsim_addresses_give(extent);
}

static CUarray new_array(CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *shape, uint64_t start) {
  CUarray array = gsim_handle_new(GSIM_KIND_ARRAY, sizeof *array);
  array->context = context;
  array->shape = *shape;
  array->row_bytes = shape->Width * gsim_array_element_bytes(shape->Format, shape->NumChannels);
  array->rows = at_least_one(shape->Height) * at_least_one(shape->Depth);
  array->start = start;
  return array;
}

static void destroy_owned_array(struct gsim_owned *owned) {
  gsim_array_destroy(GSIM_CONTAINER(owned, struct gsim_array, owned));
}

CUresult gsim_array_new(CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *shape, CUarray *out) {
  struct gsim_extent *extent;
  struct gsim_physical *physical;
  CUresult result = take_pages(context, gsim_array_bytes(shape), &extent, &physical);
  if (result != CUDA_SUCCESS) return result;
  *out = new_array(context, shape, extent->start);
  (*out)->extent = extent;
  (*out)->physical = physical;
  gsim_own(&context->owned, &(*out)->owned, destroy_owned_array);
  return CUDA_SUCCESS;
}

void gsim_array_destroy(CUarray array) {
  gsim_disown(&array->owned);
  if (array->extent) give_pages(array->extent, array->physical);
  gsim_handle_free(array);
}

static CUDA_ARRAY3D_DESCRIPTOR level_shape(const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned level) {
  CUDA_ARRAY3D_DESCRIPTOR smaller = *shape;
  smaller.Width = at_least_one(shape->Width >> level);
  if (shape->Height) smaller.Height = at_least_one(shape->Height >> level);
  if (shape->Depth) smaller.Depth = at_least_one(shape->Depth >> level);
  return smaller;
}

static void destroy_owned_mipmap(struct gsim_owned *owned) {
  gsim_mipmap_destroy(GSIM_CONTAINER(owned, struct gsim_mipmap, owned));
}

static uint64_t bytes_of_levels(const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels) {
  uint64_t bytes = 0;
  for (unsigned level = 0; level < levels; level++) {
    CUDA_ARRAY3D_DESCRIPTOR one = level_shape(shape, level);
    bytes += gsim_array_bytes(&one);
  }
  return bytes;
}

CUresult gsim_mipmap_new(CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels,
                         CUmipmappedArray *out) {
  struct gsim_extent *extent;
  struct gsim_physical *physical;
  CUresult result = take_pages(context, bytes_of_levels(shape, levels), &extent, &physical);
  if (result != CUDA_SUCCESS) return result;
  CUmipmappedArray mipmap = gsim_handle_new(GSIM_KIND_MIPMAP, sizeof *mipmap);
  mipmap->context = context;
  mipmap->extent = extent;
  mipmap->physical = physical;
  mipmap->level_count = levels;
  uint64_t start = extent->start;
  for (unsigned level = 0; level < levels; level++) {
    CUDA_ARRAY3D_DESCRIPTOR one = level_shape(shape, level);
    mipmap->levels[level] = new_array(context, &one, start);
    start += gsim_array_bytes(&one);
  }
  gsim_own(&context->owned, &mipmap->owned, destroy_owned_mipmap);
  *out = mipmap;
  return CUDA_SUCCESS;
}

void gsim_mipmap_destroy(CUmipmappedArray mipmap) {
  gsim_disown(&mipmap->owned);
  for (unsigned level = 0; level < mipmap->level_count; level++) gsim_array_destroy(mipmap->levels[level]);
  give_pages(mipmap->extent, mipmap->physical);
  gsim_handle_free(mipmap);
}
