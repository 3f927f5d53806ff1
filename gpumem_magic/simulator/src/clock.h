/* The simulator's time: the host's monotonic clock, or one that tests turn. */
#ifndef GSIM_CLOCK_H
#define GSIM_CLOCK_H

#include <stdint.h>

uint64_t gsim_now_ns(void);
void gsim_clock_stop(void); /* from now on only gsim_clock_advance moves it */
void gsim_clock_advance(uint64_t ns);

#endif
