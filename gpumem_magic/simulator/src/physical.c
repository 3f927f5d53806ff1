#define _GNU_SOURCE
#include "physical.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "heap.h"
#include "share.h"

static int frame_file = -1;
static uint32_t next_frame = 1;
static uint32_t *free_frames;
static uint32_t free_count, free_capacity;

int gsim_frame_file(void) {
  if (frame_file < 0) frame_file = memfd_create("simulated-gpu-memory", MFD_CLOEXEC);
  return frame_file;
}

static uint32_t take_frame(void) {
  if (gsim_frame_file() < 0) return 0;
  if (free_count > 0) return free_frames[--free_count];
  if (ftruncate(frame_file, (off_t)((next_frame + 1) * GSIM_PAGE)) != 0) return 0;
  return next_frame++;
}

/* The frame's bytes go back to the host at once. */
static void give_frame(uint32_t frame) {
  fallocate(frame_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(frame * GSIM_PAGE), (off_t)GSIM_PAGE);
  if (free_count == free_capacity) {
    uint32_t capacity = free_capacity ? free_capacity * 2 : 256;
    uint32_t *grown = realloc(free_frames, capacity * sizeof *grown);
    if (!grown) return; /* the frame's number is lost, its memory is not */
    free_frames = grown;
    free_capacity = capacity;
  }
  free_frames[free_count++] = frame;
}

static struct gsim_physical *new_physical(struct gsim_device *device, uint64_t size) {
  struct gsim_physical *physical = calloc(1, sizeof *physical);
  if (!physical) abort();
  physical->device = device;
  physical->size = size;
  physical->references = 1;
  physical->file = -1;
  return physical;
}

CUresult gsim_physical_take(struct gsim_device *device, uint64_t size, struct gsim_physical **out) {
  size = gsim_round_up(size, GSIM_PAGE);
  if (device && !gsim_device_take(device, size)) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = new_physical(device, size);
  return CUDA_SUCCESS;
}

struct gsim_physical *gsim_physical_adopt(int file, uint32_t *frames, uint64_t size) {
  struct gsim_physical *physical = new_physical(NULL, size);
  physical->file = file;
  physical->frames = frames;
  return physical;
}

void gsim_physical_retain(struct gsim_physical *physical) { physical->references++; }

static void give_frames(struct gsim_physical *physical) {
  if (physical->file != frame_file) {
    close(physical->file);
    return;
  }
  for (uint64_t page = 0; page < physical->size / GSIM_PAGE; page++)
    if (physical->frames[page]) give_frame(physical->frames[page]);
}

void gsim_physical_release(struct gsim_physical *physical) {
  if (--physical->references > 0) return;
  if (physical->share_id) gsim_share_forget(physical);
  if (physical->frames) give_frames(physical);
  if (physical->device) gsim_device_give(physical->device, physical->size);
  free(physical->frames);
  free(physical);
}

uint32_t gsim_physical_frame(struct gsim_physical *physical, uint64_t page) {
  if (!physical->frames) {
    if (gsim_frame_file() < 0) return 0;
    physical->frames = calloc(physical->size / GSIM_PAGE, sizeof *physical->frames);
    if (!physical->frames) return 0;
    physical->file = frame_file;
  }
  if (!physical->frames[page]) physical->frames[page] = take_frame();
  return physical->frames[page];
}
