#include "clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

static atomic_bool stopped;
static _Atomic uint64_t manual_ns;

static uint64_t host_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t gsim_now_ns(void) { return atomic_load(&stopped) ? atomic_load(&manual_ns) : host_ns(); }

void gsim_clock_stop(void) {
  atomic_store(&manual_ns, gsim_now_ns());
  atomic_store(&stopped, true);
}

void gsim_clock_advance(uint64_t ns) { atomic_fetch_add(&manual_ns, ns); }
