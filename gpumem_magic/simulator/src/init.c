/* cuInit and what can be asked before it. */
#include <stdlib.h>

#include "callbacks.h"
#include "entry.h"
#include "procs.h"

#define DEFAULT_DRIVER_VERSION 13000

int gsim_driver_version(void) {
  const char *wanted = getenv("GPUMEM_SIM_DRIVER");
  return wanted ? atoi(wanted) : DEFAULT_DRIVER_VERSION;
}

DRIVER_API_EARLY(1, cuInit, unsigned int, Flags) {
  if (Flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (atomic_load(&gsim_attention) & GSIM_FORKED) return CUDA_ERROR_NOT_INITIALIZED;
  unsigned before = atomic_fetch_and(&gsim_attention, ~(unsigned)GSIM_NOT_INITIALIZED);
  if (before & GSIM_NOT_INITIALIZED) gsim_dispatch_resource(CUPTI_INIT_FINISHED, NULL, NULL, NULL);
  return CUDA_SUCCESS;
}

DRIVER_API_EARLY(2, cuDriverGetVersion, int *, driverVersion) {
  if (!driverVersion) return CUDA_ERROR_INVALID_VALUE;
  *driverVersion = gsim_driver_version();
  return CUDA_SUCCESS;
}

/* Undocumented tables that the CUDA runtime asks for; this driver has none. */
DRIVER_API_EARLY(135, cuGetExportTable, const void **, ppExportTable, const CUuuid *, pExportTableId) {
  if (!ppExportTable) return CUDA_ERROR_INVALID_VALUE;
  *ppExportTable = NULL;
  return CUDA_ERROR_NOT_FOUND;
}

DRIVER_API(311, cuProfilerInitialize, const char *, configFile, const char *, outputFile, int, outputMode) {
  return CUDA_ERROR_NOT_SUPPORTED;
}

DRIVER_API_VOID(308, cuProfilerStart) { return CUDA_SUCCESS; }
DRIVER_API_VOID(309, cuProfilerStop) { return CUDA_SUCCESS; }
