/* The simulated devices and the bytes taken on them.
 *
 * free = capacity - what this process took - what scripted other processes hold.
 * cuMemGetInfo and NVML both read exactly this. Callers hold the driver's lock.
 */
#ifndef GSIM_DEVICE_H
#define GSIM_DEVICE_H

#include "cuda_types.h"

#define GSIM_MAX_DEVICES 8

/* What a context, and a module's image, cost before the first allocation. Real
 * ones vary; these are round numbers that small simulated devices can bear. */
#define GSIM_CONTEXT_BYTES (64ull << 20)
#define GSIM_MODULE_BYTES (4ull << 20)

/* Firmware's share: in NVML's total and v1 used, in nothing that CUDA says. */
#define GSIM_RESERVED_BYTES (256ull << 20)

struct gsim_other_process;

struct gsim_device {
  int ordinal;
  uint64_t capacity;
  uint64_t used; /* by this process */
  struct gsim_other_process *others;
  CUcontext primary; /* NULL until first retained; then the same for ever */
  unsigned primary_references;
  unsigned primary_flags;
  CUmemoryPool default_pool;
  CUmemoryPool current_pool;
  CUmemoryPool pools;      /* every pool on the device, linked */
  uint64_t graph_reserved; /* for memory of graphs; see graph_memory.c */
  uint64_t graph_reserved_high;
  uint64_t graph_live;
};

extern struct gsim_device gsim_devices[GSIM_MAX_DEVICES];
extern int gsim_device_count;

/* NULL for an ordinal that is no device. */
struct gsim_device *gsim_device_at(CUdevice ordinal);

/* Counts the bytes; false when they do not fit, even after the pools have given
 * back what they hold unused. */
bool gsim_device_take(struct gsim_device *device, uint64_t bytes);
void gsim_device_give(struct gsim_device *device, uint64_t bytes);
uint64_t gsim_device_free_bytes(struct gsim_device *device);

/* Refused (false) once cuInit has run with another shape. */
bool gsim_devices_configure(int count, uint64_t capacity);

CUresult gsim_device_attribute(const struct gsim_device *device, int attribute, int *value);
void gsim_device_uuid(const struct gsim_device *device, unsigned char uuid[16]);
void gsim_device_name(const struct gsim_device *device, char *name, int length);

/* The PCI bus number; domain 0, device 0. */
unsigned gsim_device_bus(const struct gsim_device *device);

#endif
