/* Moving and setting bytes for real. Every address is checked against what is
 * live before anything moves. Callers hold the driver's lock.
 */
#ifndef GSIM_COPY_H
#define GSIM_COPY_H

#include "array.h"

/* Which side of a copy must be memory that the driver knows. The other side may
 * be any host memory. */
enum { GSIM_KNOWN_NEITHER = 0, GSIM_KNOWN_DST = 1, GSIM_KNOWN_SRC = 2 };

/* Whether the bytes at the address may be accessed, and makes them accessible. */
bool gsim_reach(uint64_t address, uint64_t size, bool must_be_known);

CUresult gsim_copy_bytes(uint64_t dst, uint64_t src, uint64_t size, int known);

/* A box of rows between linear memory and arrays. */
CUresult gsim_copy_box(const CUDA_MEMCPY3D *copy);

/* The same box, as 1D and 2D copies say it. */
CUDA_MEMCPY3D gsim_box_of_bytes(uint64_t dst, uint64_t src, uint64_t size);
CUDA_MEMCPY3D gsim_box_of_2d(const CUDA_MEMCPY2D *copy);

/* Rows of elements of 1, 2 or 4 bytes. */
CUresult gsim_fill(const CUDA_MEMSET_NODE_PARAMS *fill);

#endif
