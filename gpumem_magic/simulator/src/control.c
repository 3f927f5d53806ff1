#include "control.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "device.h"
#include "lock.h"
#include "other_processes.h"

const char gsim_is_simulated_driver[] = "gpumem_magic simulated driver";

static atomic_bool process_memory_hidden;

bool gsim_configure(int devices, uint64_t capacity) {
  if (devices < 1 || devices > GSIM_MAX_DEVICES) return false;
  gsim_lock();
  bool accepted = gsim_devices_configure(devices, capacity);
  gsim_unlock();
  return accepted;
}

int gsim_count_devices(void) { return gsim_device_count; }

bool gsim_usage(int ordinal, struct gsim_usage *usage) {
  struct gsim_device *device = gsim_device_at(ordinal);
  if (!device) return false;
  gsim_lock();
  usage->capacity = device->capacity;
  usage->reserved = GSIM_RESERVED_BYTES;
  usage->ours = device->used;
  usage->others = gsim_other_processes_bytes(device);
  gsim_unlock();
  return true;
}

bool gsim_identity(int ordinal, char *name, int name_length, unsigned char uuid[16], unsigned *bus) {
  struct gsim_device *device = gsim_device_at(ordinal);
  if (!device) return false;
  gsim_device_name(device, name, name_length);
  gsim_device_uuid(device, uuid);
  *bus = gsim_device_bus(device);
  return true;
}

bool gsim_script_process(int ordinal, uint32_t pid, const double *seconds, const uint64_t *bytes, int count) {
  struct gsim_device *device = gsim_device_at(ordinal);
  struct gsim_step *steps = calloc((size_t)count, sizeof *steps);
  if (!device || !steps) {
    free(steps);
    return false;
  }
  uint64_t now = gsim_now_ns();
  for (int i = 0; i < count; i++) {
    steps[i].at_ns = now + (uint64_t)(seconds[i] * 1e9);
    steps[i].bytes = bytes[i];
  }
  gsim_lock();
  gsim_other_process_script(device, pid, steps, count);
  gsim_unlock();
  return true;
}

int gsim_list_processes(int ordinal, uint32_t *pids, uint64_t *bytes, int limit) {
  struct gsim_device *device = gsim_device_at(ordinal);
  if (!device || limit < 1) return 0;
  int count = 0;
  gsim_lock();
  if (device->used > 0) {
    pids[0] = (uint32_t)getpid();
    bytes[0] = device->used;
    count = 1;
  }
  count += gsim_other_processes_list(device, pids + count, bytes + count, limit - count);
  gsim_unlock();
  return count;
}

void gsim_hide_process_memory(bool hide) { atomic_store(&process_memory_hidden, hide); }

bool gsim_process_memory_is_hidden(void) { return atomic_load(&process_memory_hidden); }

uint64_t gsim_time_ns(void) { return gsim_now_ns(); }

void gsim_use_manual_clock(void) { gsim_clock_stop(); }

void gsim_advance_clock(double seconds) { gsim_clock_advance((uint64_t)(seconds * 1e9)); }

/* Whether a symbol is the named function, give or take "_v2", "_ptsz", "_ptds". */
static bool is_variant(const char *symbol, const char *function) {
  size_t length = strlen(function);
  if (strncmp(symbol, function, length) != 0) return false;
  const char *rest = symbol + length;
  return *rest == '\0' || strncmp(rest, "_pt", 3) == 0 ||
         (strncmp(rest, "_v", 2) == 0 && isdigit((unsigned char)rest[2]));
}

/* Faults and delays are looked for only while one is armed anywhere. */
static void update_attention(void) {
  unsigned armed = 0;
  for (struct gsim_entry **e = __start_gsim_entries; e < __stop_gsim_entries; e++) {
    if (atomic_load(&(*e)->fault_status)) armed |= GSIM_FAULT_ARMED;
    if (atomic_load(&(*e)->delay_microseconds)) armed |= GSIM_DELAY_ARMED;
  }
  atomic_fetch_and(&gsim_attention, ~(unsigned)(GSIM_FAULT_ARMED | GSIM_DELAY_ARMED));
  atomic_fetch_or(&gsim_attention, armed);
}

int gsim_fail_next(const char *function, int status, int after, int times) {
  int matched = 0;
  for (struct gsim_entry **e = __start_gsim_entries; e < __stop_gsim_entries; e++) {
    if (!is_variant((*e)->name, function)) continue;
    atomic_store(&(*e)->fault_after, after);
    atomic_store(&(*e)->fault_times, times);
    atomic_store(&(*e)->fault_status, times > 0 ? status : 0);
    matched++;
  }
  update_attention();
  return matched;
}

int gsim_delay_calls(const char *function, unsigned microseconds, bool hold_lock) {
  int matched = 0;
  for (struct gsim_entry **e = __start_gsim_entries; e < __stop_gsim_entries; e++) {
    if (!is_variant((*e)->name, function)) continue;
    atomic_store(&(*e)->delay_holds_lock, hold_lock);
    atomic_store(&(*e)->delay_microseconds, microseconds);
    matched++;
  }
  update_attention();
  return matched;
}
