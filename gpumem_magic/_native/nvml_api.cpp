#include "nvml_api.h"

#include <dlfcn.h>

#include <cmath>
#include <limits>

#include "history.h"
#include "symbols.h"

namespace gpumem {
namespace {

int64_t known_bytes(unsigned long long bytes) {
  const bool known = bytes <= static_cast<unsigned long long>(std::numeric_limits<int64_t>::max());
  return known ? static_cast<int64_t>(bytes) : kUnknownBytes;
}

constexpr unsigned kMostProcesses = 1 << 16;
constexpr int kReservedMemoryOfPool = 5;    // CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT
constexpr int kReservedMemoryOfGraphs = 2;  // CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT
constexpr int kRelaxed = 2;                 // CU_STREAM_CAPTURE_MODE_RELAXED

}  // namespace

// ---- NVML -----------------------------------------------------------------------------------------------------------

// Never closed: other users of NVML share the copy.
bool NvmlApi::load() {
  *this = NvmlApi{};
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  bool all = look_up(library, "nvmlInit_v2", init);
  all &= look_up(library, "nvmlShutdown", shutdown);
  all &= look_up(library, "nvmlDeviceGetHandleByUUID", device_by_uuid);
  look_up(library, "nvmlDeviceGetMemoryInfo", memory);
  look_up(library, "nvmlDeviceGetMemoryInfo_v2", memory2);
  look_up(library, "nvmlDeviceGetUtilizationRates", utilization);
  if (!look_up(library, "nvmlDeviceGetComputeRunningProcesses_v3", processes)) {
    look_up(library, "nvmlDeviceGetComputeRunningProcesses_v2", processes);  // the same structure
  }
  return all;
}

Nvml::Nvml(const NvmlApi& api) : api_(api), open_(api.init != nullptr && api.init() == 0), processes_(64) {}

Nvml::~Nvml() {
  if (open_) api_.shutdown();
}

NvmlDevice Nvml::find(const std::string& uuid) const {
  if (!open_ || uuid.empty()) return nullptr;
  NvmlDevice device = nullptr;
  if (api_.device_by_uuid(uuid.c_str(), &device) == 0) return device;
  // CUDA tells the UUID of a MIG instance without its prefix.
  if (uuid.compare(0, 4, "GPU-") != 0) return nullptr;
  const std::string instance = "MIG-" + uuid.substr(4);
  return api_.device_by_uuid(instance.c_str(), &device) == 0 ? device : nullptr;
}

Nvml::Memory Nvml::memory(NvmlDevice device) const {
  NvmlMemory2 second{};
  second.version = kNvmlMemory2;
  if (device != nullptr && api_.memory2 != nullptr && api_.memory2(device, &second) == 0) {
    return {known_bytes(second.used), known_bytes(second.reserved)};
  }
  NvmlMemory first{};
  if (device != nullptr && api_.memory != nullptr && api_.memory(device, &first) == 0) {
    return {known_bytes(first.used), kUnknownBytes};
  }
  return {kUnknownBytes, kUnknownBytes};
}

float Nvml::utilization(NvmlDevice device) const {
  NvmlUtilization rates{};
  if (device == nullptr || api_.utilization == nullptr || api_.utilization(device, &rates) != 0) return NAN;
  return rates.gpu <= 100 ? static_cast<float>(rates.gpu) : NAN;
}

int64_t Nvml::process_bytes(NvmlDevice device, unsigned pid) {
  if (device == nullptr || api_.processes == nullptr) return kUnknownBytes;
  auto count = static_cast<unsigned>(processes_.size());
  int status = api_.processes(device, &count, processes_.data());
  while (status == kNvmlInsufficientSize && processes_.size() < kMostProcesses) {
    processes_.resize(processes_.size() * 2);
    count = static_cast<unsigned>(processes_.size());
    status = api_.processes(device, &count, processes_.data());
  }
  if (status != 0) return kUnknownBytes;
  int64_t total = kUnknownBytes;
  for (unsigned i = 0; i < count && i < processes_.size(); ++i) {
    const NvmlProcess& process = processes_[i];
    const int64_t bytes = process.pid == pid ? known_bytes(process.used) : kUnknownBytes;
    if (bytes != kUnknownBytes) total = bytes + (total == kUnknownBytes ? 0 : total);
  }
  return total;
}

// ---- the driver -----------------------------------------------------------------------------------------------------

DriverMemory::DriverMemory() {
  // Only a driver that the process has loaded already can have a context to ask in.
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  if (library == nullptr) return;
  bool all = look_up(library, "cuDeviceGet", device_get_);
  all &= look_up(library, "cuDevicePrimaryCtxGetState", primary_state_);
  all &= look_up(library, "cuDevicePrimaryCtxRetain", primary_retain_);
  all &= look_up(library, "cuDevicePrimaryCtxRelease_v2", primary_release_);
  all &= look_up(library, "cuCtxPushCurrent_v2", context_push_);
  all &= look_up(library, "cuCtxPopCurrent_v2", context_pop_);
  all &= look_up(library, "cuMemGetInfo_v2", memory_info_);
  ready_ = all;
  look_up(library, "cuDeviceGetDefaultMemPool", default_pool_);  // since CUDA 11.2
  look_up(library, "cuMemPoolGetAttribute", pool_attribute_);
  look_up(library, "cuDeviceGetGraphMemAttribute", graph_attribute_);  // since CUDA 11.4
  // While another thread captures a graph, the driver would refuse this thread's calls and spoil the capture.
  int (*exchange)(int*) = nullptr;
  int mode = kRelaxed;
  if (look_up(library, "cuThreadExchangeStreamCaptureMode", exchange)) exchange(&mode);
}

int64_t DriverMemory::used_bytes(int ordinal) const {
  int device = 0;
  unsigned flags = 0;
  int active = 0;
  if (!ready_ || device_get_(&device, ordinal) != 0) return kUnknownBytes;
  // A context that is not there yet would be made by asking for it, and costs 500 MiB.
  if (primary_state_(device, &flags, &active) != 0 || active == 0) return kUnknownBytes;
  return ask(device);
}

int64_t DriverMemory::pool_bytes(int ordinal) const {
  int device = 0;
  CuMemoryPool pool = nullptr;
  uint64_t held = 0;
  if (!ready_ || default_pool_ == nullptr || pool_attribute_ == nullptr) return kUnknownBytes;
  if (device_get_(&device, ordinal) != 0 || default_pool_(&pool, device) != 0) return kUnknownBytes;
  if (pool_attribute_(pool, kReservedMemoryOfPool, &held) != 0) return kUnknownBytes;
  uint64_t graphs = 0;
  if (graph_attribute_ == nullptr || graph_attribute_(device, kReservedMemoryOfGraphs, &graphs) != 0) graphs = 0;
  return known_bytes(held + graphs);
}

int64_t DriverMemory::ask(int device) const {
  CuContext context = nullptr;
  if (primary_retain_(&context, device) != 0) return kUnknownBytes;
  int64_t used = kUnknownBytes;
  if (context_push_(context) == 0) {
    size_t free = 0;
    size_t total = 0;
    if (memory_info_(&free, &total) == 0) used = known_bytes(total - free);
    context_pop_(&context);
  }
  primary_release_(device);
  return used;
}

}  // namespace gpumem
