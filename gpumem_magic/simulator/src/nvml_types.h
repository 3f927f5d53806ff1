/* NVML's types, declared anew from their documented layout. */
#ifndef GSIM_NVML_TYPES_H
#define GSIM_NVML_TYPES_H

#include "control.h"

typedef enum {
  NVML_SUCCESS = 0,
  NVML_ERROR_UNINITIALIZED = 1,
  NVML_ERROR_INVALID_ARGUMENT = 2,
  NVML_ERROR_NOT_SUPPORTED = 3,
  NVML_ERROR_NOT_FOUND = 6,
  NVML_ERROR_INSUFFICIENT_SIZE = 7,
  NVML_ERROR_FUNCTION_NOT_FOUND = 13,
  NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
  NVML_ERROR_UNKNOWN = 999,
} nvml_status;

/* A device handle is never followed: it is the ordinal, plus one. */
typedef struct nvml_device *nvml_device;

/* "Not available", where a number of bytes is expected. */
#define NVML_VALUE_NOT_AVAILABLE (~0ull)

typedef struct {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used; /* the reserved bytes included */
} nvml_memory;

typedef struct {
  unsigned int version;
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;
} nvml_memory_v2;
#define NVML_MEMORY_V2 (sizeof(nvml_memory_v2) | 2u << 24)

typedef struct {
  unsigned int pid;
  unsigned long long usedGpuMemory;
  unsigned int gpuInstanceId;
  unsigned int computeInstanceId;
} nvml_process;

typedef struct {
  unsigned int gpu;
  unsigned int memory;
} nvml_utilization;

typedef struct {
  char busIdLegacy[16];
  unsigned int domain;
  unsigned int bus;
  unsigned int device;
  unsigned int pciDeviceId;
  unsigned int pciSubSystemId;
  char busId[32];
} nvml_pci;

_Static_assert(sizeof(nvml_memory_v2) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(nvml_process) == 24, "nvmlProcessInfo_v2_t");
_Static_assert(sizeof(nvml_pci) == 68, "nvmlPciInfo_t");

/* Whether a call may proceed: nvmlInit came first, and the device exists. */
nvml_status nvml_check(nvml_device device);
bool nvml_is_initialized(void);

static inline int nvml_ordinal(nvml_device device) { return (int)((uintptr_t)device - 1); }

#endif
