/* Physical memory between processes. A small file lists the frames and where
 * their bytes are; whoever holds it, and may look into the sharing process's
 * open files, maps the same bytes. The sharing process must be alive.
 *
 * An importer's device is its own simulation, so imported memory takes nothing
 * of its capacity: it belongs to the process that shared it. Callers hold the
 * driver's lock.
 */
#ifndef GSIM_SHARE_H
#define GSIM_SHARE_H

#include "physical.h"

/* A file descriptor that names the memory, for the caller to close; -1 on failure. */
int gsim_share_file(struct gsim_physical *physical);

/* The memory that the file names, with a reference of its own, and its device;
 * NULL if the file is none of ours or the memory is gone. In the process that
 * shared it, it is the very same object. */
struct gsim_physical *gsim_share_open(int file, int *device);

/* The end of shared memory: nobody can open it any more. */
void gsim_share_forget(struct gsim_physical *physical);

#endif
