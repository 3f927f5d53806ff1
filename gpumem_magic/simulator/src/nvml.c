/* libnvidia-ml.so.1: start, stop, versions, and finding a device. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "nvml_types.h"

#define DRIVER_VERSION "580.0.0-simulated"
#define NVML_VERSION "13.580.0"

extern CUresult cuDriverGetVersion(int *version);

static atomic_int initialized; /* nvmlInit is counted */

bool nvml_is_initialized(void) { return atomic_load(&initialized) > 0; }

nvml_status nvml_check(nvml_device device) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  bool exists = device && nvml_ordinal(device) < gsim_count_devices();
  return exists ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

GSIM_EXPORT nvml_status nvmlInitWithFlags(unsigned int flags) {
  (void)flags;
  atomic_fetch_add(&initialized, 1);
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlInit(void) { return nvmlInitWithFlags(0); }

GSIM_EXPORT nvml_status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

GSIM_EXPORT nvml_status nvmlShutdown(void) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  atomic_fetch_sub(&initialized, 1);
  return NVML_SUCCESS;
}

GSIM_EXPORT const char *nvmlErrorString(nvml_status status) {
  switch (status) {
    case NVML_SUCCESS:
      return "The operation was successful";
    case NVML_ERROR_UNINITIALIZED:
      return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
      return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
      return "Not Supported";
    case NVML_ERROR_NOT_FOUND:
      return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
      return "Insufficient Size";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
      return "Function Not Found";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
      return "Version mismatch between input parameters";
    default:
      return "Unknown Error";
  }
}

static nvml_status answer(char *buffer, unsigned int length, const char *text) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!buffer) return NVML_ERROR_INVALID_ARGUMENT;
  if (strlen(text) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(buffer, text, strlen(text) + 1);
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlSystemGetDriverVersion(char *version, unsigned int length) {
  return answer(version, length, DRIVER_VERSION);
}

GSIM_EXPORT nvml_status nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
  return answer(version, length, NVML_VERSION);
}

GSIM_EXPORT nvml_status nvmlSystemGetCudaDriverVersion(int *version) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!version) return NVML_ERROR_INVALID_ARGUMENT;
  return cuDriverGetVersion(version) == CUDA_SUCCESS ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

GSIM_EXPORT nvml_status nvmlSystemGetCudaDriverVersion_v2(int *version) {
  return nvmlSystemGetCudaDriverVersion(version);
}

GSIM_EXPORT nvml_status nvmlDeviceGetCount_v2(unsigned int *count) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!count) return NVML_ERROR_INVALID_ARGUMENT;
  *count = (unsigned)gsim_count_devices();
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

static nvml_device handle_of(int ordinal) { return (nvml_device)(uintptr_t)(ordinal + 1); }

GSIM_EXPORT nvml_status nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvml_device *device) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!device || index >= (unsigned)gsim_count_devices()) return NVML_ERROR_INVALID_ARGUMENT;
  *device = handle_of((int)index);
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetHandleByIndex(unsigned int index, nvml_device *device) {
  return nvmlDeviceGetHandleByIndex_v2(index, device);
}

GSIM_EXPORT nvml_status nvmlDeviceGetUUID(nvml_device device, char *uuid, unsigned int length);

/* The device for which the question answers the wanted text. */
static nvml_status find(nvml_status (*ask)(nvml_device, char *, unsigned int), const char *wanted,
                        nvml_device *device) {
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!wanted || !device) return NVML_ERROR_INVALID_ARGUMENT;
  for (int i = 0; i < gsim_count_devices(); i++) {
    char text[64];
    if (ask(handle_of(i), text, sizeof text) != NVML_SUCCESS) continue;
    if (strcasecmp(text, wanted) != 0) continue;
    *device = handle_of(i);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

GSIM_EXPORT nvml_status nvmlDeviceGetHandleByUUID(const char *uuid, nvml_device *device) {
  return find(nvmlDeviceGetUUID, uuid, device);
}

/* Domains are written with four digits or eight; the bus is what counts here. */
GSIM_EXPORT nvml_status nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvml_device *device) {
  unsigned domain, bus, slot;
  if (!nvml_is_initialized()) return NVML_ERROR_UNINITIALIZED;
  if (!bus_id || !device || sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) return NVML_ERROR_INVALID_ARGUMENT;
  for (int i = 0; i < gsim_count_devices(); i++) {
    char name[64];
    unsigned char uuid[16];
    unsigned its_bus;
    if (!gsim_identity(i, name, sizeof name, uuid, &its_bus) || its_bus != bus) continue;
    *device = handle_of(i);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

GSIM_EXPORT nvml_status nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvml_device *device) {
  return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}
