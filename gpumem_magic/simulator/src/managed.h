/* Managed memory: ordinary host memory that takes device memory only where it
 * was prefetched to. Callers hold the driver's lock. */
#ifndef GSIM_MANAGED_H
#define GSIM_MANAGED_H

#include "allocation.h"

void gsim_managed_free(struct gsim_allocation *allocation);

#endif
