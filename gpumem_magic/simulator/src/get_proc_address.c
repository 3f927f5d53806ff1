/* cuGetProcAddress: a caller asks for a name as of a CUDA version and gets the
 * newest function of that name which is not newer than the version. The second
 * form succeeds also without one: a null function and a status say so. */
#include <string.h>

#include "entry.h"
#include "procs.h"

enum { STATUS_FOUND, STATUS_NO_SUCH_SYMBOL, STATUS_VERSION_TOO_OLD };
enum { FLAG_LEGACY_STREAM = 1, FLAG_PER_THREAD_STREAM = 2 };

static CUresult look_up(const char *symbol, void **pfn, int version, uint64_t flags, int *status) {
  bool name_exists;
  if (!symbol || !pfn || version > gsim_driver_version() || flags > FLAG_PER_THREAD_STREAM)
    return CUDA_ERROR_INVALID_VALUE;
  const struct gsim_proc *proc = gsim_proc_find(symbol, version, &name_exists);
  void (*function)(void) = NULL;
  if (proc) function = flags == FLAG_PER_THREAD_STREAM ? proc->per_thread : proc->symbol;
  memcpy(pfn, &function, sizeof function);
  if (status) *status = proc ? STATUS_FOUND : name_exists ? STATUS_VERSION_TOO_OLD : STATUS_NO_SUCH_SYMBOL;
  return CUDA_SUCCESS;
}

DRIVER_API_EARLY(626, cuGetProcAddress, const char *, symbol, void **, pfn, int, cudaVersion, uint64_t, flags) {
  int status;
  CUresult result = look_up(symbol, pfn, cudaVersion, flags, &status);
  return result == CUDA_SUCCESS && status != STATUS_FOUND ? CUDA_ERROR_NOT_FOUND : result;
}

DRIVER_API_EARLY(677, cuGetProcAddress_v2, const char *, symbol, void **, pfn, int, cudaVersion, uint64_t, flags, int *,
                 symbolStatus) {
  return look_up(symbol, pfn, cudaVersion, flags, symbolStatus);
}
