/* libcupti.so: CUPTI's callback API over the driver's own dispatcher.
 *
 * GPUMEM_SIM_CUPTI says which CUPTI this is. Up to 13.1 there is one subscriber
 * to a process; from 13.2 on several may agree to share.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "callbacks.h"
#include "control.h"

#define DEFAULT_MAJOR 13
#define DEFAULT_MINOR 0
#define FIRST_SHARED_MAJOR 13
#define FIRST_SHARED_MINOR 2
#define OTHER_NAME "CUPTI for another subscriber"

typedef struct {
  size_t structSize;
  const char *subscriberName;
  char *oldSubscriberName;
  size_t oldSubscriberSize;
  uint8_t allowMultipleSubscribers;
  uint8_t padding[7];
} subscriber_params;

/* The size of the struct before allowMultipleSubscribers came. */
#define PARAMS_SIZE_13_0 offsetof(subscriber_params, allowMultipleSubscribers)

static void persona(int *major, int *minor) {
  const char *wanted = getenv("GPUMEM_SIM_CUPTI");
  *major = DEFAULT_MAJOR;
  *minor = DEFAULT_MINOR;
  if (wanted) sscanf(wanted, "%d.%d", major, minor);
}

static bool may_share(void) {
  int major, minor;
  persona(&major, &minor);
  return major > FIRST_SHARED_MAJOR || (major == FIRST_SHARED_MAJOR && minor >= FIRST_SHARED_MINOR);
}

static uint64_t token_of(void *subscriber) { return (uint64_t)(uintptr_t)subscriber; }

static int subscribe(void **subscriber, gsim_callback callback, void *userdata, bool share) {
  uint64_t token;
  if (!subscriber) return CUPTI_ERROR_INVALID_PARAMETER;
  int result = gsim_subscribe(&token, callback, userdata, share);
  if (result == CUPTI_SUCCESS) *subscriber = (void *)(uintptr_t)token;
  return result;
}

GSIM_EXPORT int cuptiSubscribe(void **subscriber, gsim_callback callback, void *userdata) {
  return subscribe(subscriber, callback, userdata, false);
}

GSIM_EXPORT int cuptiSubscribe_v2(void **subscriber, gsim_callback callback, void *userdata,
                                  subscriber_params *params) {
  bool share = params && params->structSize > PARAMS_SIZE_13_0 && params->allowMultipleSubscribers && may_share();
  int result = subscribe(subscriber, callback, userdata, share);
  bool wants_name = params && params->oldSubscriberName && params->oldSubscriberSize > 0;
  if (result == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED && wants_name)
    snprintf(params->oldSubscriberName, params->oldSubscriberSize, "%s", OTHER_NAME);
  return result;
}

GSIM_EXPORT int cuptiUnsubscribe(void *subscriber) { return gsim_unsubscribe(token_of(subscriber)); }

GSIM_EXPORT int cuptiEnableCallback(uint32_t enable, void *subscriber, int domain, uint32_t cbid) {
  return gsim_enable_callback(token_of(subscriber), enable != 0, domain, cbid);
}

GSIM_EXPORT int cuptiEnableDomain(uint32_t enable, void *subscriber, int domain) {
  return gsim_enable_domain(token_of(subscriber), enable != 0, domain);
}

GSIM_EXPORT int cuptiEnableAllDomains(uint32_t enable, void *subscriber) {
  int result = CUPTI_SUCCESS;
  for (int domain = 1; domain < CUPTI_DOMAIN_COUNT && result == CUPTI_SUCCESS; domain++)
    result = gsim_enable_domain(token_of(subscriber), enable != 0, domain);
  return result;
}

GSIM_EXPORT int cuptiGetCallbackState(uint32_t *enable, void *subscriber, int domain, uint32_t cbid) {
  return gsim_callback_state(token_of(subscriber), domain, cbid, enable);
}

GSIM_EXPORT int cuptiGetCallbackName(int domain, uint32_t cbid, const char **name) {
  if (!name || domain != CUPTI_DOMAIN_DRIVER) return CUPTI_ERROR_INVALID_PARAMETER;
  *name = gsim_callback_name(cbid);
  return *name ? CUPTI_SUCCESS : CUPTI_ERROR_INVALID_PARAMETER;
}

GSIM_EXPORT int cuptiSupportedDomains(size_t *count, const int **table) {
  static const int domains[] = {CUPTI_DOMAIN_DRIVER, CUPTI_DOMAIN_RESOURCE};
  if (!count || !table) return CUPTI_ERROR_INVALID_PARAMETER;
  *count = sizeof domains / sizeof *domains;
  *table = domains;
  return CUPTI_SUCCESS;
}

/* Process-wide, and silent for those whose subscription it ends. */
GSIM_EXPORT int cuptiFinalize(void) {
  gsim_forget_subscribers();
  return CUPTI_SUCCESS;
}

GSIM_EXPORT int cuptiGetVersion(uint32_t *version) {
  int major, minor;
  if (!version) return CUPTI_ERROR_INVALID_PARAMETER;
  persona(&major, &minor);
  *version = (uint32_t)(major * 10000 + minor * 100);
  return CUPTI_SUCCESS;
}

GSIM_EXPORT int cuptiGetTimestamp(uint64_t *timestamp) {
  if (!timestamp) return CUPTI_ERROR_INVALID_PARAMETER;
  *timestamp = gsim_time_ns();
  return CUPTI_SUCCESS;
}

GSIM_EXPORT int cuptiGetDeviceId(CUcontext context, uint32_t *device) {
  return gsim_context_ids(context, device, NULL);
}

GSIM_EXPORT int cuptiGetContextId(CUcontext context, uint32_t *id) { return gsim_context_ids(context, NULL, id); }

GSIM_EXPORT int cuptiGetResultString(int result, const char **text) {
  if (!text) return CUPTI_ERROR_INVALID_PARAMETER;
  switch (result) {
    case CUPTI_SUCCESS:
      *text = "CUPTI_SUCCESS";
      return CUPTI_SUCCESS;
    case CUPTI_ERROR_INVALID_PARAMETER:
      *text = "CUPTI_ERROR_INVALID_PARAMETER";
      return CUPTI_SUCCESS;
    case CUPTI_ERROR_INVALID_CONTEXT:
      *text = "CUPTI_ERROR_INVALID_CONTEXT";
      return CUPTI_SUCCESS;
    case CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED:
      *text = "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED";
      return CUPTI_SUCCESS;
    default:
      return CUPTI_ERROR_INVALID_PARAMETER;
  }
}
