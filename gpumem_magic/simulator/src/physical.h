/* Physical memory: counted against a device when it is taken, backed by host
 * memory only page by page when bytes are first copied or set.
 *
 * The backing of all devices is one sparse memory file cut into 2 MiB frames, so
 * that the same bytes can appear at several addresses (VMM) and in several
 * processes (IPC). Callers hold the driver's lock.
 */
#ifndef GSIM_PHYSICAL_H
#define GSIM_PHYSICAL_H

#include "cuda_types.h"

#define GSIM_PAGE (2ull << 20)

struct gsim_device;

struct gsim_physical {
  struct gsim_device *device; /* whose capacity it takes; NULL for host or foreign memory */
  uint64_t size;              /* a multiple of GSIM_PAGE */
  uint32_t references;
  int file;                              /* the memory file of the frames: ours, or another process's */
  uint32_t *frames;                      /* per page, 0 until touched */
  uint64_t share_id;                     /* 0 until it is shared */
  struct gsim_physical *next_shared;     /* see share.h */
  struct gsim_physical_handle *named_by; /* the VMM handle that names it, if any */
};

/* OUT_OF_MEMORY when the device has not that much left. The device may be NULL. */
CUresult gsim_physical_take(struct gsim_device *device, uint64_t size, struct gsim_physical **out);
void gsim_physical_retain(struct gsim_physical *physical);
void gsim_physical_release(struct gsim_physical *physical);

/* The frame of a page, given to it now if it had none; 0 on failure. */
uint32_t gsim_physical_frame(struct gsim_physical *physical, uint64_t page);

/* Wraps another process's frames. Takes over the file and the array. */
struct gsim_physical *gsim_physical_adopt(int file, uint32_t *frames, uint64_t size);

/* The memory file of this process's frames, or -1. */
int gsim_frame_file(void);

#endif
