/* cuGraphAdd*Node: work put into a graph by hand. */
#include "entry.h"
#include "graph.h"
#include "lock.h"

/* Adds prepared work, or undoes its preparation. Needs the lock. */
static CUresult add(CUgraph graph, struct gsim_work *work, const CUgraphNode *dependencies, size_t count,
                    CUgraphNode *out) {
  CUresult result = gsim_graph_add(graph, work, dependencies, count, out);
  if (result == CUDA_SUCCESS || !work->memory) return result;
  if (work->type == CU_NODE_MEM_FREE) work->memory->has_free_node = false;
  gsim_graph_memory_release(work->memory);
  return result;
}

/* Turns the generic parameters into work; an allocation's address goes back out. */
static CUresult prepare(CUgraphNodeParams *params, struct gsim_work *work) {
  work->type = params->type;
  switch (params->type) {
    case CU_NODE_MEM_ALLOC:
      return gsim_work_alloc(&params->alloc, work);
    case CU_NODE_MEM_FREE:
      return gsim_work_free(params->free, work);
    case CU_NODE_MEMCPY:
      work->copy = params->memcpy.copyParams;
      return CUDA_SUCCESS;
    case CU_NODE_MEMSET:
      work->fill = params->memset.set;
      return CUDA_SUCCESS;
    case CU_NODE_HOST:
      work->host = params->host;
      return params->host.fn ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_NODE_EMPTY:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

static CUresult add_generic(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                            CUgraphNodeParams *params) {
  struct gsim_work work = {.type = CU_NODE_EMPTY};
  if (!out || !params || (count > 0 && !dependencies)) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  if (gsim_handle_is(graph, GSIM_KIND_GRAPH)) result = prepare(params, &work);
  if (result == CUDA_SUCCESS) result = add(graph, &work, dependencies, count, out);
  gsim_unlock();
  return result;
}

DRIVER_API(712, cuGraphAddNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies, size_t,
           numDependencies, CUgraphNodeParams *, nodeParams) {
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

DRIVER_API(723, cuGraphAddNode_v2, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           const CUgraphEdgeData *, dependencyData, size_t, numDependencies, CUgraphNodeParams *, nodeParams) {
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

DRIVER_API(638, cuGraphAddMemAllocNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies, CUDA_MEM_ALLOC_NODE_PARAMS *, nodeParams) {
  if (!nodeParams) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = {.type = CU_NODE_MEM_ALLOC, .alloc = *nodeParams};
  CUresult result = add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
  if (result == CUDA_SUCCESS) nodeParams->dptr = params.alloc.dptr;
  return result;
}

DRIVER_API(639, cuGraphAddMemFreeNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies, CUdeviceptr, dptr) {
  CUgraphNodeParams params = {.type = CU_NODE_MEM_FREE, .free = dptr};
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

DRIVER_API(504, cuGraphAddMemcpyNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies, const CUDA_MEMCPY3D *, copyParams, CUcontext, ctx) {
  if (!copyParams) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = {.type = CU_NODE_MEMCPY, .memcpy.copyParams = *copyParams};
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

DRIVER_API(506, cuGraphAddMemsetNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies, const CUDA_MEMSET_NODE_PARAMS *, memsetParams, CUcontext, ctx) {
  if (!memsetParams) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = {.type = CU_NODE_MEMSET, .memset.set = *memsetParams};
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

DRIVER_API(530, cuGraphAddHostNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies, const CUDA_HOST_NODE_PARAMS *, nodeParams) {
  if (!nodeParams) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams params = {.type = CU_NODE_HOST, .host = *nodeParams};
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

DRIVER_API(526, cuGraphAddEmptyNode, CUgraphNode *, phGraphNode, CUgraph, hGraph, const CUgraphNode *, dependencies,
           size_t, numDependencies) {
  CUgraphNodeParams params = {.type = CU_NODE_EMPTY};
  return add_generic(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

/* The node's work if it is of the type, else NULL. Needs the lock. */
static const struct gsim_work *work_of(CUgraphNode node, CUgraphNodeType type) {
  bool right = gsim_handle_is(node, GSIM_KIND_NODE) && node->work.type == type;
  return right ? &node->work : NULL;
}

DRIVER_API(648, cuGraphMemAllocNodeGetParams, CUgraphNode, hNode, CUDA_MEM_ALLOC_NODE_PARAMS *, params_out) {
  if (!params_out) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  const struct gsim_work *work = work_of(hNode, CU_NODE_MEM_ALLOC);
  if (work) *params_out = work->alloc;
  gsim_unlock();
  return work ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(649, cuGraphMemFreeNodeGetParams, CUgraphNode, hNode, CUdeviceptr *, dptr_out) {
  if (!dptr_out) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  const struct gsim_work *work = work_of(hNode, CU_NODE_MEM_FREE);
  if (work) *dptr_out = work->memory->range.start;
  gsim_unlock();
  return work ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
