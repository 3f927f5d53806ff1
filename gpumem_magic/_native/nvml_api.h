// The part of NVML and of the driver that a sample needs, declared by ourselves: no header of the toolkit is needed to
// build. Functions are looked up at run time. Everything here asks; nothing makes a context or changes a setting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cupti_api.h"

namespace gpumem {

using NvmlDevice = void*;

struct NvmlMemory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;  // what the driver reserves is in it
};
static_assert(sizeof(NvmlMemory) == 24, "nvmlMemory_t");

struct NvmlMemory2 {
  unsigned version;
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;  // without what is reserved
};
static_assert(sizeof(NvmlMemory2) == 40, "nvmlMemory_v2_t");
constexpr unsigned kNvmlMemory2 = sizeof(NvmlMemory2) | 2u << 24;

struct NvmlUtilization {
  unsigned gpu;
  unsigned memory;
};

struct NvmlProcess {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance;
  unsigned compute_instance;
};
static_assert(sizeof(NvmlProcess) == 24, "nvmlProcessInfo_v2_t");

// "Not available", where a number of bytes is expected.
constexpr unsigned long long kNvmlNotAvailable = ~0ull;
constexpr int kNvmlInsufficientSize = 7;

// Any of these may be missing; what asks says "unknown" then.
struct NvmlApi {
  int (*init)();
  int (*shutdown)();
  int (*device_by_uuid)(const char* uuid, NvmlDevice* device);
  int (*memory)(NvmlDevice device, NvmlMemory* memory);
  int (*memory2)(NvmlDevice device, NvmlMemory2* memory);  // since R510
  int (*utilization)(NvmlDevice device, NvmlUtilization* utilization);
  int (*processes)(NvmlDevice device, unsigned* count, NvmlProcess* processes);

  // False where there is no NVML, such as on a machine without a driver.
  bool load();
};

// NVML, opened. Belongs to one thread. What it does not tell is unknown, never 0.
class Nvml {
 public:
  struct Memory {
    int64_t used;      // all processes, without `reserved` unless that is unknown
    int64_t reserved;  // the driver's own; unknown when it is part of `used`
  };

  explicit Nvml(const NvmlApi& api);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // The device with this UUID, as CUDA tells it ("GPU-..."); nullptr when there is none.
  NvmlDevice find(const std::string& uuid) const;
  Memory memory(NvmlDevice device) const;
  // Per cent of the time in which a kernel ran; NAN when unknown.
  float utilization(NvmlDevice device) const;
  // Unknown, too, when the process is not listed: inside a container NVML may number processes as the host does, so an
  // absent one is not known to hold nothing.
  int64_t process_bytes(NvmlDevice device, unsigned pid);

 private:
  NvmlApi api_;
  bool open_;
  std::vector<NvmlProcess> processes_;
};

// cuMemGetInfo from a thread without a context. Belongs to one thread.
class DriverMemory {
 public:
  DriverMemory();
  // Total minus free; unknown when the process has no context on the device, or the driver refuses.
  int64_t used_bytes(int ordinal) const;
  // What the device's own pools of stream-ordered memory hold: the default pool and that of graphs. Unknown when the
  // driver refuses. Only for a device on which the process has allocated such memory.
  int64_t pool_bytes(int ordinal) const;

 private:
  int64_t ask(int device) const;

  int (*device_get_)(int* device, int ordinal) = nullptr;
  int (*primary_state_)(int device, unsigned* flags, int* active) = nullptr;
  int (*primary_retain_)(CuContext* context, int device) = nullptr;
  int (*primary_release_)(int device) = nullptr;
  int (*context_push_)(CuContext context) = nullptr;
  int (*context_pop_)(CuContext* context) = nullptr;
  int (*memory_info_)(size_t* free, size_t* total) = nullptr;
  int (*default_pool_)(CuMemoryPool* pool, int device) = nullptr;
  int (*pool_attribute_)(CuMemoryPool pool, int attribute, void* value) = nullptr;
  int (*graph_attribute_)(int device, int attribute, void* value) = nullptr;
  bool ready_ = false;
};

}  // namespace gpumem
