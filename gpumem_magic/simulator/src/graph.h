/* Graphs, as far as memory goes: allocation and free nodes with the addresses
 * fixed when the node is made, and bytes that are live from the launch on. Copies,
 * memsets and host functions run at the launch, in the order they were added.
 * Callers hold the driver's lock.
 */
#ifndef GSIM_GRAPH_H
#define GSIM_GRAPH_H

#include "allocation.h"
#include "stream.h"

/* The address range of an allocation node. It lasts as long as a node, an
 * executable graph or live bytes refer to it. */
struct gsim_graph_memory {
  struct gsim_range range;
  struct gsim_extent *extent;
  struct gsim_device *device;
  unsigned references;
  bool has_free_node;
  struct gsim_allocation *live; /* NULL until launched, and after a free */
};

/* What a node does: one member per type. */
struct gsim_work {
  CUgraphNodeType type;
  struct gsim_graph_memory *memory; /* of allocation and free nodes */
  CUDA_MEM_ALLOC_NODE_PARAMS alloc;
  CUDA_MEMCPY3D copy;
  CUDA_MEMSET_NODE_PARAMS fill;
  CUDA_HOST_NODE_PARAMS host;
};

struct gsim_graph_node {
  struct gsim_handle handle;
  CUgraph graph;
  CUgraphNode next;
  struct gsim_work work;
  CUgraphNode *dependencies;
  size_t dependency_count;
};

struct gsim_graph {
  struct gsim_handle handle;
  CUgraphNode first, last;
  size_t node_count;
  bool has_memory_nodes;
  CUgraphExec memory_exec; /* a graph with memory nodes has one at a time */
};

CUgraph gsim_graph_new(void);
void gsim_graph_destroy(CUgraph graph);

/* Adds a node; the dependencies are copied. */
CUresult gsim_graph_add(CUgraph graph, const struct gsim_work *work, const CUgraphNode *dependencies, size_t count,
                        CUgraphNode *out);

/* Work of an allocation node (with its address, also in params->dptr), and of the
 * free node for an address. */
CUresult gsim_work_alloc(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct gsim_work *work);
CUresult gsim_work_free(CUdeviceptr address, struct gsim_work *work);

void gsim_graph_memory_retain(struct gsim_graph_memory *memory);
void gsim_graph_memory_release(struct gsim_graph_memory *memory);
CUresult gsim_graph_memory_start(struct gsim_graph_memory *memory);
/* Frees live memory that a graph's launch allocated and left. */
void gsim_graph_memory_free(struct gsim_allocation *allocation);

/* cuMemAllocAsync and cuMemFreeAsync on a stream that is being captured. */
CUresult gsim_capture_allocate(CUstream stream, CUmemoryPool pool, uint64_t size, CUdeviceptr *address);
CUresult gsim_capture_free(CUstream stream, CUdeviceptr address);

/* Other work likewise; it runs when the graph is launched. */
CUresult gsim_capture_copy(CUstream stream, const CUDA_MEMCPY3D *copy);
CUresult gsim_capture_fill(CUstream stream, const CUDA_MEMSET_NODE_PARAMS *fill);
CUresult gsim_capture_host_function(CUstream stream, gsim_host_function function, void *data);

#endif
