/* cuCtx*: contexts that callers make, and which one is current. */
#include "callbacks.h"
#include "context.h"
#include "entry.h"
#include "lock.h"
#include "pool.h"
#include "stream.h"

#define API_VERSION 3020

static CUresult create(CUcontext *out, unsigned flags, CUdevice dev) {
  struct gsim_device *device = gsim_device_at(dev);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context = NULL;
  gsim_lock();
  CUresult result = gsim_context_start(device, flags, &context);
  gsim_unlock();
  if (result != CUDA_SUCCESS) return result;
  gsim_dispatch_resource(CUPTI_CONTEXT_CREATED, context, NULL, NULL);
  *out = context;
  return gsim_push_context(context);
}

DRIVER_API(235, cuCtxCreate_v2, CUcontext *, pctx, unsigned int, flags, CUdevice, dev) {
  return create(pctx, flags, dev);
}

DRIVER_API(645, cuCtxCreate_v3, CUcontext *, pctx, void *, paramsArray, int, numParams, unsigned int, flags, CUdevice,
           dev) {
  if (numParams != 0) return CUDA_ERROR_NOT_SUPPORTED;
  return create(pctx, flags, dev);
}

DRIVER_API(757, cuCtxCreate_v4, CUcontext *, pctx, void *, ctxCreateParams, unsigned int, flags, CUdevice, dev) {
  return create(pctx, flags, dev);
}

DRIVER_API(322, cuCtxDestroy_v2, CUcontext, ctx) {
  gsim_lock();
  CUresult result = gsim_check_context(ctx);
  if (result == CUDA_SUCCESS && (ctx->is_primary || ctx->life != GSIM_ALIVE)) result = CUDA_ERROR_INVALID_CONTEXT;
  if (result == CUDA_SUCCESS) ctx->life = GSIM_DYING;
  gsim_unlock();
  if (result != CUDA_SUCCESS) return result;
  gsim_context_finish(ctx);
  if (gsim_current_context() == ctx) gsim_set_context(NULL);
  return CUDA_SUCCESS;
}

static CUresult check(CUcontext context) {
  gsim_lock();
  CUresult result = gsim_check_context(context);
  gsim_unlock();
  return result;
}

/* Even a destroyed context may be made current; using it then fails. */
static CUresult check_handle(CUcontext context) {
  CUresult result = check(context);
  return result == CUDA_ERROR_CONTEXT_IS_DESTROYED ? CUDA_SUCCESS : result;
}

DRIVER_API(323, cuCtxPushCurrent_v2, CUcontext, ctx) {
  if (!ctx) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = check_handle(ctx);
  return result == CUDA_SUCCESS ? gsim_push_context(ctx) : result;
}

DRIVER_API(324, cuCtxPopCurrent_v2, CUcontext *, pctx) {
  CUcontext context;
  CUresult result = gsim_pop_context(&context);
  if (result == CUDA_SUCCESS && pctx) *pctx = context;
  return result;
}

DRIVER_API(303, cuCtxSetCurrent, CUcontext, ctx) {
  CUresult result = ctx ? check_handle(ctx) : CUDA_SUCCESS;
  if (result == CUDA_SUCCESS) gsim_set_context(ctx);
  return result;
}

DRIVER_API(304, cuCtxGetCurrent, CUcontext *, pctx) {
  if (!pctx) return CUDA_ERROR_INVALID_VALUE;
  *pctx = gsim_current_context();
  return CUDA_SUCCESS;
}

DRIVER_API(16, cuCtxGetDevice, CUdevice *, device) {
  CUcontext context = gsim_current_context(); /* answers for a destroyed one too */
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  *device = context->device->ordinal;
  return CUDA_SUCCESS;
}

/* The context that NULL means in functions that take one: the current one. */
static CUresult given_or_current(CUcontext given, CUcontext *context) {
  if (!given) return gsim_require_context(context);
  *context = given;
  return check(given);
}

DRIVER_API(795, cuCtxGetDevice_v2, CUdevice *, device, CUcontext, ctx) {
  CUcontext context;
  CUresult result = given_or_current(ctx, &context);
  if (result == CUDA_SUCCESS) *device = context->device->ordinal;
  return result;
}

DRIVER_API(695, cuCtxGetId, CUcontext, ctx, unsigned long long *, ctxId) {
  CUcontext context;
  CUresult result = given_or_current(ctx, &context);
  if (!ctxId) return CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) *ctxId = context->uid;
  return result;
}

static CUresult synchronize(CUcontext context) {
  gsim_lock();
  CUresult result = gsim_capture_forbid_context_wait(context);
  if (result == CUDA_SUCCESS) gsim_pools_synchronize(context->device);
  gsim_unlock();
  return result;
}

DRIVER_API_VOID(17, cuCtxSynchronize) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  return result == CUDA_SUCCESS ? synchronize(context) : result;
}

DRIVER_API(800, cuCtxSynchronize_v2, CUcontext, ctx) {
  CUcontext context;
  CUresult result = given_or_current(ctx, &context);
  return result == CUDA_SUCCESS ? synchronize(context) : result;
}

DRIVER_API(391, cuCtxGetFlags, unsigned int *, flags) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (!flags) return CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) *flags = context->flags;
  return result;
}

DRIVER_API(705, cuCtxSetFlags, unsigned int, flags) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) context->flags = flags;
  return result;
}

DRIVER_API(296, cuCtxGetApiVersion, CUcontext, ctx, unsigned int *, version) {
  CUcontext context;
  CUresult result = given_or_current(ctx, &context);
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) *version = API_VERSION;
  return result;
}

DRIVER_API(137, cuCtxGetLimit, size_t *, pvalue, int, limit) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  if (!pvalue) return CUDA_ERROR_INVALID_VALUE;
  if (limit < 0 || limit >= GSIM_LIMITS) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  *pvalue = context->limits[limit];
  return CUDA_SUCCESS;
}

DRIVER_API(136, cuCtxSetLimit, int, limit, size_t, value) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  if (limit < 0 || limit >= GSIM_LIMITS) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  context->limits[limit] = value;
  return CUDA_SUCCESS;
}

DRIVER_API(299, cuCtxGetCacheConfig, int *, pconfig) {
  if (!pconfig) return CUDA_ERROR_INVALID_VALUE;
  *pconfig = 0;
  return CUDA_SUCCESS;
}

DRIVER_API(300, cuCtxSetCacheConfig, int, config) { return CUDA_SUCCESS; }

#define LEAST_PRIORITY 0
#define GREATEST_PRIORITY (-5)

DRIVER_API(370, cuCtxGetStreamPriorityRange, int *, leastPriority, int *, greatestPriority) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result != CUDA_SUCCESS) return result;
  if (leastPriority) *leastPriority = LEAST_PRIORITY;
  if (greatestPriority) *greatestPriority = GREATEST_PRIORITY;
  return CUDA_SUCCESS;
}

static CUresult set_peer(CUcontext peer, bool enable) {
  CUcontext context;
  CUresult result = gsim_require_context(&context);
  if (result == CUDA_SUCCESS) result = check(peer);
  if (result != CUDA_SUCCESS) return result;
  uint32_t bit = 1u << peer->device->ordinal;
  if (enable && peer->device == context->device) return CUDA_ERROR_INVALID_DEVICE;
  if (enable && context->peers & bit) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  if (!enable && !(context->peers & bit)) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  context->peers ^= bit;
  return CUDA_SUCCESS;
}

DRIVER_API(313, cuCtxEnablePeerAccess, CUcontext, peerContext, unsigned int, Flags) {
  return Flags == 0 ? set_peer(peerContext, true) : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API(314, cuCtxDisablePeerAccess, CUcontext, peerContext) { return set_peer(peerContext, false); }
