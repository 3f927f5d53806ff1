/* libnvidia-ml.so.1: what a device is and what it holds, read from the driver
 * library's own state. */
#include <stdio.h>
#include <string.h>

#include "nvml_types.h"

#define MAX_PROCESSES 64
#define IDLE_TEMPERATURE_C 40
#define IDLE_POWER_MILLIWATTS 60000
#define PCI_DEVICE_ID 0x51AD10DEu /* ends in NVIDIA's vendor id */

struct identity {
  char name[64];
  unsigned char uuid[16];
  unsigned bus;
};

static nvml_status identify(nvml_device device, struct identity *identity) {
  nvml_status status = nvml_check(device);
  if (status == NVML_SUCCESS)
    gsim_identity(nvml_ordinal(device), identity->name, sizeof identity->name, identity->uuid, &identity->bus);
  return status;
}

GSIM_EXPORT nvml_status nvmlDeviceGetName(nvml_device device, char *name, unsigned int length) {
  struct identity identity;
  nvml_status status = identify(device, &identity);
  if (status != NVML_SUCCESS) return status;
  if (!name) return NVML_ERROR_INVALID_ARGUMENT;
  if (strlen(identity.name) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(name, identity.name, strlen(identity.name) + 1);
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetUUID(nvml_device device, char *uuid, unsigned int length) {
  struct identity identity;
  nvml_status status = identify(device, &identity);
  if (status != NVML_SUCCESS) return status;
  const unsigned char *b = identity.uuid;
  int written =
      snprintf(uuid, length, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
               b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
  return written < (int)length ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

GSIM_EXPORT nvml_status nvmlDeviceGetPciInfo_v3(nvml_device device, nvml_pci *pci) {
  struct identity identity;
  nvml_status status = identify(device, &identity);
  if (status != NVML_SUCCESS) return status;
  memset(pci, 0, sizeof *pci);
  pci->bus = identity.bus;
  pci->pciDeviceId = PCI_DEVICE_ID;
  snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", identity.bus & 0xff);
  snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", identity.bus & 0xff);
  return NVML_SUCCESS;
}

static nvml_status answer(nvml_device device, unsigned int *out, unsigned int value) {
  nvml_status status = nvml_check(device);
  if (status != NVML_SUCCESS) return status;
  if (!out) return NVML_ERROR_INVALID_ARGUMENT;
  *out = value;
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetIndex(nvml_device device, unsigned int *index) {
  return answer(device, index, (unsigned)nvml_ordinal(device));
}

GSIM_EXPORT nvml_status nvmlDeviceGetMinorNumber(nvml_device device, unsigned int *minor) {
  return answer(device, minor, (unsigned)nvml_ordinal(device));
}

GSIM_EXPORT nvml_status nvmlDeviceGetTemperature(nvml_device device, int sensor, unsigned int *celsius) {
  if (sensor != 0) return NVML_ERROR_INVALID_ARGUMENT;
  return answer(device, celsius, IDLE_TEMPERATURE_C);
}

GSIM_EXPORT nvml_status nvmlDeviceGetPowerUsage(nvml_device device, unsigned int *milliwatts) {
  return answer(device, milliwatts, IDLE_POWER_MILLIWATTS);
}

/* Nothing ever runs on a simulated device. */
GSIM_EXPORT nvml_status nvmlDeviceGetUtilizationRates(nvml_device device, nvml_utilization *utilization) {
  nvml_status status = nvml_check(device);
  if (status == NVML_SUCCESS) *utilization = (nvml_utilization){0, 0};
  return status;
}

static nvml_status usage(nvml_device device, struct gsim_usage *usage) {
  nvml_status status = nvml_check(device);
  if (status == NVML_SUCCESS) gsim_usage(nvml_ordinal(device), usage);
  return status;
}

GSIM_EXPORT nvml_status nvmlDeviceGetMemoryInfo(nvml_device device, nvml_memory *memory) {
  struct gsim_usage now;
  nvml_status status = usage(device, &now);
  if (status != NVML_SUCCESS) return status;
  if (!memory) return NVML_ERROR_INVALID_ARGUMENT;
  memory->total = now.capacity + now.reserved;
  memory->used = now.reserved + now.ours + now.others;
  memory->free = memory->total - memory->used;
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetMemoryInfo_v2(nvml_device device, nvml_memory_v2 *memory) {
  struct gsim_usage now;
  nvml_status status = usage(device, &now);
  if (status != NVML_SUCCESS) return status;
  if (!memory) return NVML_ERROR_INVALID_ARGUMENT;
  if (memory->version != NVML_MEMORY_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  memory->total = now.capacity + now.reserved;
  memory->reserved = now.reserved;
  memory->used = now.ours + now.others;
  memory->free = memory->total - memory->reserved - memory->used;
  return NVML_SUCCESS;
}

/* Asked with a count of 0, the driver answers how many there are. */
GSIM_EXPORT nvml_status nvmlDeviceGetComputeRunningProcesses_v3(nvml_device device, unsigned int *count,
                                                                nvml_process *processes) {
  uint32_t pids[MAX_PROCESSES];
  uint64_t bytes[MAX_PROCESSES];
  nvml_status status = nvml_check(device);
  if (status != NVML_SUCCESS) return status;
  if (!count) return NVML_ERROR_INVALID_ARGUMENT;
  unsigned room = *count;
  *count = (unsigned)gsim_list_processes(nvml_ordinal(device), pids, bytes, MAX_PROCESSES);
  if (*count > room) return NVML_ERROR_INSUFFICIENT_SIZE;
  bool hidden = gsim_process_memory_is_hidden();
  for (unsigned i = 0; i < *count; i++)
    processes[i] = (nvml_process){
        .pid = pids[i],
        .usedGpuMemory = hidden ? NVML_VALUE_NOT_AVAILABLE : bytes[i],
        .gpuInstanceId = ~0u,
        .computeInstanceId = ~0u,
    };
  return NVML_SUCCESS;
}

GSIM_EXPORT nvml_status nvmlDeviceGetComputeRunningProcesses_v2(nvml_device device, unsigned int *count,
                                                                nvml_process *processes) {
  return nvmlDeviceGetComputeRunningProcesses_v3(device, count, processes);
}

GSIM_EXPORT nvml_status nvmlDeviceGetGraphicsRunningProcesses_v3(nvml_device device, unsigned int *count,
                                                                 nvml_process *processes) {
  (void)processes;
  nvml_status status = nvml_check(device);
  if (status != NVML_SUCCESS) return status;
  if (!count) return NVML_ERROR_INVALID_ARGUMENT;
  *count = 0;
  return NVML_SUCCESS;
}
