/* CUDA arrays: pages of a context's device with a shape and no device address.
 * Rows lie one behind the other. Callers hold the driver's lock.
 */
#ifndef GSIM_ARRAY_H
#define GSIM_ARRAY_H

#include "allocation.h"

struct gsim_array {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  CUDA_ARRAY3D_DESCRIPTOR shape;
  uint64_t row_bytes;
  uint64_t rows;              /* height times depth, at least 1 */
  uint64_t start;             /* where the bytes are, for the simulator only */
  struct gsim_extent *extent; /* NULL for a level of a mipmap, which owns the pages */
  struct gsim_physical *physical;
};

#define GSIM_MAX_LEVELS 16

struct gsim_mipmap {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  struct gsim_extent *extent;
  struct gsim_physical *physical;
  unsigned level_count;
  CUarray levels[GSIM_MAX_LEVELS];
};

/* Bytes of one element, or 0 for a format that the simulator does not know. */
unsigned gsim_array_element_bytes(int format, unsigned channels);
uint64_t gsim_array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *shape);

CUresult gsim_array_new(CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *shape, CUarray *out);
void gsim_array_destroy(CUarray array);
CUresult gsim_mipmap_new(CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels,
                         CUmipmappedArray *out);
void gsim_mipmap_destroy(CUmipmappedArray mipmap);

#endif
