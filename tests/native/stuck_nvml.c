/* An NVML whose device fell off the bus: it never answers. */
#include <unistd.h>

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  (void)uuid;
  *device = device;
  return 0;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, void *memory) {
  (void)device;
  (void)memory;
  for (;;) pause();
}
