/* Graphs, as far as memory goes: allocation and free nodes with the addresses
 * fixed when the node is made, and bytes that are live from the launch on.
 * Callers hold the driver's lock.
 */
#ifndef GSIM_GRAPH_H
#define GSIM_GRAPH_H

#include "allocation.h"
#include "stream.h"

/* cuMemAllocAsync and cuMemFreeAsync on a stream that is being captured. */
CUresult gsim_capture_allocate(CUstream stream, CUmemoryPool pool, uint64_t size,
                               CUdeviceptr *address);
CUresult gsim_capture_free(CUstream stream, CUdeviceptr address);

/* Frees live memory that a graph's launch allocated and left. */
void gsim_graph_memory_free(struct gsim_allocation *allocation);

#endif
