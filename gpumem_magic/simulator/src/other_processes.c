#include "other_processes.h"

#include <stdlib.h>

#include "clock.h"

struct gsim_other_process {
  struct gsim_other_process *next;
  uint32_t pid;
  int count;
  struct gsim_step *steps;
};

static uint64_t bytes_now(const struct gsim_other_process *process, uint64_t now) {
  uint64_t bytes = 0;
  for (int i = 0; i < process->count && process->steps[i].at_ns <= now; i++) bytes = process->steps[i].bytes;
  return bytes;
}

void gsim_other_process_script(struct gsim_device *device, uint32_t pid, struct gsim_step *steps, int count) {
  struct gsim_other_process *process = device->others;
  while (process && process->pid != pid) process = process->next;
  if (!process) {
    process = calloc(1, sizeof *process);
    if (!process) abort();
    process->pid = pid;
    process->next = device->others;
    device->others = process;
  }
  free(process->steps);
  process->steps = steps;
  process->count = count;
}

uint64_t gsim_other_processes_bytes(const struct gsim_device *device) {
  if (!device->others) return 0;
  uint64_t now = gsim_now_ns(), sum = 0, room = device->capacity - device->used;
  for (struct gsim_other_process *p = device->others; p; p = p->next) sum += bytes_now(p, now);
  return sum < room ? sum : room;
}

int gsim_other_processes_list(const struct gsim_device *device, uint32_t *pids, uint64_t *bytes, int limit) {
  uint64_t now = gsim_now_ns();
  int count = 0;
  for (struct gsim_other_process *p = device->others; p && count < limit; p = p->next) {
    if (bytes_now(p, now) == 0) continue;
    pids[count] = p->pid;
    bytes[count++] = bytes_now(p, now);
  }
  return count;
}
