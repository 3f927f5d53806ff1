/* cuPointerGetAttribute and cuMemRangeGetAttribute: what an address is. */
#include <string.h>

#include "entry.h"
#include "lock.h"
#include "pool.h"
#include "vmm.h"

enum pointer_attribute {
  POINTER_CONTEXT = 1,
  POINTER_MEMORY_TYPE = 2,
  POINTER_DEVICE_POINTER = 3,
  POINTER_HOST_POINTER = 4,
  POINTER_SYNC_MEMOPS = 6,
  POINTER_BUFFER_ID = 7,
  POINTER_IS_MANAGED = 8,
  POINTER_DEVICE_ORDINAL = 9,
  POINTER_IS_LEGACY_IPC_CAPABLE = 10,
  POINTER_RANGE_START = 11,
  POINTER_RANGE_SIZE = 12,
  POINTER_MAPPED = 13,
  POINTER_ALLOWED_HANDLE_TYPES = 14,
  POINTER_IS_RDMA_CAPABLE = 15,
  POINTER_ACCESS_FLAGS = 16,
  POINTER_MEMPOOL = 17,
  POINTER_MAPPING_SIZE = 18,
  POINTER_MAPPING_BASE = 19,
  POINTER_BLOCK_ID = 20,
  POINTER_ATTRIBUTE_LIMIT = 23,
};

#define NO_DEVICE_ORDINAL (-2)

static bool is_on_host(const struct gsim_allocation *a) {
  return a->memory == GSIM_HOST_ALLOCATED || a->memory == GSIM_HOST_REGISTERED;
}

static bool is_host_visible(const struct gsim_allocation *a) {
  return is_on_host(a) || a->memory == GSIM_MANAGED || (a->memory == GSIM_ASYNC && !a->device);
}

/* The range as the driver sees it: a mapping's is its whole reservation. */
static void range_of(const struct gsim_allocation *a, CUdeviceptr *start, uint64_t *size) {
  *start = a->range.start;
  *size = a->range.size;
  if (a->memory == GSIM_MAPPING) gsim_reservation_of(a->range.start, start, size);
}

/* What is mapped in one piece around it: a slab, a pool's chunk, or its pages. */
static void mapping_of(const struct gsim_allocation *a, CUdeviceptr *start, uint64_t *size) {
  bool in_chunk = a->extent && !a->physical && a->extent->chunk->physical;
  *start = in_chunk ? a->extent->chunk->start : a->range.start;
  *size = in_chunk ? a->extent->chunk->size : a->physical ? a->physical->size : a->range.size;
}

static unsigned access_of(const struct gsim_allocation *a) {
  return a->memory == GSIM_MAPPING ? a->access : CU_ACCESS_READWRITE;
}

static int handle_types_of(const struct gsim_allocation *a) {
  if (a->memory == GSIM_MAPPING) return (int)a->flags;
  return a->pool ? a->pool->handle_types : CU_HANDLE_NONE;
}

/* The answer, in as many bytes as the attribute has; 0 when it has none for this
 * address. */
static size_t answer(const struct gsim_allocation *a, int attribute, CUdeviceptr address, void *out) {
  CUdeviceptr start;
  uint64_t size;
#define ANSWER(type, value) return *(type *)out = (type)(value), sizeof(type)
  switch (attribute) {
    case POINTER_CONTEXT:
      ANSWER(CUcontext, a->context);
    case POINTER_MEMORY_TYPE:
      ANSWER(unsigned, is_on_host(a) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case POINTER_DEVICE_POINTER:
      ANSWER(CUdeviceptr, address);
    case POINTER_HOST_POINTER:
      if (!is_host_visible(a)) return 0;
      ANSWER(CUdeviceptr, address);
    case POINTER_SYNC_MEMOPS:
      ANSWER(unsigned, a->sync_memops);
    case POINTER_BUFFER_ID:
      ANSWER(uint64_t, a->buffer_id);
    case POINTER_IS_MANAGED:
      ANSWER(unsigned, a->memory == GSIM_MANAGED);
    case POINTER_DEVICE_ORDINAL:
      ANSWER(int, a->device ? a->device->ordinal : NO_DEVICE_ORDINAL);
    case POINTER_IS_LEGACY_IPC_CAPABLE:
      ANSWER(unsigned, a->memory == GSIM_PLAIN);
    case POINTER_RANGE_START:
      range_of(a, &start, &size);
      ANSWER(CUdeviceptr, start);
    case POINTER_RANGE_SIZE:
      range_of(a, &start, &size);
      ANSWER(size_t, size);
    case POINTER_MAPPED:
      ANSWER(unsigned, 1);
    case POINTER_ALLOWED_HANDLE_TYPES:
      ANSWER(uint64_t, handle_types_of(a));
    case POINTER_IS_RDMA_CAPABLE:
      ANSWER(unsigned, a->memory == GSIM_PLAIN);
    case POINTER_ACCESS_FLAGS:
      ANSWER(unsigned, access_of(a));
    case POINTER_MEMPOOL:
      ANSWER(CUmemoryPool, a->pool);
    case POINTER_MAPPING_SIZE:
      mapping_of(a, &start, &size);
      ANSWER(size_t, size);
    case POINTER_MAPPING_BASE:
      mapping_of(a, &start, &size);
      ANSWER(CUdeviceptr, start);
    case POINTER_BLOCK_ID:
      ANSWER(uint64_t, a->buffer_id);
    default:
      return 0;
  }
#undef ANSWER
}

DRIVER_API(310, cuPointerGetAttribute, void *, data, int, attribute, CUdeviceptr, ptr) {
  if (!data || attribute < 1 || attribute >= POINTER_ATTRIBUTE_LIMIT) return CUDA_ERROR_INVALID_VALUE;
  uint64_t value;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(ptr);
  size_t size = allocation ? answer(allocation, attribute, ptr, &value) : 0;
  gsim_unlock();
  /* A host pointer that there is none of is answered 0, and with an error. */
  if (allocation && attribute == POINTER_HOST_POINTER && size == 0) memset(data, 0, sizeof(void *));
  memcpy(data, &value, size);
  return size > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Bytes that an attribute's answer takes; pointers and sizes have 8. */
static size_t size_of(int attribute) {
  struct gsim_allocation nothing = {.memory = GSIM_HOST_ALLOCATED};
  uint64_t value;
  return answer(&nothing, attribute, 0, &value);
}

static void answer_or_default(const struct gsim_allocation *allocation, int attribute, CUdeviceptr address, void *out) {
  uint64_t value = 0;
  size_t size = allocation ? answer(allocation, attribute, address, &value) : 0;
  int none = NO_DEVICE_ORDINAL;
  if (size == 0 && attribute == POINTER_DEVICE_ORDINAL) memcpy(&value, &none, sizeof none);
  memcpy(out, &value, size ? size : size_of(attribute));
}

/* Unlike the single question, this one succeeds for an unknown address too. */
DRIVER_API(450, cuPointerGetAttributes, unsigned int, numAttributes, int *, attributes, void **, data, CUdeviceptr,
           ptr) {
  if (!attributes || !data || numAttributes == 0) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < numAttributes; i++)
    if (attributes[i] < 1 || attributes[i] >= POINTER_ATTRIBUTE_LIMIT || !data[i]) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(ptr);
  for (unsigned i = 0; i < numAttributes; i++) answer_or_default(allocation, attributes[i], ptr, data[i]);
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(378, cuPointerSetAttribute, const void *, value, int, attribute, CUdeviceptr, ptr) {
  if (!value || attribute != POINTER_SYNC_MEMOPS) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(ptr);
  if (allocation) allocation->sync_memops = *(const unsigned *)value != 0;
  gsim_unlock();
  return allocation ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
