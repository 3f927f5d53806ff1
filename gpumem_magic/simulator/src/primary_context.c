/* The context that a device shares among all that ask for it, counted. */
#include "callbacks.h"
#include "context.h"
#include "entry.h"
#include "lock.h"

DRIVER_API(386, cuDevicePrimaryCtxRetain, CUcontext *, pctx, CUdevice, dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!pctx) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_SUCCESS;
  gsim_lock();
  bool fresh = !device->primary || device->primary->life == GSIM_DEAD;
  if (fresh) result = gsim_context_start(device, device->primary_flags, &device->primary);
  if (result == CUDA_SUCCESS) {
    device->primary->is_primary = true;
    device->primary_references++;
    *pctx = device->primary;
  }
  gsim_unlock();
  if (fresh && result == CUDA_SUCCESS) gsim_dispatch_resource(CUPTI_CONTEXT_CREATED, *pctx, NULL, NULL);
  return result;
}

/* Marks the primary context as dying and returns it, unless it is not alive.
 * Needs the lock. */
static CUcontext condemn(struct gsim_device *device) {
  if (!device->primary || device->primary->life != GSIM_ALIVE) return NULL;
  device->primary->life = GSIM_DYING;
  return device->primary;
}

/* The last release destroys the context. Stream-ordered memory outlives it. */
static CUresult release(CUdevice dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  CUcontext last = NULL;
  gsim_lock();
  bool held = device->primary_references > 0;
  if (held && --device->primary_references == 0) last = condemn(device);
  gsim_unlock();
  if (last) gsim_context_finish(last);
  return held ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* A reset destroys it whoever holds it; references stay to be released.
 * Stream-ordered memory outlives a reset too. */
static CUresult reset(CUdevice dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  CUcontext context = condemn(device);
  gsim_unlock();
  if (context) gsim_context_finish(context);
  return CUDA_SUCCESS;
}

DRIVER_API(387, cuDevicePrimaryCtxRelease, CUdevice, dev) { return release(dev); }
DRIVER_API(544, cuDevicePrimaryCtxRelease_v2, CUdevice, dev) { return release(dev); }
DRIVER_API(389, cuDevicePrimaryCtxReset, CUdevice, dev) { return reset(dev); }
DRIVER_API(545, cuDevicePrimaryCtxReset_v2, CUdevice, dev) { return reset(dev); }

static CUresult set_flags(CUdevice dev, unsigned flags) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  device->primary_flags = flags;
  if (device->primary) device->primary->flags = flags;
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(388, cuDevicePrimaryCtxSetFlags, CUdevice, dev, unsigned int, flags) { return set_flags(dev, flags); }

DRIVER_API(546, cuDevicePrimaryCtxSetFlags_v2, CUdevice, dev, unsigned int, flags) { return set_flags(dev, flags); }

DRIVER_API(392, cuDevicePrimaryCtxGetState, CUdevice, dev, unsigned int *, flags, int *, active) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!flags || !active) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  *flags = device->primary_flags;
  *active = device->primary && device->primary->life == GSIM_ALIVE;
  gsim_unlock();
  return CUDA_SUCCESS;
}
