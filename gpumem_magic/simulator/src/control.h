/* What tests, libcupti and libnvidia-ml may ask of the driver library beyond the
 * driver API. Every function takes the driver's lock itself. Devices are named
 * by ordinal; functions answer false for one that does not exist.
 */
#ifndef GSIM_CONTROL_H
#define GSIM_CONTROL_H

#include "entry.h"

/* Its presence is how a simulated driver is told from a real one. */
extern GSIM_EXPORT const char gsim_is_simulated_driver[];

GSIM_EXPORT bool gsim_configure(int devices, uint64_t capacity);
GSIM_EXPORT int gsim_count_devices(void);

struct gsim_usage {
  uint64_t capacity; /* what CUDA calls total */
  uint64_t reserved; /* on top of it; only NVML knows */
  uint64_t ours;     /* this process */
  uint64_t others;   /* scripted other processes */
};
GSIM_EXPORT bool gsim_usage(int device, struct gsim_usage *usage);

GSIM_EXPORT bool gsim_identity(int device, char *name, int name_length, unsigned char uuid[16], unsigned *bus);

/* Replaces what another process holds over time, counted from now. */
GSIM_EXPORT bool gsim_script_process(int device, uint32_t pid, const double *seconds, const uint64_t *bytes, int steps);

/* This process, where it has a context, and the scripted ones, up to the limit. */
GSIM_EXPORT int gsim_list_processes(int device, uint32_t *pids, uint64_t *bytes, int limit);

/* Whether NVML may tell what each process holds; under WSL or MIG it cannot. */
GSIM_EXPORT void gsim_hide_process_memory(bool hide);
GSIM_EXPORT bool gsim_process_memory_is_hidden(void);

GSIM_EXPORT uint64_t gsim_time_ns(void);
GSIM_EXPORT void gsim_use_manual_clock(void);
GSIM_EXPORT void gsim_advance_clock(double seconds);

/* Apply to every version and stream variant of the function; they return how
 * many functions the name matched. */
GSIM_EXPORT int gsim_fail_next(const char *function, int status, int after, int times);
GSIM_EXPORT int gsim_delay_calls(const char *function, unsigned microseconds, bool hold_lock);

#endif
