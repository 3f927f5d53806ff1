/* The table of names; it sees the functions without their types, so nothing that
 * declares them may be included here. */
#include "procs.h"

#include <stdbool.h>
#include <string.h>

/* The functions' types do not matter here, only their addresses. */
#define PROC(name, since, symbol) extern void symbol(void);
#define PROC_PT(name, since, symbol, twin) extern void symbol(void), twin(void);
#include "procs.def"
#undef PROC
#undef PROC_PT

static const struct gsim_proc procs[] = {
#define PROC(name, since, symbol) {#name, since, symbol, symbol},
#define PROC_PT(name, since, symbol, twin) {#name, since, symbol, twin},
#include "procs.def"
#undef PROC
#undef PROC_PT
};

/* Versions newer than the driver's own are as good as unknown to it. */
const struct gsim_proc *gsim_proc_find(const char *name, int version, bool *name_exists) {
  const struct gsim_proc *best = NULL;
  *name_exists = false;
  for (const struct gsim_proc *p = procs; p < procs + sizeof procs / sizeof *procs; p++) {
    if (strcmp(p->name, name) != 0 || p->since > gsim_driver_version()) continue;
    *name_exists = true;
    if (p->since <= version && (!best || p->since > best->since)) best = p;
  }
  return best;
}
