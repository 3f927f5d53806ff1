#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "other_processes.h"
#include "pool.h"

#define DEFAULT_CAPACITY (16ull << 30)
#define FIRST_PCI_BUS 0x17

struct gsim_device gsim_devices[GSIM_MAX_DEVICES];
int gsim_device_count;

static void set_up(int count, uint64_t capacity) {
  gsim_device_count = count;
  for (int i = 0; i < count; i++) {
    gsim_devices[i].ordinal = i;
    gsim_devices[i].capacity = capacity;
  }
}

__attribute__((constructor)) static void set_up_default(void) { set_up(1, DEFAULT_CAPACITY); }

bool gsim_devices_configure(int count, uint64_t capacity) {
  bool used = !(atomic_load(&gsim_attention) & GSIM_NOT_INITIALIZED);
  if (used) return count == gsim_device_count && capacity == gsim_devices[0].capacity;
  set_up(count, capacity);
  return true;
}

struct gsim_device *gsim_device_at(CUdevice ordinal) {
  return ordinal >= 0 && ordinal < gsim_device_count ? &gsim_devices[ordinal] : NULL;
}

uint64_t gsim_device_free_bytes(struct gsim_device *device) {
  return device->capacity - device->used - gsim_other_processes_bytes(device);
}

bool gsim_device_take(struct gsim_device *device, uint64_t bytes) {
  if (bytes > gsim_device_free_bytes(device)) gsim_pools_trim(device);
  if (bytes > gsim_device_free_bytes(device)) return false;
  device->used += bytes;
  return true;
}

void gsim_device_give(struct gsim_device *device, uint64_t bytes) { device->used -= bytes; }

/* Recognisable, and the same in every process: "SIMGPU", then the ordinal. */
void gsim_device_uuid(const struct gsim_device *device, unsigned char uuid[16]) {
  memcpy(uuid, "SIMGPU\0\0\0\0\0\0\0\0\0", 16);
  uuid[15] = (unsigned char)device->ordinal;
}

void gsim_device_name(const struct gsim_device *device, char *name, int length) {
  snprintf(name, (size_t)length, "Simulated GPU %d", device->ordinal);
}

unsigned gsim_device_bus(const struct gsim_device *device) { return FIRST_PCI_BUS + (unsigned)device->ordinal; }
