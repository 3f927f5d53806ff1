/* cuMemPool* and the pools that a device or a location has by default. */
#include "entry.h"
#include "lock.h"
#include "pool.h"

enum pool_attribute {
  POOL_REUSE_FIRST = 1,
  POOL_REUSE_LAST = 3,
  POOL_RELEASE_THRESHOLD = 4,
  POOL_RESERVED_CURRENT = 5,
  POOL_RESERVED_HIGH = 6,
  POOL_USED_CURRENT = 7,
  POOL_USED_HIGH = 8,
  POOL_ALLOCATION_TYPE = 9,
  POOL_EXPORT_HANDLE_TYPES = 10,
  POOL_LOCATION_ID = 11,
  POOL_LOCATION_TYPE = 12,
  POOL_MAX_SIZE = 13,
};

static bool is_usable(CUmemoryPool pool) { return gsim_handle_is(pool, GSIM_KIND_POOL) && !pool->is_destroyed; }

/* A pool needs a device that exists, or the host. */
static bool are_valid(const CUmemPoolProps *props) {
  bool type = props->allocType == CU_ALLOCATION_PINNED || props->allocType == CU_ALLOCATION_MANAGED;
  bool handles = (props->handleTypes & ~CU_HANDLE_POSIX_FD) == 0;
  bool device = props->location.type != CU_LOCATION_DEVICE || gsim_device_at(props->location.id);
  bool pinned_nowhere = props->allocType == CU_ALLOCATION_PINNED && props->location.type == CU_LOCATION_NONE;
  return type && handles && device && !pinned_nowhere;
}

DRIVER_API(607, cuMemPoolCreate, CUmemoryPool *, pool, const CUmemPoolProps *, poolProps) {
  if (!pool || !poolProps || !are_valid(poolProps)) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  *pool = gsim_pool_new(poolProps);
  gsim_unlock();
  return CUDA_SUCCESS;
}

static bool is_default(CUmemoryPool pool) { return pool->device && pool->device->default_pool == pool; }

DRIVER_API(608, cuMemPoolDestroy, CUmemoryPool, pool) {
  gsim_lock();
  bool destroyable = is_usable(pool) && !is_default(pool);
  if (destroyable) gsim_pool_destroy(pool);
  gsim_unlock();
  return destroyable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(602, cuMemPoolTrimTo, CUmemoryPool, pool, size_t, minBytesToKeep) {
  gsim_lock();
  bool usable = is_usable(pool);
  if (usable) gsim_pool_trim(pool, minBytesToKeep);
  gsim_unlock();
  return usable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Current values cannot be set; high-water marks can only be reset to zero. */
static CUresult set_attribute(CUmemoryPool pool, int attribute, const void *value) {
  if (attribute >= POOL_REUSE_FIRST && attribute <= POOL_REUSE_LAST) {
    pool->reuse_policy[attribute - POOL_REUSE_FIRST] = *(const int *)value;
    return CUDA_SUCCESS;
  }
  uint64_t wanted = *(const uint64_t *)value;
  if (attribute == POOL_RELEASE_THRESHOLD)
    pool->release_threshold = wanted;
  else if (attribute == POOL_RESERVED_HIGH && wanted == 0)
    pool->reserved_high = pool->heap.reserved;
  else if (attribute == POOL_USED_HIGH && wanted == 0)
    pool->used_high = pool->used;
  else
    return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

static CUresult get_attribute(CUmemoryPool pool, int attribute, void *value) {
  int *number = value;
  uint64_t *bytes = value;
  switch (attribute) {
    case POOL_RELEASE_THRESHOLD:
      *bytes = pool->release_threshold;
      return CUDA_SUCCESS;
    case POOL_RESERVED_CURRENT:
      *bytes = pool->heap.reserved;
      return CUDA_SUCCESS;
    case POOL_RESERVED_HIGH:
      *bytes = pool->reserved_high;
      return CUDA_SUCCESS;
    case POOL_USED_CURRENT:
      *bytes = pool->used;
      return CUDA_SUCCESS;
    case POOL_USED_HIGH:
      *bytes = pool->used_high;
      return CUDA_SUCCESS;
    case POOL_ALLOCATION_TYPE:
      *number = pool->allocation_type;
      return CUDA_SUCCESS;
    case POOL_EXPORT_HANDLE_TYPES:
      *number = pool->handle_types;
      return CUDA_SUCCESS;
    case POOL_LOCATION_ID:
      *number = pool->location.id;
      return CUDA_SUCCESS;
    case POOL_LOCATION_TYPE:
      *number = pool->location.type;
      return CUDA_SUCCESS;
    case POOL_MAX_SIZE:
      *bytes = pool->max_size;
      return CUDA_SUCCESS;
    default:
      if (attribute < POOL_REUSE_FIRST || attribute > POOL_REUSE_LAST) return CUDA_ERROR_INVALID_VALUE;
      *number = pool->reuse_policy[attribute - POOL_REUSE_FIRST];
      return CUDA_SUCCESS;
  }
}

DRIVER_API(603, cuMemPoolSetAttribute, CUmemoryPool, pool, int, attr, void *, value) {
  if (!value) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  if (is_usable(pool)) result = set_attribute(pool, attr, value);
  gsim_unlock();
  return result;
}

DRIVER_API(604, cuMemPoolGetAttribute, CUmemoryPool, pool, int, attr, void *, value) {
  if (!value) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  if (is_usable(pool)) result = get_attribute(pool, attr, value);
  gsim_unlock();
  return result;
}

static CUresult grant(CUmemoryPool pool, const CUmemAccessDesc *access) {
  if (access->location.type != CU_LOCATION_DEVICE) return pool->device ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  if (!gsim_device_at(access->location.id)) return CUDA_ERROR_INVALID_DEVICE;
  uint32_t bit = 1u << access->location.id;
  bool own = pool->device && pool->device->ordinal == access->location.id;
  if (own && access->flags != CU_ACCESS_READWRITE) return CUDA_ERROR_INVALID_VALUE;
  pool->read_only_from &= ~bit;
  pool->writable_from &= ~bit;
  if (access->flags == CU_ACCESS_READ) pool->read_only_from |= bit;
  if (access->flags == CU_ACCESS_READWRITE) pool->writable_from |= bit;
  return CUDA_SUCCESS;
}

DRIVER_API(605, cuMemPoolSetAccess, CUmemoryPool, pool, const CUmemAccessDesc *, map, size_t, count) {
  if (!map && count > 0) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  CUresult result = is_usable(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++) result = grant(pool, &map[i]);
  gsim_unlock();
  return result;
}

DRIVER_API(617, cuMemPoolGetAccess, int *, flags, CUmemoryPool, memPool, CUmemLocation *, location) {
  if (!flags || !location) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  bool usable = is_usable(memPool);
  uint32_t bit = location->type == CU_LOCATION_DEVICE ? 1u << (location->id & 31) : 0;
  if (usable) {
    *flags = memPool->writable_from & bit    ? CU_ACCESS_READWRITE
             : memPool->read_only_from & bit ? CU_ACCESS_READ
                                             : CU_ACCESS_NONE;
    if (!bit && memPool->host_visible) *flags = CU_ACCESS_READWRITE;
  }
  gsim_unlock();
  return usable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult get_pool(CUmemoryPool *out, CUdevice dev, CUmemoryPool (*which)(struct gsim_device *)) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  gsim_lock();
  *out = which(device);
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(606, cuDeviceGetDefaultMemPool, CUmemoryPool *, pool_out, CUdevice, dev) {
  return get_pool(pool_out, dev, gsim_default_pool);
}

DRIVER_API(610, cuDeviceGetMemPool, CUmemoryPool *, pool, CUdevice, dev) {
  return get_pool(pool, dev, gsim_current_pool);
}

static CUresult set_pool(CUdevice dev, CUmemoryPool pool) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  bool fits = is_usable(pool) && pool->device == device;
  if (fits) device->current_pool = pool;
  gsim_unlock();
  return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(609, cuDeviceSetMemPool, CUdevice, dev, CUmemoryPool, pool) { return set_pool(dev, pool); }

/* Pools by location: a device's own; one of the host, for pinned memory; one of
 * managed memory. The latter two are made when first asked for. */
static CUmemoryPool pool_of_location(const CUmemLocation *location, int type) {
  static CUmemoryPool host_pools[CU_ALLOCATION_MANAGED + 1];
  if (type == CU_ALLOCATION_PINNED && location->type == CU_LOCATION_DEVICE)
    return gsim_default_pool(gsim_device_at(location->id));
  if (!host_pools[type]) {
    CUmemPoolProps props = {.allocType = type, .location = *location};
    host_pools[type] = gsim_pool_new(&props);
  }
  return host_pools[type];
}

static CUresult get_location_pool(CUmemoryPool *out, const CUmemLocation *location, int type, bool current) {
  if (!out || !location || type < CU_ALLOCATION_PINNED || type > CU_ALLOCATION_MANAGED) return CUDA_ERROR_INVALID_VALUE;
  struct gsim_device *device = gsim_device_at(location->id);
  bool on_device = location->type == CU_LOCATION_DEVICE;
  if (on_device && !device) return CUDA_ERROR_INVALID_DEVICE;
  gsim_lock();
  *out = current && on_device && type == CU_ALLOCATION_PINNED ? gsim_current_pool(device)
                                                              : pool_of_location(location, type);
  gsim_unlock();
  return CUDA_SUCCESS;
}

DRIVER_API(801, cuMemGetDefaultMemPool, CUmemoryPool *, pool_out, CUmemLocation *, location, int, type) {
  return get_location_pool(pool_out, location, type, false);
}

DRIVER_API(802, cuMemGetMemPool, CUmemoryPool *, pool, CUmemLocation *, location, int, type) {
  return get_location_pool(pool, location, type, true);
}

DRIVER_API(803, cuMemSetMemPool, CUmemLocation *, location, int, type, CUmemoryPool, pool) {
  if (!location) return CUDA_ERROR_INVALID_VALUE;
  if (location->type != CU_LOCATION_DEVICE || type != CU_ALLOCATION_PINNED) return CUDA_ERROR_NOT_SUPPORTED;
  return set_pool(location->id, pool);
}
