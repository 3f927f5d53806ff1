// The driver calls that matter to memory: CUPTI's callback id of each, and how to read its parameters.
//
// The ids and the parameter structs are the driver's ABI: no callback id ever changed its number and no struct its
// fields between CUPTI 12.1 and 13.5, which is why the package carries its own and needs no CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "event.h"

namespace gpumem {

enum class Role : uint8_t {
  kUnused,
  kRecord,     // becomes an event as it is
  kFree,       // a death: the address is announced on entry
  kLearnPool,  // tells where a pool lives
  kCaptureBegin,
  kCaptureEnd,
  kGraphAddNode,      // event.kind is kGraphNodeAlloc or kGraphNodeFree, or kNone for other nodes
  kGraphInstantiate,  // event.address is the executable graph, event.handle the graph
  kGraphClone,        // event.address is the clone, event.handle the original
  kGraphDestroy,
  kExecDestroy,
  kGraphLaunch,
  kWait,  // time between entry and exit is what matters
  kHeartbeat,
};

enum class Group : uint8_t { kMemory = 0, kCopies = 1, kWaits = 2 };

struct DecodedCall {
  Event event{};        // kind, address, size, handle; device where the call names one
  uint64_t stream = 0;  // the driver's handle
  bool stream_ordered = false;
  bool size_unknown = false;  // the driver has to be asked for the size of the range at event.address
  bool names_device = false;  // event.device was set from the parameters
};

struct DriverCall {
  uint16_t id;
  Role role;
  Group group;
  uint8_t kind;
  // Called on exit after success (outputs are valid), and after failure with `succeeded` false (only inputs are).
  void (*decode)(const void* params, bool succeeded, DecodedCall& call);
};

// nullptr for a call that does not matter.
const DriverCall* find_driver_call(uint32_t id);

struct DriverCalls {
  const DriverCall* begin;
  const DriverCall* end;
};
DriverCalls all_driver_calls();

constexpr uint32_t kDriverGetVersionId = 2;

}  // namespace gpumem
