#include "cupti_api.h"

#include <dlfcn.h>

#include "symbols.h"

namespace gpumem {

// Neither library is ever closed: callbacks may still be returning, and other users of CUPTI share the copy.
int CuptiApi::load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return kNoCupti;
  bool all = look_up(library, "cuptiSubscribe", subscribe);
  all &= look_up(library, "cuptiUnsubscribe", unsubscribe);
  all &= look_up(library, "cuptiEnableCallback", enable_callback);
  all &= look_up(library, "cuptiGetDeviceId", get_device_id);
  all &= look_up(library, "cuptiGetContextId", get_context_id);
  all &= look_up(library, "cuptiGetVersion", get_version);
  look_up(library, "cuptiSubscribe_v2", subscribe_v2);  // since 13.2
  return all ? 0 : kNoSymbol;
}

int DriverApi::load() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return kNoDriver;
  bool all = look_up(library, "cuInit", init);
  all &= look_up(library, "cuDriverGetVersion", driver_get_version);
  all &= look_up(library, "cuMemGetAddressRange_v2", get_address_range);
  all &= look_up(library, "cuMemHostGetFlags", host_get_flags);
  all &= look_up(library, "cuCtxPushCurrent_v2", context_push);
  all &= look_up(library, "cuCtxPopCurrent_v2", context_pop);
  all &= look_up(library, "cuCtxGetDevice", context_get_device);
  look_up(library, "cuStreamGetCaptureInfo_v2", stream_get_capture_info);  // CUDA 11.3 to 12; still exported by 13
  return all ? 0 : kNoSymbol;
}

}  // namespace gpumem
