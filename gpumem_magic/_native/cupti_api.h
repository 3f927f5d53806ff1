// The part of CUPTI's and the driver's C interface that the tracker uses, declared by ourselves: no CUDA header is
// needed to build. Functions are looked up at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpumem {

using CuContext = void*;
using CuMemoryPool = void*;
using CuStream = void*;

struct CuptiCallbackData {
  int32_t site;  // 0 enter, 1 exit
  const char* function_name;
  const void* params;
  void* return_value;  // CUresult on exit
  const char* symbol_name;
  CuContext context;
  uint32_t context_id;
  uint64_t* correlation_data;
  uint32_t correlation_id;
};
static_assert(sizeof(CuptiCallbackData) == 72, "CUpti_CallbackData has been 72 bytes since 12.1");

constexpr int32_t kSiteEnter = 0;

struct CuptiResourceData {
  CuContext context;
  void* handle;
  void* descriptor;
};

struct CuptiModuleData {
  uint32_t module_id;
  size_t cubin_bytes;
  const char* cubin;
};

struct CuptiSubscriberParams {
  size_t struct_size;
  const char* name;
  char* old_subscriber_name;
  size_t old_subscriber_name_size;
  uint8_t allow_multiple;
  uint8_t padding[7];
};

constexpr int kDomainDriver = 1;
constexpr int kDomainResource = 3;

enum ResourceId : uint32_t {
  kContextCreated = 1,
  kContextDestroyStarting = 2,
  kModuleLoaded = 6,
  kModuleUnloadStarting = 7,
};

constexpr int kCuptiMultipleSubscribers = 39;
// Results of our own, beyond CUPTI's and the driver's.
constexpr int kNoCupti = -1;
constexpr int kNoDriver = -2;
constexpr int kNoSymbol = -3;
constexpr int kDriverFailed = -1000;  // minus the CUresult of cuInit

using CuptiCallback = void (*)(void* user, int domain, uint32_t id, const void* data);

struct CuptiApi {
  int (*subscribe)(void** subscriber, CuptiCallback callback, void* user);
  int (*subscribe_v2)(void** subscriber, CuptiCallback callback, void* user, CuptiSubscriberParams* params);
  int (*unsubscribe)(void* subscriber);
  int (*enable_callback)(uint32_t enable, void* subscriber, int domain, uint32_t id);
  int (*get_device_id)(CuContext context, uint32_t* device);
  int (*get_context_id)(CuContext context, uint32_t* id);
  int (*get_version)(uint32_t* version);

  // Loads the library at `path` (or finds it among the loaded ones). 0, kNoCupti or kNoSymbol.
  int load(const char* path);
};

struct DriverApi {
  int (*init)(unsigned flags);
  int (*driver_get_version)(int* version);
  int (*get_address_range)(uint64_t* base, size_t* size, uint64_t pointer);
  int (*host_get_flags)(unsigned* flags, void* pointer);
  int (*context_push)(CuContext context);
  int (*context_pop)(CuContext* context);
  int (*context_get_device)(int* device);
  int (*stream_get_capture_info)(CuStream stream, int* status, uint64_t* id, void** graph, const void*** dependencies,
                                 size_t* count);

  // 0, kNoDriver or kNoSymbol.
  int load();
};

}  // namespace gpumem
