#include "caller.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>
#include <unwind.h>

#include <cstring>
#include <string>

namespace gpumem {
namespace {

// glibc 2.35 finds an object by address without the loader's lock; declared here since older headers lack it.
struct FoundObject {
  unsigned long long flags;
  void* map_start;
  void* map_end;
  link_map* map;
  void* eh_frame;
#if defined(__aarch64__) || defined(__x86_64__)
  unsigned long long reserved[8];
#endif
};
using FindObject = int (*)(void*, FoundObject*);

FindObject find_object() {
  static const auto function = reinterpret_cast<FindObject>(dlsym(RTLD_DEFAULT, "_dl_find_object"));
  return function;
}

struct Range {
  uintptr_t begin = 0, end = 0;
  const char* path = nullptr;
};

Range range_of(const void* address) {
  Range range;
  if (find_object() != nullptr) {
    FoundObject found{};
    if (find_object()(const_cast<void*>(address), &found) == 0) {
      range.begin = reinterpret_cast<uintptr_t>(found.map_start);
      range.end = reinterpret_cast<uintptr_t>(found.map_end);
      range.path = found.map != nullptr ? found.map->l_name : "";
    }
    return range;
  }
  Dl_info info{};
  if (dladdr(address, &info) != 0) {
    // Only the base is known: this address alone is what may be remembered.
    range.begin = reinterpret_cast<uintptr_t>(address);
    range.end = range.begin + 1;
    range.path = info.dli_fname;
  }
  return range;
}

bool is_skipped(const char* path) {
  static const char* const skipped[] = {"libcuda.so",  "libcupti.so", "libcudart",          "libffi.so",
                                        "libgcc_s.so", "libc.so",     "gpumem_magic/_core."};
  for (const char* name : skipped) {
    if (std::strstr(path, name) != nullptr) return true;
  }
  return false;
}

struct Walk {
  LibraryTable* libraries;
  uint16_t library = 0;
  uintptr_t return_address = 0;
  uintptr_t callee_frame = 0;
  int frames = 0;
};

constexpr int kMaxFrames = 48;

_Unwind_Reason_Code visit(_Unwind_Context* context, void* data) {
  auto* walk = static_cast<Walk*>(data);
  const uintptr_t ip = _Unwind_GetIP(context);
  if (ip == 0 || ++walk->frames > kMaxFrames) return _URC_END_OF_STACK;
  const uint16_t library = walk->libraries->find(reinterpret_cast<const void*>(ip - 1));
  if (library == LibraryTable::kSkip) return _URC_NO_REASON;
  walk->library = library;
  walk->return_address = ip;
  walk->callee_frame = _Unwind_GetCFA(context);
  return _URC_END_OF_STACK;
}

// The word that holds `walk.return_address`, looked for where the callee's frame ends.
const uintptr_t* return_slot(const Walk& walk, const void* stack) {
  const auto* slot = reinterpret_cast<const uintptr_t*>(walk.callee_frame);
  for (int i = 0; i < 64 && slot > stack; ++i) {
    --slot;
    if (*slot == walk.return_address) return slot;
  }
  return nullptr;
}

}  // namespace

uint16_t LibraryTable::find(const void* address) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Library& library : ranges_) {
      if (value >= library.begin && value < library.end) return library.id;
    }
  }
  const Range range = range_of(address);
  if (range.path == nullptr) return 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  const uint16_t id = is_skipped(range.path) ? kSkip : id_for(range.path);
  ranges_.push_back(Library{range.begin, range.end, id});
  return id;
}

uint16_t LibraryTable::id_for(const char* path) {
  char executable[4096] = "";
  if (*path == '\0') {
    const ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[length > 0 ? length : 0] = '\0';
    path = executable;
  }
  for (size_t i = 0; i < paths_.size(); ++i) {
    if (paths_[i] == path) return static_cast<uint16_t>(i + 1);
  }
  if (paths_.size() >= kSkip - 1) return 0;
  paths_.emplace_back(path);
  const auto id = static_cast<uint32_t>(paths_.size());
  std::string record(reinterpret_cast<const char*>(&id), sizeof id);
  record += path;
  log_.append(kLibraryRecord, record);
  return static_cast<uint16_t>(id);
}

__attribute__((noinline)) uint16_t CallerCache::find(uint32_t function, LibraryTable& libraries) {
  const void* stack = __builtin_frame_address(0);
  const uint64_t key = reinterpret_cast<uintptr_t>(stack) * 31 + function;
  auto& set = slots_[(key * 0x9E3779B97F4A7C15ull) >> 58];
  for (const Slot& slot : set) {
    if (slot.stack == stack && slot.function == function && *slot.return_slot == slot.return_address) {
      return slot.library;
    }
  }
  Walk walk;
  walk.libraries = &libraries;
  _Unwind_Backtrace(visit, &walk);
  if (walk.return_address == 0) return 0;
  const uintptr_t* where = return_slot(walk, stack);
  if (where != nullptr) {
    set[victim_++ % kWays] = Slot{stack, function, walk.library, where, walk.return_address};
  }
  return walk.library;
}

void warm_up_unwinder() {
  int depth = 0;
  _Unwind_Backtrace(
      [](_Unwind_Context*, void* data) { return ++*static_cast<int*>(data) < 8 ? _URC_NO_REASON : _URC_END_OF_STACK; },
      &depth);
}

}  // namespace gpumem
