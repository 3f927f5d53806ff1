/* Executable graphs: a copy of the work, run step by step at each launch. */
#include <stdlib.h>

#include "copy.h"
#include "entry.h"
#include "graph.h"
#include "lock.h"

enum { AUTO_FREE_ON_LAUNCH = 1, KNOWN_FLAGS = 15 };

struct gsim_graph_exec {
  struct gsim_handle handle;
  CUgraph graph; /* for memory nodes: blocked from a second instantiation */
  unsigned long long flags;
  unsigned references; /* a launch in progress counts */
  size_t count;
  struct gsim_work steps[];
};

static CUresult instantiate(CUgraph graph, unsigned long long flags, CUgraphExec *out) {
  if (!gsim_handle_is(graph, GSIM_KIND_GRAPH)) return CUDA_ERROR_INVALID_VALUE;
  if (graph->memory_exec && gsim_handle_is(graph->memory_exec, GSIM_KIND_EXEC)) return CUDA_ERROR_NOT_SUPPORTED;
  CUgraphExec exec = gsim_handle_new(GSIM_KIND_EXEC, sizeof *exec + graph->node_count * sizeof(struct gsim_work));
  exec->graph = graph;
  exec->flags = flags;
  exec->references = 1;
  for (CUgraphNode node = graph->first; node; node = node->next) {
    if (node->work.memory) gsim_graph_memory_retain(node->work.memory);
    exec->steps[exec->count++] = node->work;
  }
  if (graph->has_memory_nodes) graph->memory_exec = exec;
  *out = exec;
  return CUDA_SUCCESS;
}

static CUresult instantiate_checked(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
  if (!out || (flags & ~(unsigned long long)KNOWN_FLAGS)) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = instantiate(graph, flags, out);
  gsim_unlock();
  return result;
}

DRIVER_API(513, cuGraphInstantiate, CUgraphExec *, phGraphExec, CUgraph, hGraph, CUgraphNode *, phErrorNode, char *,
           logBuffer, size_t, bufferSize) {
  return instantiate_checked(phGraphExec, hGraph, 0);
}

DRIVER_API(578, cuGraphInstantiate_v2, CUgraphExec *, phGraphExec, CUgraph, hGraph, CUgraphNode *, phErrorNode, char *,
           logBuffer, size_t, bufferSize) {
  return instantiate_checked(phGraphExec, hGraph, 0);
}

DRIVER_API(643, cuGraphInstantiateWithFlags, CUgraphExec *, phGraphExec, CUgraph, hGraph, unsigned long long, flags) {
  return instantiate_checked(phGraphExec, hGraph, flags);
}

DRIVER_API_PT(656, cuGraphInstantiateWithParams, 657, cuGraphInstantiateWithParams_ptsz, CUgraphExec *, phGraphExec,
              CUgraph, hGraph, CUDA_GRAPH_INSTANTIATE_PARAMS *, instantiateParams) {
  if (!instantiateParams) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = instantiate_checked(phGraphExec, hGraph, instantiateParams->flags);
  instantiateParams->hErrNode_out = NULL;
  instantiateParams->result_out = result != CUDA_SUCCESS;
  return result;
}

static void release(CUgraphExec exec) {
  if (--exec->references > 0) return;
  for (size_t i = 0; i < exec->count; i++)
    if (exec->steps[i].memory) gsim_graph_memory_release(exec->steps[i].memory);
  gsim_handle_free(exec);
}

DRIVER_API(516, cuGraphExecDestroy, CUgraphExec, hGraphExec) {
  gsim_lock();
  bool known = gsim_handle_is(hGraphExec, GSIM_KIND_EXEC);
  if (known) {
    if (gsim_handle_is(hGraphExec->graph, GSIM_KIND_GRAPH) && hGraphExec->graph->memory_exec == hGraphExec)
      hGraphExec->graph->memory_exec = NULL;
    release(hGraphExec);
  }
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(658, cuGraphExecGetFlags, CUgraphExec, hGraphExec, uint64_t *, flags) {
  if (!flags) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(hGraphExec, GSIM_KIND_EXEC);
  if (known) *flags = hGraphExec->flags;
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Memory left by the last launch stands in the way of the next, unless the graph
 * was told to free it. */
static CUresult clear_the_way(CUgraphExec exec) {
  for (size_t i = 0; i < exec->count; i++) {
    struct gsim_work *step = &exec->steps[i];
    if (step->type != CU_NODE_MEM_ALLOC || !step->memory->live) continue;
    if (!(exec->flags & AUTO_FREE_ON_LAUNCH)) return CUDA_ERROR_INVALID_VALUE;
    gsim_graph_memory_free(step->memory->live);
  }
  return CUDA_SUCCESS;
}

/* Runs one step; host functions run without the lock, which they may need. */
static CUresult run(const struct gsim_work *step) {
  switch (step->type) {
    case CU_NODE_MEM_ALLOC:
      return gsim_graph_memory_start(step->memory);
    case CU_NODE_MEM_FREE:
      if (!step->memory->live) return CUDA_ERROR_INVALID_VALUE;
      gsim_graph_memory_free(step->memory->live);
      return CUDA_SUCCESS;
    case CU_NODE_MEMCPY:
      return gsim_copy_box(&step->copy);
    case CU_NODE_MEMSET:
      return gsim_fill(&step->fill);
    case CU_NODE_HOST:
      gsim_unlock();
      step->host.fn(step->host.userData);
      gsim_lock();
      return CUDA_SUCCESS;
    default:
      return CUDA_SUCCESS;
  }
}

static CUresult launch(CUgraphExec exec, CUstream handle) {
  CUstream stream;
  CUresult result = gsim_stream_resolve(handle, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (!gsim_handle_is(exec, GSIM_KIND_EXEC)) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture) return CUDA_ERROR_NOT_SUPPORTED; /* child graphs */
  exec->references++;
  result = clear_the_way(exec);
  for (size_t i = 0; i < exec->count && result == CUDA_SUCCESS; i++) result = run(&exec->steps[i]);
  release(exec);
  return result;
}

DRIVER_API_PT(514, cuGraphLaunch, 515, cuGraphLaunch_ptsz, CUgraphExec, hGraphExec, CUstream, hStream) {
  gsim_lock();
  CUresult result = launch(hGraphExec, hStream);
  gsim_unlock();
  return result;
}

DRIVER_API_PT(580, cuGraphUpload, 581, cuGraphUpload_ptsz, CUgraphExec, hGraphExec, CUstream, hStream) {
  gsim_lock();
  bool known = gsim_handle_is(hGraphExec, GSIM_KIND_EXEC);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
