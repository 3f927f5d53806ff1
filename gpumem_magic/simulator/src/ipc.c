/* cuIpc*MemHandle: memory of cuMemAlloc in another process of the same machine. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "allocation.h"
#include "entry.h"
#include "lock.h"
#include "share.h"

/* What a CUipcMemHandle holds. */
struct ticket {
  char magic[8];
  int64_t pid;
  int64_t share_file; /* the exporting process's descriptor, open for its life */
  uint64_t offset;    /* of the allocation, within the shared pages */
  uint64_t size;
};
_Static_assert(sizeof(struct ticket) <= sizeof(CUipcMemHandle), "CUipcMemHandle");

static const char magic[8] = "GSIMIPC1";

/* The pages around an allocation: its own, or the slab it is cut from. */
static struct gsim_physical *pages_of(const struct gsim_allocation *allocation, uint64_t *start) {
  bool own = allocation->physical != NULL;
  *start = own ? allocation->range.start : allocation->extent->chunk->start;
  return own ? allocation->physical : allocation->extent->chunk->physical;
}

static CUresult export_allocation(const struct gsim_allocation *allocation, struct ticket *ticket) {
  uint64_t start;
  struct gsim_physical *pages = pages_of(allocation, &start);
  memcpy(ticket->magic, magic, sizeof magic);
  ticket->pid = getpid();
  ticket->share_file = gsim_share_file(pages);
  ticket->offset = allocation->range.start - start;
  ticket->size = allocation->range.size;
  return ticket->share_file >= 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

DRIVER_API(328, cuIpcGetMemHandle, CUipcMemHandle *, pHandle, CUdeviceptr, dptr) {
  if (!pHandle) return CUDA_ERROR_INVALID_VALUE;
  struct ticket ticket = {.pid = 0};
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_find(dptr);
  CUresult result = allocation && allocation->memory == GSIM_PLAIN ? export_allocation(allocation, &ticket)
                                                                   : CUDA_ERROR_INVALID_VALUE;
  gsim_unlock();
  memset(pHandle, 0, sizeof *pHandle);
  memcpy(pHandle, &ticket, sizeof ticket);
  return result;
}

static struct gsim_physical *open_pages(const struct ticket *ticket) {
  char path[64];
  int device;
  snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)ticket->pid, (long long)ticket->share_file);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  struct gsim_physical *pages = gsim_share_open(file, &device);
  close(file);
  return pages;
}

static CUresult map_pages(CUcontext context, const struct ticket *ticket, CUdeviceptr *address) {
  struct gsim_physical *pages = open_pages(ticket);
  if (!pages) return CUDA_ERROR_MAP_FAILED;
  struct gsim_extent *extent = gsim_addresses_take(pages->size);
  if (!extent || ticket->offset + ticket->size > pages->size) {
    if (extent) gsim_addresses_give(extent);
    gsim_physical_release(pages);
    return CUDA_ERROR_MAP_FAILED;
  }
  gsim_addresses_map(extent->start, pages->size, pages, 0);
  struct gsim_allocation *allocation =
      gsim_allocation_new(GSIM_IPC, extent->start + ticket->offset, ticket->size, context->device);
  allocation->physical = pages;
  allocation->extent = extent;
  allocation->context = context;
  *address = allocation->range.start;
  return CUDA_SUCCESS;
}

static void destroy_owned(struct gsim_owned *owned) {
  gsim_allocation_give_pages(GSIM_CONTAINER(owned, struct gsim_allocation, owned));
}

/* A process cannot open what it exported itself. */
static CUresult open_handle(CUdeviceptr *address, const CUipcMemHandle *handle) {
  struct ticket ticket;
  memcpy(&ticket, handle, sizeof ticket);
  if (!address || memcmp(ticket.magic, magic, sizeof magic) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (ticket.pid == getpid()) return CUDA_ERROR_INVALID_CONTEXT;
  CUcontext context;
  gsim_lock();
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = map_pages(context, &ticket, address);
  if (result == CUDA_SUCCESS) gsim_own(&context->owned, &gsim_allocation_at(*address)->owned, destroy_owned);
  gsim_unlock();
  return result;
}

DRIVER_API(329, cuIpcOpenMemHandle, CUdeviceptr *, pdptr, CUipcMemHandle, handle, unsigned int, Flags) {
  return open_handle(pdptr, &handle);
}

DRIVER_API(567, cuIpcOpenMemHandle_v2, CUdeviceptr *, pdptr, CUipcMemHandle, handle, unsigned int, Flags) {
  return open_handle(pdptr, &handle);
}

DRIVER_API(330, cuIpcCloseMemHandle, CUdeviceptr, dptr) {
  gsim_lock();
  struct gsim_allocation *allocation = gsim_allocation_at(dptr);
  bool imported = allocation && allocation->memory == GSIM_IPC;
  if (imported) gsim_allocation_give_pages(allocation);
  gsim_unlock();
  return imported ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
