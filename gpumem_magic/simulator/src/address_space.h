/* The window of virtual addresses in which simulated device memory lives.
 *
 * The window is reserved once, without access and without memory behind it, so
 * device addresses are real and unique, and the host faults when it touches one,
 * as it does with a real device. A page becomes readable to the simulator when a
 * copy or a memset first reaches it. Callers hold the driver's lock.
 */
#ifndef GSIM_ADDRESS_SPACE_H
#define GSIM_ADDRESS_SPACE_H

#include "heap.h"
#include "physical.h"

/* A range of whole pages, or NULL when the window is used up. */
struct gsim_extent *gsim_addresses_take(uint64_t size);
void gsim_addresses_give(struct gsim_extent *extent);

/* Says what is behind a range of pages. Costs no system call. */
void gsim_addresses_map(uint64_t start, uint64_t size, struct gsim_physical *physical, uint64_t offset);
void gsim_addresses_unmap(uint64_t start, uint64_t size);

/* Makes mapped addresses readable and writable for the simulator itself. */
bool gsim_addresses_touch(uint64_t start, uint64_t size);

/* Gives a range ordinary host memory at once: managed memory. */
bool gsim_addresses_map_host(uint64_t start, uint64_t size);

bool gsim_addresses_contain(uint64_t address);

#endif
