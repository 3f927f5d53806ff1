#include "callbacks.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "lock.h"

#define WORDS (CUPTI_CBID_LIMIT / 64)

/* A subscriber's slot outlives it: a callback in flight on another thread may
 * still look at it after it was given up. */
struct subscriber {
  _Atomic uint64_t token; /* 0 while the slot is free */
  gsim_callback callback;
  void *userdata;
  bool allows_others;
  atomic_uint in_flight; /* callbacks running or about to run */
  _Atomic uint64_t enabled[CUPTI_DOMAIN_COUNT][WORDS];
};

static struct subscriber subscribers[GSIM_SUBSCRIBERS];
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t next_token = 1;
static atomic_uint next_correlation = 1;

/* Depth of callbacks on this thread, and to whom: calls made from inside a
 * callback are not reported, and unsubscribing from inside one must not wait
 * for itself. */
static _Thread_local unsigned depth;
static _Thread_local unsigned depth_of[GSIM_SUBSCRIBERS];

static bool is_enabled(const struct subscriber *s, int domain, uint32_t cbid) {
  return atomic_load_explicit(&s->enabled[domain][cbid / 64], memory_order_relaxed) >> (cbid % 64) & 1;
}

/* Announces a callback to the slot; false when nobody wants it. The announcement
 * comes before the look at the token, so that unsubscribing sees either the
 * announcement or is seen. */
static bool enter_slot(struct subscriber *s, int domain, uint32_t cbid) {
  if (!is_enabled(s, domain, cbid)) return false;
  atomic_fetch_add(&s->in_flight, 1);
  if (atomic_load(&s->token) != 0) return true;
  atomic_fetch_sub(&s->in_flight, 1);
  return false;
}

static void run(int slot, int domain, uint32_t cbid, const void *data) {
  depth++;
  depth_of[slot]++;
  subscribers[slot].callback(subscribers[slot].userdata, domain, cbid, data);
  depth_of[slot]--;
  depth--;
}

static void tell_slot(struct gsim_call *call, int slot, uint32_t site) {
  CUcontext context = gsim_current_context();
  struct gsim_callback_data data = {
      .site = site,
      .function_name = call->entry->name,
      .function_params = call->params,
      .function_return_value = &call->result,
      .context = context,
      .context_uid = gsim_context_uid(context),
      .correlation_data = &call->correlation_data[slot],
      .correlation_id = call->correlation_id,
  };
  run(slot, CUPTI_DOMAIN_DRIVER, call->entry->cbid, &data);
}

void gsim_dispatch_enter(struct gsim_call *call) {
  if (depth != 0) return;
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) {
    struct subscriber *s = &subscribers[slot];
    if (!enter_slot(s, CUPTI_DOMAIN_DRIVER, call->entry->cbid)) continue;
    if (call->told == 0) call->correlation_id = atomic_fetch_add(&next_correlation, 1);
    call->told |= 1u << slot;
    call->correlation_data[slot] = 0;
    tell_slot(call, slot, 0);
    atomic_fetch_sub(&s->in_flight, 1);
  }
}

void gsim_dispatch_exit(struct gsim_call *call) {
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) {
    struct subscriber *s = &subscribers[slot];
    if (!(call->told >> slot & 1)) continue;
    if (!enter_slot(s, CUPTI_DOMAIN_DRIVER, call->entry->cbid)) continue;
    tell_slot(call, slot, 1);
    atomic_fetch_sub(&s->in_flight, 1);
  }
}

void gsim_dispatch_resource(uint32_t cbid, CUcontext context, void *handle, const void *descriptor) {
  if (!(atomic_load(&gsim_attention) & GSIM_SUBSCRIBED) || depth != 0) return;
  struct gsim_resource_data data = {context, handle, descriptor};
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) {
    struct subscriber *s = &subscribers[slot];
    if (!enter_slot(s, CUPTI_DOMAIN_RESOURCE, cbid)) continue;
    run(slot, CUPTI_DOMAIN_RESOURCE, cbid, &data);
    atomic_fetch_sub(&s->in_flight, 1);
  }
}

static struct subscriber *find(uint64_t token) {
  if (token == 0) return NULL;
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++)
    if (atomic_load(&subscribers[slot].token) == token) return &subscribers[slot];
  return NULL;
}

/* Calls take the slow way only while somebody has a callback enabled. */
static void update_attention(void) {
  uint64_t any = 0;
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) {
    if (atomic_load(&subscribers[slot].token) == 0) continue;
    for (int domain = 0; domain < CUPTI_DOMAIN_COUNT; domain++)
      for (int word = 0; word < WORDS; word++) any |= atomic_load(&subscribers[slot].enabled[domain][word]);
  }
  if (any)
    atomic_fetch_or(&gsim_attention, GSIM_SUBSCRIBED);
  else
    atomic_fetch_and(&gsim_attention, ~(unsigned)GSIM_SUBSCRIBED);
}

static void clear_slot(struct subscriber *s) {
  atomic_store(&s->token, 0);
  memset(s->enabled, 0, sizeof s->enabled);
}

/* The slot a newcomer may have, or NULL: every subscriber, the newcomer too,
 * must allow others. */
static struct subscriber *slot_for(bool allow_others) {
  struct subscriber *vacant = NULL;
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) {
    struct subscriber *s = &subscribers[slot];
    if (atomic_load(&s->token) != 0) {
      if (!allow_others || !s->allows_others) return NULL;
    } else if (!vacant && atomic_load(&s->in_flight) == 0) {
      vacant = s;
    }
  }
  return vacant;
}

int gsim_subscribe(uint64_t *token, gsim_callback callback, void *userdata, bool allow_others) {
  if (!token || !callback) return CUPTI_ERROR_INVALID_PARAMETER;
  pthread_mutex_lock(&registry_lock);
  struct subscriber *s = slot_for(allow_others);
  if (s) {
    s->callback = callback;
    s->userdata = userdata;
    s->allows_others = allow_others;
    *token = next_token++;
    atomic_store(&s->token, *token);
  }
  pthread_mutex_unlock(&registry_lock);
  return s ? CUPTI_SUCCESS : CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
}

int gsim_unsubscribe(uint64_t token) {
  pthread_mutex_lock(&registry_lock);
  struct subscriber *s = find(token);
  if (s) {
    clear_slot(s);
    update_attention();
  }
  pthread_mutex_unlock(&registry_lock);
  if (!s) return CUPTI_ERROR_INVALID_PARAMETER;
  while (atomic_load(&s->in_flight) > depth_of[s - subscribers]) sched_yield();
  return CUPTI_SUCCESS;
}

void gsim_forget_subscribers(void) {
  pthread_mutex_lock(&registry_lock);
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) clear_slot(&subscribers[slot]);
  update_attention();
  pthread_mutex_unlock(&registry_lock);
}

static void set_enabled(struct subscriber *s, bool enable, int domain, uint32_t cbid) {
  uint64_t bit = 1ull << (cbid % 64);
  if (enable)
    atomic_fetch_or(&s->enabled[domain][cbid / 64], bit);
  else
    atomic_fetch_and(&s->enabled[domain][cbid / 64], ~bit);
}

static bool names_a_callback(int domain, uint32_t cbid) {
  return domain > 0 && domain < CUPTI_DOMAIN_COUNT && cbid > 0 && cbid < CUPTI_CBID_LIMIT;
}

int gsim_enable_callback(uint64_t token, bool enable, int domain, uint32_t cbid) {
  if (!names_a_callback(domain, cbid)) return CUPTI_ERROR_INVALID_PARAMETER;
  pthread_mutex_lock(&registry_lock);
  struct subscriber *s = find(token);
  if (s) {
    set_enabled(s, enable, domain, cbid);
    update_attention();
  }
  pthread_mutex_unlock(&registry_lock);
  return s ? CUPTI_SUCCESS : CUPTI_ERROR_INVALID_PARAMETER;
}

int gsim_enable_domain(uint64_t token, bool enable, int domain) {
  if (!names_a_callback(domain, 1)) return CUPTI_ERROR_INVALID_PARAMETER;
  pthread_mutex_lock(&registry_lock);
  struct subscriber *s = find(token);
  if (s) {
    for (uint32_t cbid = 1; cbid < CUPTI_CBID_LIMIT; cbid++) set_enabled(s, enable, domain, cbid);
    update_attention();
  }
  pthread_mutex_unlock(&registry_lock);
  return s ? CUPTI_SUCCESS : CUPTI_ERROR_INVALID_PARAMETER;
}

int gsim_callback_state(uint64_t token, int domain, uint32_t cbid, uint32_t *enabled) {
  struct subscriber *s = find(token);
  if (!s || !enabled || !names_a_callback(domain, cbid)) return CUPTI_ERROR_INVALID_PARAMETER;
  *enabled = is_enabled(s, domain, cbid);
  return CUPTI_SUCCESS;
}

const char *gsim_callback_name(uint32_t cbid) {
  for (struct gsim_entry **e = __start_gsim_entries; e < __stop_gsim_entries; e++)
    if ((*e)->cbid == cbid) return (*e)->name;
  return NULL;
}

int gsim_context_ids(CUcontext context, uint32_t *device, uint32_t *uid) {
  gsim_lock();
  bool known = gsim_check_context(context) == CUDA_SUCCESS;
  if (known && device) *device = (uint32_t)context->device->ordinal;
  if (known && uid) *uid = context->uid;
  gsim_unlock();
  return known ? CUPTI_SUCCESS : CUPTI_ERROR_INVALID_CONTEXT;
}

/* The child has one thread, and it is inside no callback of another. */
void gsim_callbacks_after_fork(void) {
  pthread_mutex_init(&registry_lock, NULL);
  for (int slot = 0; slot < GSIM_SUBSCRIBERS; slot++) atomic_store(&subscribers[slot].in_flight, depth_of[slot]);
}
