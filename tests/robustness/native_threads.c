/* Threads that Python knows nothing of, and the mutex of an allocator that is held across driver calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define KEPT 8
#define MOST_THREADS 16

static int (*mem_alloc)(uint64_t *, size_t);
static int (*mem_free)(uint64_t);
static int (*set_context)(void *);
static void *context;

static pthread_t threads[MOST_THREADS];
static int thread_count;
static atomic_int stopping;
static atomic_ulong allocations, frees, live_bytes, failures;

static void *allocate(void *argument) {
  uint64_t kept[KEPT] = {0};
  size_t sizes[KEPT] = {0};
  uint64_t step = (uint64_t)(uintptr_t)argument;
  if (set_context(context) != 0) atomic_fetch_add(&failures, 1);
  while (!atomic_load(&stopping)) {
    int slot = (int)(step++ % KEPT);
    if (kept[slot] != 0) {
      if (mem_free(kept[slot]) != 0) atomic_fetch_add(&failures, 1);
      atomic_fetch_add(&frees, 1);
      atomic_fetch_sub(&live_bytes, sizes[slot]);
    }
    sizes[slot] = 4096 * (1 + step % 64);
    if (mem_alloc(&kept[slot], sizes[slot]) != 0) atomic_fetch_add(&failures, 1);
    atomic_fetch_add(&allocations, 1);
    atomic_fetch_add(&live_bytes, sizes[slot]);
  }
  return NULL;
}

/* Starts `count` threads that allocate and free in `ctx` until stop_threads(). 0 when all run. */
int start_threads(int count, void *ctx) {
  mem_alloc = (int (*)(uint64_t *, size_t))dlsym(RTLD_DEFAULT, "cuMemAlloc_v2");
  mem_free = (int (*)(uint64_t))dlsym(RTLD_DEFAULT, "cuMemFree_v2");
  set_context = (int (*)(void *))dlsym(RTLD_DEFAULT, "cuCtxSetCurrent");
  context = ctx;
  if (!mem_alloc || !mem_free || !set_context || count > MOST_THREADS) return 1;
  atomic_store(&stopping, 0);
  for (thread_count = 0; thread_count < count; thread_count++) {
    void *number = (void *)(uintptr_t)thread_count;
    if (pthread_create(&threads[thread_count], NULL, allocate, number) != 0) return 1;
  }
  return 0;
}

/* Totals since the library was loaded: allocations, frees, live bytes, failures. */
void totals(uint64_t out[4]) {
  out[0] = atomic_load(&allocations);
  out[1] = atomic_load(&frees);
  out[2] = atomic_load(&live_bytes);
  out[3] = atomic_load(&failures);
}

void stop_threads(void) {
  atomic_store(&stopping, 1);
  for (int i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
  thread_count = 0;
}

/* Called with the GIL held. */
void sleep_milliseconds(unsigned milliseconds) { usleep(milliseconds * 1000); }

static pthread_mutex_t allocator = PTHREAD_MUTEX_INITIALIZER;
static atomic_ulong waits;

/* As torch's caching allocator: the driver is called while the mutex is held. Called without the GIL. */
int cycle_under_mutex(void) {
  uint64_t pointer = 0;
  int status;
  mem_alloc = (int (*)(uint64_t *, size_t))dlsym(RTLD_DEFAULT, "cuMemAlloc_v2");
  mem_free = (int (*)(uint64_t))dlsym(RTLD_DEFAULT, "cuMemFree_v2");
  pthread_mutex_lock(&allocator);
  status = mem_alloc(&pointer, 4096);
  if (status == 0) status = mem_free(pointer);
  pthread_mutex_unlock(&allocator);
  return status;
}

/* As torch.cuda.memory_stats: waits for the mutex. Called with the GIL held. */
unsigned long wait_for_mutex(void) {
  pthread_mutex_lock(&allocator);
  pthread_mutex_unlock(&allocator);
  return atomic_fetch_add(&waits, 1) + 1;
}
