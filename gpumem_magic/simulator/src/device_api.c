/* cuDevice*: what devices there are and what they can do. */
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "entry.h"

DRIVER_API(4, cuDeviceGetCount, int *, count) {
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  *count = gsim_device_count;
  return CUDA_SUCCESS;
}

DRIVER_API(3, cuDeviceGet, CUdevice *, device, int, ordinal) {
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  if (!gsim_device_at(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

DRIVER_API(5, cuDeviceGetName, char *, name, int, len, CUdevice, dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!name || len <= 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_device_name(device, name, len);
  return CUDA_SUCCESS;
}

static CUresult get_uuid(CUuuid *uuid, CUdevice dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!uuid) return CUDA_ERROR_INVALID_VALUE;
  gsim_device_uuid(device, (unsigned char *)uuid->bytes);
  return CUDA_SUCCESS;
}

DRIVER_API(482, cuDeviceGetUuid, CUuuid *, uuid, CUdevice, dev) { return get_uuid(uuid, dev); }

DRIVER_API(647, cuDeviceGetUuid_v2, CUuuid *, uuid, CUdevice, dev) { return get_uuid(uuid, dev); }

DRIVER_API(259, cuDeviceTotalMem_v2, size_t *, bytes, CUdevice, dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!bytes) return CUDA_ERROR_INVALID_VALUE;
  *bytes = device->capacity;
  return CUDA_SUCCESS;
}

DRIVER_API(9, cuDeviceGetAttribute, int *, pi, int, attrib, CUdevice, dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!pi) return CUDA_ERROR_INVALID_VALUE;
  return gsim_device_attribute(device, attrib, pi);
}

DRIVER_API(6, cuDeviceComputeCapability, int *, major, int *, minor, CUdevice, dev) {
  if (!gsim_device_at(dev)) return CUDA_ERROR_INVALID_DEVICE;
  if (!major || !minor) return CUDA_ERROR_INVALID_VALUE;
  *major = 9;
  *minor = 0;
  return CUDA_SUCCESS;
}

DRIVER_API(332, cuDeviceGetPCIBusId, char *, pciBusId, int, len, CUdevice, dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!pciBusId || len < 13) return CUDA_ERROR_INVALID_VALUE;
  snprintf(pciBusId, (size_t)len, "0000:%02X:00.0", gsim_device_bus(device));
  return CUDA_SUCCESS;
}

DRIVER_API(331, cuDeviceGetByPCIBusId, CUdevice *, dev, const char *, pciBusId) {
  unsigned domain, bus, slot;
  if (!dev || !pciBusId) return CUDA_ERROR_INVALID_VALUE;
  if (sscanf(pciBusId, "%x:%x:%x", &domain, &bus, &slot) != 3) return CUDA_ERROR_INVALID_VALUE;
  for (int i = 0; i < gsim_device_count; i++) {
    if (gsim_device_bus(&gsim_devices[i]) != bus) continue;
    *dev = i;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

/* Every device reaches every other one. */
DRIVER_API(312, cuDeviceCanAccessPeer, int *, canAccessPeer, CUdevice, dev, CUdevice, peerDev) {
  if (!gsim_device_at(dev) || !gsim_device_at(peerDev)) return CUDA_ERROR_INVALID_DEVICE;
  if (!canAccessPeer) return CUDA_ERROR_INVALID_VALUE;
  *canAccessPeer = dev != peerDev;
  return CUDA_SUCCESS;
}

enum { P2P_ACCESS_SUPPORTED = 2 };

DRIVER_API(454, cuDeviceGetP2PAttribute, int *, value, int, attrib, CUdevice, srcDevice, CUdevice, dstDevice) {
  if (!gsim_device_at(srcDevice) || !gsim_device_at(dstDevice) || srcDevice == dstDevice)
    return CUDA_ERROR_INVALID_DEVICE;
  if (!value || attrib < 1) return CUDA_ERROR_INVALID_VALUE;
  *value = attrib == P2P_ACCESS_SUPPORTED;
  return CUDA_SUCCESS;
}

DRIVER_API(644, cuDeviceGetExecAffinitySupport, int *, pi, int, type, CUdevice, dev) {
  if (!gsim_device_at(dev)) return CUDA_ERROR_INVALID_DEVICE;
  if (!pi) return CUDA_ERROR_INVALID_VALUE;
  *pi = 0;
  return CUDA_SUCCESS;
}
