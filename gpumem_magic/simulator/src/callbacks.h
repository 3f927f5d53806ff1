/* Who is told of driver calls and of the birth and death of contexts, streams
 * and modules. libcupti is a thin face on this; it lives in the driver library
 * because the driver is what dispatches.
 */
#ifndef GSIM_CALLBACKS_H
#define GSIM_CALLBACKS_H

#include "entry.h"

enum { CUPTI_DOMAIN_DRIVER = 1, CUPTI_DOMAIN_RUNTIME = 2, CUPTI_DOMAIN_RESOURCE = 3 };
#define CUPTI_DOMAIN_COUNT 7

/* More callback ids than any driver has so far. */
#define CUPTI_CBID_LIMIT 1024

enum {
  CUPTI_CONTEXT_CREATED = 1,
  CUPTI_CONTEXT_DESTROY_STARTING = 2,
  CUPTI_STREAM_CREATED = 3,
  CUPTI_STREAM_DESTROY_STARTING = 4,
  CUPTI_INIT_FINISHED = 5,
  CUPTI_MODULE_LOADED = 6,
  CUPTI_MODULE_UNLOAD_STARTING = 7,
  CUPTI_GRAPH_CREATED = 9,
  CUPTI_GRAPH_DESTROY_STARTING = 10,
  CUPTI_GRAPHEXEC_CREATED = 18,
  CUPTI_GRAPHEXEC_DESTROY_STARTING = 19,
};

typedef void (*gsim_callback)(void *userdata, int domain, uint32_t cbid, const void *data);

/* CUpti_CallbackData. */
struct gsim_callback_data {
  uint32_t site; /* 0 enter, 1 exit */
  const char *function_name;
  const void *function_params;
  void *function_return_value;
  const char *symbol_name;
  CUcontext context;
  uint32_t context_uid;
  uint64_t *correlation_data;
  uint32_t correlation_id;
};
_Static_assert(sizeof(struct gsim_callback_data) == 72, "CUpti_CallbackData");

/* CUpti_ResourceData. */
struct gsim_resource_data {
  CUcontext context;
  void *handle;
  const void *descriptor;
};

/* CUpti_ModuleResourceData, the descriptor of module events. */
struct gsim_module_data {
  uint32_t module_id;
  size_t cubin_size;
  const char *cubin;
};

void gsim_dispatch_enter(struct gsim_call *call);
void gsim_dispatch_exit(struct gsim_call *call);

/* Call without the driver's lock. */
void gsim_dispatch_resource(uint32_t cbid, CUcontext context, void *handle, const void *descriptor);

void gsim_callbacks_after_fork(void);

/* The registry behind libcupti: 0 or a CUptiResult. A subscriber is named by an
 * opaque token that is never reused. */
enum {
  CUPTI_SUCCESS = 0,
  CUPTI_ERROR_INVALID_PARAMETER = 1,
  CUPTI_ERROR_INVALID_CONTEXT = 3,
  CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED = 39,
};

GSIM_EXPORT int gsim_subscribe(uint64_t *token, gsim_callback callback, void *userdata, bool allow_others);
GSIM_EXPORT int gsim_unsubscribe(uint64_t token);
GSIM_EXPORT int gsim_enable_callback(uint64_t token, bool enable, int domain, uint32_t cbid);
GSIM_EXPORT int gsim_enable_domain(uint64_t token, bool enable, int domain);
GSIM_EXPORT int gsim_callback_state(uint64_t token, int domain, uint32_t cbid, uint32_t *enabled);
GSIM_EXPORT void gsim_forget_subscribers(void);
GSIM_EXPORT const char *gsim_callback_name(uint32_t cbid);
GSIM_EXPORT int gsim_context_ids(CUcontext context, uint32_t *device, uint32_t *uid);

#endif
