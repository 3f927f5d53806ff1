/* The driver-wide lock. Callbacks are never called while it is held.
 *
 * A fork waits for it and leaves it free on both sides. The child of a process
 * that has used the driver cannot use it, as with the real one.
 */
#ifndef GSIM_LOCK_H
#define GSIM_LOCK_H

void gsim_lock(void);
void gsim_unlock(void);

#endif
