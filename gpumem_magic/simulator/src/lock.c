#include "lock.h"

#include <pthread.h>

#include "callbacks.h"
#include "entry.h"

static pthread_mutex_t driver_lock = PTHREAD_MUTEX_INITIALIZER;

void gsim_lock(void) { pthread_mutex_lock(&driver_lock); }

void gsim_unlock(void) { pthread_mutex_unlock(&driver_lock); }

static void in_child(void) {
  gsim_unlock();
  gsim_callbacks_after_fork();
  if (!(atomic_load(&gsim_attention) & GSIM_NOT_INITIALIZED)) atomic_fetch_or(&gsim_attention, GSIM_FORKED);
}

/* From the moment of loading: a lock must not be inherited held, used or not. */
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(gsim_lock, gsim_unlock, in_child); }
