#define _GNU_SOURCE
#include "share.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"

static const char magic[8] = "GSIMMEM1";

/* What the file begins with; the frame numbers follow. */
struct record {
  char magic[8];
  int64_t pid;
  int64_t frame_file; /* the sharing process's descriptor */
  uint64_t share_id;
  uint64_t size;
  int64_t device;
};

static struct gsim_physical *shared;
static uint64_t next_share_id = 1;

static bool give_frames(struct gsim_physical *physical) {
  for (uint64_t page = 0; page < physical->size / GSIM_PAGE; page++)
    if (!gsim_physical_frame(physical, page)) return false;
  return true;
}

static void remember(struct gsim_physical *physical) {
  if (physical->share_id) return;
  physical->share_id = next_share_id++;
  physical->next_shared = shared;
  shared = physical;
}

void gsim_share_forget(struct gsim_physical *physical) {
  struct gsim_physical **link = &shared;
  while (*link != physical) link = &(*link)->next_shared;
  *link = physical->next_shared;
}

int gsim_share_file(struct gsim_physical *physical) {
  if (!give_frames(physical)) return -1;
  int file = memfd_create("simulated-gpu-share", MFD_CLOEXEC);
  if (file < 0) return -1;
  remember(physical);
  struct record record = {
      .pid = getpid(),
      .frame_file = physical->file,
      .share_id = physical->share_id,
      .size = physical->size,
      .device = physical->device ? physical->device->ordinal : 0,
  };
  memcpy(record.magic, magic, sizeof magic);
  size_t list = physical->size / GSIM_PAGE * sizeof *physical->frames;
  bool written = write(file, &record, sizeof record) == (ssize_t)sizeof record &&
                 write(file, physical->frames, list) == (ssize_t)list;
  if (written) return file;
  close(file);
  return -1;
}

static struct gsim_physical *open_own(const struct record *record) {
  struct gsim_physical *physical = shared;
  while (physical && physical->share_id != record->share_id) physical = physical->next_shared;
  if (physical) gsim_physical_retain(physical);
  return physical;
}

static uint32_t *read_frames(int file, uint64_t count) {
  size_t bytes = count * sizeof(uint32_t);
  uint32_t *frames = malloc(bytes);
  if (frames && pread(file, frames, bytes, sizeof(struct record)) == (ssize_t)bytes) return frames;
  free(frames);
  return NULL;
}

static struct gsim_physical *open_foreign(const struct record *record, int list) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)record->pid, (long long)record->frame_file);
  int file = open(path, O_RDWR | O_CLOEXEC);
  uint32_t *frames = file < 0 ? NULL : read_frames(list, record->size / GSIM_PAGE);
  if (frames) return gsim_physical_adopt(file, frames, record->size);
  if (file >= 0) close(file);
  return NULL;
}

/* A file that somebody hands us may hold anything. */
static bool is_sound(const struct record *record) {
  return memcmp(record->magic, magic, sizeof magic) == 0 && record->size > 0 && record->size % GSIM_PAGE == 0 &&
         record->size <= 1ull << 40;
}

struct gsim_physical *gsim_share_open(int file, int *device) {
  struct record record;
  if (pread(file, &record, sizeof record, 0) != (ssize_t)sizeof record) return NULL;
  if (!is_sound(&record)) return NULL;
  *device = gsim_device_at((int)record.device) ? (int)record.device : 0;
  return record.pid == getpid() ? open_own(&record) : open_foreign(&record, file);
}
