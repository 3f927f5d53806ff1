// Which library made the driver call: the first native frame outside the driver, CUPTI and the runtime.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "record_log.h"

namespace gpumem {

// Names loaded libraries by id. Takes the lock it is given for every look-up.
class LibraryTable {
 public:
  LibraryTable(RecordLog& log, std::mutex& mutex) : log_(log), mutex_(mutex) {}

  static constexpr uint16_t kSkip = UINT16_MAX;
  // Id of the library that holds `address`; kSkip for those a caller is looked for behind; 0 when there is none.
  uint16_t find(const void* address);

 private:
  struct Library {
    uintptr_t begin, end;
    uint16_t id;
  };
  uint16_t id_for(const char* path);

  RecordLog& log_;
  std::mutex& mutex_;
  std::vector<Library> ranges_;
  std::vector<std::string> paths_;
};

// Per thread: remembers where on the stack the caller's return address lay, and trusts that only while it still lies
// there. A hit costs one load; a miss unwinds, some microseconds.
class CallerCache {
 public:
  // `function` is the driver call that is being made. Call it from the same depth every time.
  uint16_t find(uint32_t function, LibraryTable& libraries);

 private:
  struct Slot {
    const void* stack;  // stack pointer at the time
    uint32_t function;
    uint16_t library;
    const uintptr_t* return_slot;
    uintptr_t return_address;
  };
  static constexpr size_t kSets = 64;
  static constexpr size_t kWays = 4;
  Slot slots_[kSets][kWays] = {};
  unsigned victim_ = 0;
};

// Makes the unwinder load what it loads lazily; otherwise the first driver call would pay for it (about 20 ms).
void warm_up_unwinder();

}  // namespace gpumem
