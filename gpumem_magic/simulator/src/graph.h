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

/* Other work likewise; it runs when the graph is launched. */
CUresult gsim_capture_copy(CUstream stream, const CUDA_MEMCPY3D *copy);
CUresult gsim_capture_fill(CUstream stream, const CUDA_MEMSET_NODE_PARAMS *fill);
CUresult gsim_capture_host_function(CUstream stream, gsim_host_function function, void *data);

/* Frees live memory that a graph's launch allocated and left. */
void gsim_graph_memory_free(struct gsim_allocation *allocation);

#endif
