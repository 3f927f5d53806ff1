/* The structure of graphs: nodes and what they depend on. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "lock.h"

CUgraph gsim_graph_new(void) { return gsim_handle_new(GSIM_KIND_GRAPH, sizeof(struct gsim_graph)); }

static void free_node(CUgraphNode node) {
  if (node->work.memory) gsim_graph_memory_release(node->work.memory);
  free(node->dependencies);
  gsim_handle_free(node);
}

void gsim_graph_destroy(CUgraph graph) {
  while (graph->first) {
    CUgraphNode node = graph->first;
    graph->first = node->next;
    free_node(node);
  }
  gsim_handle_free(graph);
}

static bool are_nodes_of(CUgraph graph, const CUgraphNode *nodes, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!gsim_handle_is(nodes[i], GSIM_KIND_NODE) || nodes[i]->graph != graph) return false;
  return true;
}

static void depend(CUgraphNode node, const CUgraphNode *on, size_t count) {
  if (count == 0) return;
  size_t total = node->dependency_count + count;
  CUgraphNode *grown = realloc(node->dependencies, total * sizeof *grown);
  if (!grown) abort();
  memcpy(grown + node->dependency_count, on, count * sizeof *on);
  node->dependencies = grown;
  node->dependency_count = total;
}

CUresult gsim_graph_add(CUgraph graph, const struct gsim_work *work, const CUgraphNode *dependencies, size_t count,
                        CUgraphNode *out) {
  if (!are_nodes_of(graph, dependencies, count)) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNode node = gsim_handle_new(GSIM_KIND_NODE, sizeof *node);
  node->graph = graph;
  node->work = *work;
  depend(node, dependencies, count);
  if (graph->last)
    graph->last->next = node;
  else
    graph->first = node;
  graph->last = node;
  graph->node_count++;
  graph->has_memory_nodes |= work->memory != NULL;
  *out = node;
  return CUDA_SUCCESS;
}

DRIVER_API(501, cuGraphCreate, CUgraph *, phGraph, unsigned int, flags) {
  if (!phGraph || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  *phGraph = gsim_graph_new();
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(517, cuGraphDestroy, CUgraph, hGraph) {
  gsim_lock();
  bool known = gsim_handle_is(hGraph, GSIM_KIND_GRAPH);
  if (known) gsim_graph_destroy(hGraph);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Fills the caller's array as far as it reaches; without one, says how many. */
static CUresult list_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count, bool roots) {
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(graph, GSIM_KIND_GRAPH);
  size_t found = 0;
  for (CUgraphNode node = known ? graph->first : NULL; node; node = node->next) {
    if (roots && node->dependency_count > 0) continue;
    if (nodes && found < *count) nodes[found] = node;
    found++;
  }
  for (size_t i = found; nodes && i < *count; i++) nodes[i] = NULL;
  *count = found;
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(534, cuGraphGetNodes, CUgraph, hGraph, CUgraphNode *, nodes, size_t *, numNodes) {
  return list_nodes(hGraph, nodes, numNodes, false);
}

DRIVER_API(510, cuGraphGetRootNodes, CUgraph, hGraph, CUgraphNode *, rootNodes, size_t *, numRootNodes) {
  return list_nodes(hGraph, rootNodes, numRootNodes, true);
}

DRIVER_API(509, cuGraphNodeGetType, CUgraphNode, hNode, int *, type) {
  if (!type) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(hNode, GSIM_KIND_NODE);
  if (known) *type = hNode->work.type;
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult list_dependencies(CUgraphNode node, CUgraphNode *out, size_t *count) {
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool known = gsim_handle_is(node, GSIM_KIND_NODE);
  size_t found = known ? node->dependency_count : 0;
  for (size_t i = 0; out && i < *count; i++) out[i] = i < found ? node->dependencies[i] : NULL;
  *count = found;
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(511, cuGraphNodeGetDependencies, CUgraphNode, hNode, CUgraphNode *, dependencies, size_t *,
           numDependencies) {
  return list_dependencies(hNode, dependencies, numDependencies);
}

DRIVER_API(725, cuGraphNodeGetDependencies_v2, CUgraphNode, hNode, CUgraphNode *, dependencies, CUgraphEdgeData *,
           edgeData, size_t *, numDependencies) {
  if (edgeData && numDependencies) memset(edgeData, 0, *numDependencies * sizeof *edgeData);
  return list_dependencies(hNode, dependencies, numDependencies);
}

static CUresult add_dependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count) {
  gsim_lock();
  bool known =
      gsim_handle_is(graph, GSIM_KIND_GRAPH) && are_nodes_of(graph, from, count) && are_nodes_of(graph, to, count);
  for (size_t i = 0; known && i < count; i++) depend(to[i], &from[i], 1);
  gsim_unlock();
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(518, cuGraphAddDependencies, CUgraph, hGraph, const CUgraphNode *, from, const CUgraphNode *, to, size_t,
           numDependencies) {
  return add_dependencies(hGraph, from, to, numDependencies);
}

DRIVER_API(727, cuGraphAddDependencies_v2, CUgraph, hGraph, const CUgraphNode *, from, const CUgraphNode *, to,
           const CUgraphEdgeData *, edgeData, size_t, numDependencies) {
  return add_dependencies(hGraph, from, to, numDependencies);
}
