// The event: one driver call that touched memory, in 64 bytes. docs/recording-format.md says what each field means;
// gpumem_magic/model/events.py has the same layout and the same numbers for the Python side.
#pragma once

#include <cstdint>

namespace gpumem {

struct Event {
  uint64_t time_ns;
  uint64_t address;
  uint64_t size;
  uint64_t handle;
  uint32_t stack;
  uint32_t cell;
  uint32_t thread;
  uint32_t context;
  uint32_t stream;
  uint16_t status;
  uint16_t library;
  uint16_t function;
  uint8_t kind;
  uint8_t device;
  uint16_t flags;
  uint16_t reserved;
};
static_assert(sizeof(Event) == 64, "the recording format fixes an event at 64 bytes");

constexpr uint8_t kNoDevice = 255;

enum Kind : uint8_t {
  kNone = 0,
  kAlloc = 1,
  kAllocPitch = 2,
  kAllocManaged = 3,
  kAllocAsync = 4,
  kAllocPool = 5,
  kAllocHost = 6,
  kRegisterHost = 7,
  kImportIpc = 8,
  kMapExternal = 9,
  kAllocGraph = 10,
  kCreatePhysical = 11,
  kImportPhysical = 12,
  kCreateArray = 13,
  kCreateMipmap = 14,
  kImportExternal = 15,

  kFree = 32,
  kFreeAsync = 33,
  kFreeHost = 34,
  kUnregisterHost = 35,
  kCloseIpc = 36,
  kFreeGraph = 37,
  kReleasePhysical = 38,
  kDestroyArray = 39,
  kDestroyMipmap = 40,
  kDestroyExternal = 41,
  kAbsent = 42,

  kMap = 64,
  kUnmap = 65,
  kRetainPhysical = 66,

  kContextCreate = 80,
  kContextDestroy = 81,
  kPoolCreate = 82,
  kPoolDestroy = 83,
  kPoolTrim = 84,
  kModuleLoad = 85,
  kModuleUnload = 86,
  kGraphNodeAlloc = 87,
  kGraphNodeFree = 88,
  kGraphLaunch = 89,

  kCopy = 96,
  kSet = 97,
  kSynchronize = 98,

  kSpanBegin = 112,
  kSpanEnd = 113,
  kGapBegin = 114,
  kGapEnd = 115,
};

enum EventFlag : uint16_t {
  kBackground = 1,
  kReused = 2,
  kDeferredFree = 4,
  kHostLocation = 8,
  kInjected = 16,
};

enum Layer : uint8_t { kDeviceLayer = 0, kManagedLayer = 1, kHostLayer = 2, kImportedLayer = 3 };
constexpr int kLayers = 4;

constexpr bool is_birth(uint8_t kind) { return kind >= kAlloc && kind <= kImportExternal; }
constexpr bool is_death(uint8_t kind) { return kind >= kFree && kind <= kAbsent; }

constexpr Layer layer_of(uint8_t kind, uint8_t device) {
  switch (kind) {
    case kAllocManaged:
      return kManagedLayer;
    case kAllocHost:
    case kRegisterHost:
      return kHostLayer;
    case kImportIpc:
    case kMapExternal:
    case kImportPhysical:
    case kImportExternal:
      return kImportedLayer;
    default:
      return device == kNoDevice ? kHostLayer : kDeviceLayer;
  }
}

// Where a live thing is looked up: handles of different sorts may have equal values.
enum Space : uint8_t { kAddressSpace, kPhysicalSpace, kArraySpace, kMipmapSpace, kExternalSpace };
constexpr int kSpaces = 5;

constexpr Space space_of(uint8_t kind) {
  switch (kind) {
    case kCreatePhysical:
    case kImportPhysical:
    case kReleasePhysical:
    case kRetainPhysical:
      return kPhysicalSpace;
    case kCreateArray:
    case kDestroyArray:
      return kArraySpace;
    case kCreateMipmap:
    case kDestroyMipmap:
      return kMipmapSpace;
    case kImportExternal:
    case kDestroyExternal:
      return kExternalSpace;
    default:
      return kAddressSpace;
  }
}

}  // namespace gpumem
