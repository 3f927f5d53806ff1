// The simulated driver, loaded as any program loads a driver: by dlopen and dlsym.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "check.h"

namespace test {

using Pointer = uint64_t;
using Handle = void*;

struct Location {
  int type, id;
};

struct PhysicalProp {
  int type, handle_types;
  Location location;
  void* win32;
  unsigned char flags[8];
};
static_assert(sizeof(PhysicalProp) == 32, "CUmemAllocationProp");

class Driver {
 public:
  // One device of `bytes`; the calling thread gets its primary context.
  explicit Driver(uint64_t bytes) {
    library_ = dlopen(SIMULATOR_LIBRARIES "/libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (library_ == nullptr) fail(__FILE__, __LINE__, dlerror());
    const auto configure = symbol<bool (*)(int, uint64_t)>("gsim_configure");
    CHECK(configure(1, bytes));
    look_up(alloc, "cuMemAlloc_v2");
    look_up(free, "cuMemFree_v2");
    look_up(alloc_async, "cuMemAllocAsync");
    look_up(free_async, "cuMemFreeAsync");
    look_up(alloc_host, "cuMemHostAlloc");
    look_up(free_host, "cuMemFreeHost");
    look_up(reserve, "cuMemAddressReserve");
    look_up(create, "cuMemCreate");
    look_up(release, "cuMemRelease");
    look_up(map, "cuMemMap");
    look_up(unmap, "cuMemUnmap");
    look_up(stream_create, "cuStreamCreate");
    look_up(begin_capture, "cuStreamBeginCapture_v2");
    look_up(end_capture, "cuStreamEndCapture");
    look_up(instantiate, "cuGraphInstantiateWithFlags");
    look_up(launch, "cuGraphLaunch");
    look_up(destroy_exec, "cuGraphExecDestroy");
    look_up(destroy_graph, "cuGraphDestroy");
    look_up(context_create, "cuCtxCreate_v2");
    look_up(context_destroy, "cuCtxDestroy_v2");
    look_up(context_set, "cuCtxSetCurrent");
    CHECK_EQ(symbol<int (*)(unsigned)>("cuInit")(0), 0);
    CHECK_EQ(symbol<int (*)(Handle*, int)>("cuDevicePrimaryCtxRetain")(&primary, 0), 0);
    use_primary();
  }

  void use_primary() const { CHECK_EQ(context_set(primary), 0); }

  int (*alloc)(Pointer*, size_t);
  int (*free)(Pointer);
  int (*alloc_async)(Pointer*, size_t, Handle);
  int (*free_async)(Pointer, Handle);
  int (*alloc_host)(void**, size_t, unsigned);
  int (*free_host)(void*);
  int (*reserve)(Pointer*, size_t, size_t, Pointer, unsigned long long);
  int (*create)(unsigned long long*, size_t, const PhysicalProp*, unsigned long long);
  int (*release)(unsigned long long);
  int (*map)(Pointer, size_t, size_t, unsigned long long, unsigned long long);
  int (*unmap)(Pointer, size_t);
  int (*stream_create)(Handle*, unsigned);
  int (*begin_capture)(Handle, int);
  int (*end_capture)(Handle, Handle*);
  int (*instantiate)(Handle*, Handle, unsigned long long);
  int (*launch)(Handle, Handle);
  int (*destroy_exec)(Handle);
  int (*destroy_graph)(Handle);
  int (*context_create)(Handle*, unsigned, int);
  int (*context_destroy)(Handle);
  int (*context_set)(Handle);
  Handle primary = nullptr;

  static const char* cupti() { return SIMULATOR_LIBRARIES "/libcupti.so.13"; }

 private:
  template <class Function>
  Function symbol(const char* name) const {
    void* found = dlsym(library_, name);
    if (found == nullptr) fail(__FILE__, __LINE__, std::string("the simulated driver lacks ") + name);
    return reinterpret_cast<Function>(found);
  }
  template <class Function>
  void look_up(Function& function, const char* name) const {
    function = symbol<Function>(name);
  }

  void* library_;
};

}  // namespace test
