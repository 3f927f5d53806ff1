/* Other processes on the devices: scripted, never run. A process's memory is a
 * step function of the simulator's time. Callers hold the driver's lock.
 */
#ifndef GSIM_OTHER_PROCESSES_H
#define GSIM_OTHER_PROCESSES_H

#include "device.h"

struct gsim_step {
  uint64_t at_ns;
  uint64_t bytes; /* held from then on */
};

/* Replaces the process's script; takes over the array, ordered by time. */
void gsim_other_process_script(struct gsim_device *device, uint32_t pid, struct gsim_step *steps, int count);

/* What they hold now, never more than this process leaves them. */
uint64_t gsim_other_processes_bytes(const struct gsim_device *device);

/* The processes that hold something now, up to the limit; returns how many. */
int gsim_other_processes_list(const struct gsim_device *device, uint32_t *pids, uint64_t *bytes, int limit);

#endif
