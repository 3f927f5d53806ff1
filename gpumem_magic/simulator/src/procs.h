/* Which function a name means to a caller of which CUDA version. */
#ifndef GSIM_PROCS_H
#define GSIM_PROCS_H

#include <stdbool.h>

struct gsim_proc {
  const char *name;
  int since;
  void (*symbol)(void);
  void (*per_thread)(void); /* the twin, where the default stream matters */
};

/* The newest function of the name that is not newer than the version, or NULL;
 * also says whether there is any of that name. */
const struct gsim_proc *gsim_proc_find(const char *name, int version, bool *name_exists);

/* 13000 unless the environment says otherwise. */
int gsim_driver_version(void);

#endif
