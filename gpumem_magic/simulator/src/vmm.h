/* Virtual memory management: physical memory with a handle of its own, mapped
 * into reserved address ranges. Callers hold the driver's lock.
 */
#ifndef GSIM_VMM_H
#define GSIM_VMM_H

#include "allocation.h"

/* What cuMemCreate makes. Mappings keep the bytes, the handle only names them. */
struct gsim_physical_handle {
  struct gsim_handle handle;
  struct gsim_physical *physical;
  CUmemAllocationProp prop;
  unsigned references; /* cuMemCreate, import and retain count; release gives one back */
};

/* The object that a caller's handle names, or NULL. */
struct gsim_physical_handle *gsim_physical_handle_of(CUmemGenericAllocationHandle handle);

/* The reserved range that contains the address, if there is one. */
bool gsim_reservation_of(CUdeviceptr address, CUdeviceptr *start, uint64_t *size);

/* Wraps physical memory, whose reference it takes over. */
CUmemGenericAllocationHandle gsim_physical_handle_new(struct gsim_physical *physical, const CUmemAllocationProp *prop);

#endif
