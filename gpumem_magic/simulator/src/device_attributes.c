/* CUdevice_attribute: a plausible device of compute capability 9.0. An attribute
 * that is not listed answers 0, which reads as "not supported". */
#include "device.h"

static const int attributes[] = {
    [1] = 1024,        /* max threads per block */
    [2] = 1024,        /* max block x */
    [3] = 1024,        /* max block y */
    [4] = 64,          /* max block z */
    [5] = 2147483647,  /* max grid x */
    [6] = 65535,       /* max grid y */
    [7] = 65535,       /* max grid z */
    [8] = 49152,       /* shared memory per block */
    [9] = 65536,       /* constant memory */
    [10] = 32,         /* warp size */
    [11] = 2147483647, /* max pitch */
    [12] = 65536,      /* registers per block */
    [13] = 1500000,    /* clock, kHz */
    [14] = 512,        /* texture alignment */
    [15] = 1,          /* copies overlap kernels */
    [16] = 16,         /* multiprocessors */
    [19] = 1,          /* can map host memory */
    [21] = 131072,     /* texture 1D width */
    [22] = 131072,     /* texture 2D width */
    [23] = 65536,      /* texture 2D height */
    [24] = 16384,      /* texture 3D width */
    [25] = 16384,      /* texture 3D height */
    [26] = 16384,      /* texture 3D depth */
    [30] = 512,        /* surface alignment */
    [31] = 1,          /* concurrent kernels */
    [36] = 2600000,    /* memory clock, kHz */
    [37] = 5120,       /* memory bus width */
    [38] = 52428800,   /* L2 cache */
    [39] = 2048,       /* threads per multiprocessor */
    [40] = 3,          /* copy engines */
    [41] = 1,          /* unified addressing */
    [51] = 32,         /* texture pitch alignment */
    [75] = 9,          /* compute capability, major */
    [76] = 0,          /* compute capability, minor */
    [78] = 1,          /* stream priorities */
    [79] = 1,          /* global L1 cache */
    [80] = 1,          /* local L1 cache */
    [81] = 233472,     /* shared memory per multiprocessor */
    [82] = 65536,      /* registers per multiprocessor */
    [83] = 1,          /* managed memory */
    [87] = 2,          /* single to double ratio */
    [89] = 1,          /* concurrent managed access */
    [90] = 1,          /* compute preemption */
    [91] = 1,          /* host pointer usable for registered memory */
    [97] = 232448,     /* shared memory per block, opt-in */
    [99] = 1,          /* host register */
    [102] = 1,         /* virtual memory management */
    [103] = 1,         /* POSIX file descriptor handles */
    [106] = 32,        /* blocks per multiprocessor */
    [111] = 1024,      /* reserved shared memory per block */
    [115] = 1,         /* memory pools */
    [119] = 1,         /* pool handle types: POSIX file descriptor */
    [125] = 1,         /* IPC events */
    [130] = 0,         /* not a NUMA node */
    [131] = -1,        /* NUMA id */
    [134] = -1,        /* host NUMA id */
    [144] = 1,         /* host memory pools */
    [145] = 1,         /* host virtual memory management */
};

#define ATTRIBUTE_PCI_BUS 33
#define ATTRIBUTE_LIMIT 162

CUresult gsim_device_attribute(const struct gsim_device *device, int attribute, int *value) {
  if (attribute < 1 || attribute >= ATTRIBUTE_LIMIT) return CUDA_ERROR_INVALID_VALUE;
  if (attribute == ATTRIBUTE_PCI_BUS)
    *value = (int)gsim_device_bus(device);
  else if (attribute < (int)(sizeof attributes / sizeof *attributes))
    *value = attributes[attribute];
  else
    *value = 0;
  return CUDA_SUCCESS;
}
