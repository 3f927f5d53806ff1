#define _GNU_SOURCE
#include "address_space.h"

#include <sys/mman.h>

#define WINDOW_SIZE (1ull << 40)
#define WINDOW_PAGES (WINDOW_SIZE / GSIM_PAGE)

/* One entry per page of the window; the array costs only what is used of it. */
struct page {
  struct gsim_physical *physical;
  uint32_t index; /* page within the physical memory */
  bool readable;  /* the host mapping is in place */
};

static struct page pages[WINDOW_PAGES];
static uint64_t window;
static struct gsim_heap addresses = {.granule = GSIM_PAGE};

static bool reserve_window(void) {
  if (window) return true;
  void *base = mmap(NULL, WINDOW_SIZE + GSIM_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return false;
  window = gsim_round_up((uint64_t)(uintptr_t)base, GSIM_PAGE);
  gsim_heap_add_chunk(&addresses, window, WINDOW_SIZE, NULL);
  return true;
}

struct gsim_extent *gsim_addresses_take(uint64_t size) {
  return reserve_window() ? gsim_heap_take(&addresses, size) : NULL;
}

void gsim_addresses_give(struct gsim_extent *extent) { gsim_heap_give(&addresses, extent); }

bool gsim_addresses_contain(uint64_t address) { return window && address >= window && address - window < WINDOW_SIZE; }

static uint64_t page_of(uint64_t address) { return (address - window) / GSIM_PAGE; }

static void *host(uint64_t address) { return (void *)(uintptr_t)address; }

void gsim_addresses_map(uint64_t start, uint64_t size, struct gsim_physical *physical, uint64_t offset) {
  uint64_t first = page_of(start), count = size / GSIM_PAGE;
  for (uint64_t i = 0; i < count; i++) {
    pages[first + i].physical = physical;
    pages[first + i].index = (uint32_t)(offset / GSIM_PAGE + i);
  }
}

void gsim_addresses_unmap(uint64_t start, uint64_t size) {
  uint64_t first = page_of(start), count = size / GSIM_PAGE;
  bool any_readable = false;
  for (uint64_t i = first; i < first + count; i++) {
    any_readable |= pages[i].readable;
    pages[i] = (struct page){0};
  }
  if (any_readable)
    (void)mmap(host(start), size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static bool touch_page(uint64_t page) {
  struct page *p = &pages[page];
  if (p->readable) return true;
  if (!p->physical) return false;
  uint32_t frame = gsim_physical_frame(p->physical, p->index);
  if (!frame) return false;
  void *at = mmap(host(window + page * GSIM_PAGE), GSIM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                  p->physical->file, (off_t)(frame * GSIM_PAGE));
  p->readable = at != MAP_FAILED;
  return p->readable;
}

bool gsim_addresses_touch(uint64_t start, uint64_t size) {
  if (size == 0) return true;
  for (uint64_t page = page_of(start); page <= page_of(start + size - 1); page++)
    if (!touch_page(page)) return false;
  return true;
}

bool gsim_addresses_map_host(uint64_t start, uint64_t size) {
  void *at =
      mmap(host(start), size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (at == MAP_FAILED) return false;
  for (uint64_t i = 0; i < size / GSIM_PAGE; i++) pages[page_of(start) + i].readable = true;
  return true;
}
