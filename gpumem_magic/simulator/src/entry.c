#include "entry.h"

#include <errno.h>
#include <time.h>

#include "callbacks.h"
#include "lock.h"

atomic_uint gsim_attention = GSIM_NOT_INITIALIZED;
_Thread_local bool gsim_per_thread_default;

/* Sleeping is too coarse below this; then the caller spins. */
#define SHORTEST_SLEEP_MICROSECONDS 200

static void spend(unsigned microseconds) {
  struct timespec until, now;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += (long)(microseconds % 1000000) * 1000;
  until.tv_sec += microseconds / 1000000 + until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  if (microseconds >= SHORTEST_SLEEP_MICROSECONDS) {
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
    return;
  }
  do {
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec < until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec));
}

static void delay(struct gsim_entry *entry) {
  unsigned microseconds = atomic_load(&entry->delay_microseconds);
  if (microseconds == 0) return;
  bool holds_lock = atomic_load(&entry->delay_holds_lock);
  if (holds_lock) gsim_lock();
  spend(microseconds);
  if (holds_lock) gsim_unlock();
}

/* The status of an armed fault whose turn has come, else 0. */
static CUresult take_fault(struct gsim_entry *entry) {
  int status = atomic_load(&entry->fault_status);
  if (status == 0) return CUDA_SUCCESS;
  if (atomic_fetch_sub(&entry->fault_after, 1) > 0) return CUDA_SUCCESS;
  int left = atomic_fetch_sub(&entry->fault_times, 1);
  if (left <= 1) atomic_store(&entry->fault_status, 0);
  return left > 0 ? (CUresult)status : CUDA_SUCCESS;
}

static CUresult refusal(struct gsim_entry *entry, unsigned attention) {
  if ((attention & (GSIM_NOT_INITIALIZED | GSIM_FORKED)) && !entry->works_before_init)
    return CUDA_ERROR_NOT_INITIALIZED;
  return attention & GSIM_FAULT_ARMED ? take_fault(entry) : CUDA_SUCCESS;
}

bool gsim_call_begin(struct gsim_call *call, struct gsim_entry *entry, const void *params) {
  unsigned attention = atomic_load(&gsim_attention);
  call->entry = entry;
  call->params = params;
  call->told = 0;
  call->result = CUDA_SUCCESS;
  if (attention & GSIM_SUBSCRIBED) gsim_dispatch_enter(call);
  if (attention & GSIM_DELAY_ARMED) delay(entry);
  call->result = refusal(entry, attention);
  return call->result == CUDA_SUCCESS;
}

CUresult gsim_call_end(struct gsim_call *call) {
  if (call->told) gsim_dispatch_exit(call);
  return call->result;
}
