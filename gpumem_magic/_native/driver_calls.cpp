#include "driver_calls.h"

#include <algorithm>
#include <array>

namespace gpumem {
namespace {

// ---- reading parameters ---------------------------------------------------------------------------------------------

template <class T>
T at(const void* params, size_t offset) {
  T value;
  __builtin_memcpy(&value, static_cast<const char*>(params) + offset, sizeof value);
  return value;
}

// The value that the pointer at `offset` points to: an output parameter. 0 when the call failed.
template <class T = uint64_t>
uint64_t output(const void* params, size_t offset, bool succeeded) {
  const auto* pointer = at<const T*>(params, offset);
  return succeeded && pointer != nullptr ? static_cast<uint64_t>(*pointer) : 0;
}

uint8_t device_number(int32_t id) { return id >= 0 && id < kNoDevice ? static_cast<uint8_t>(id) : kNoDevice; }

// CUmemLocation { int type; int id }: type 1 is a device, everything else host memory.
void set_location(const void* location, DecodedCall& call) {
  call.names_device = true;
  if (at<int32_t>(location, 0) == 1) {
    call.event.device = device_number(at<int32_t>(location, 4));
  } else {
    call.event.device = kNoDevice;
    call.event.flags |= kHostLocation;
  }
}

// ---- plain, pitched and host memory ---------------------------------------------------------------------------------

// (pointer *out, size_t bytes, …)
void alloc(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.size = at<uint64_t>(p, 8);
}

// The 32-bit forms of CUDA 3.1 and before: (unsigned *out, unsigned bytes)
void alloc_v1(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output<uint32_t>(p, 0, ok);
  call.event.size = at<uint32_t>(p, 8);
}

// (void **out, unsigned bytes)
void alloc_host_v1(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.size = at<uint32_t>(p, 8);
}

// (pointer *out, size_t *pitch, size_t width, size_t height, unsigned element)
void alloc_pitch(const void* p, bool ok, DecodedCall& call) {
  const uint64_t height = at<uint64_t>(p, 24);
  call.event.address = output(p, 0, ok);
  call.event.size = (ok ? output(p, 8, true) : at<uint64_t>(p, 16)) * height;
}

void alloc_pitch_v1(const void* p, bool ok, DecodedCall& call) {
  const uint64_t height = at<uint32_t>(p, 20);
  call.event.address = output<uint32_t>(p, 0, ok);
  call.event.size = (ok ? output<uint32_t>(p, 8, true) : at<uint32_t>(p, 16)) * height;
}

// (pointer address, …), also for handles
void address(const void* p, bool, DecodedCall& call) { call.event.address = at<uint64_t>(p, 0); }
void address_v1(const void* p, bool, DecodedCall& call) { call.event.address = at<uint32_t>(p, 0); }

// (void *address, size_t bytes, unsigned flags)
void register_host(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.size = at<uint64_t>(p, 8);
}

// ---- stream-ordered memory and pools --------------------------------------------------------------------------------

// (pointer *out, size_t bytes, stream)
void alloc_async(const void* p, bool ok, DecodedCall& call) {
  alloc(p, ok, call);
  call.stream = at<uint64_t>(p, 16);
  call.stream_ordered = true;
}

// (pointer *out, size_t bytes, pool, stream)
void alloc_pool(const void* p, bool ok, DecodedCall& call) {
  alloc(p, ok, call);
  call.event.handle = at<uint64_t>(p, 16);
  call.stream = at<uint64_t>(p, 24);
  call.stream_ordered = true;
}

// (pointer address, stream)
void free_async(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.stream = at<uint64_t>(p, 8);
  call.stream_ordered = true;
}

// (pool *out, const CUmemPoolProps *)
void create_pool(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* props = at<const char*>(p, 8);
  if (props != nullptr) set_location(props + 8, call);
}

// (pool *out, …) and (pool, …)
void imported_pool(const void* p, bool ok, DecodedCall& call) { call.event.address = output(p, 0, ok); }

// (pool, size_t bytes)
void trim_pool(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.size = at<uint64_t>(p, 8);
}

// (pool *out, device)
void pool_of_device(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.device = device_number(at<int32_t>(p, 8));
  call.names_device = true;
}

// (device, pool)
void set_pool_of_device(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 8);
  call.event.device = device_number(at<int32_t>(p, 0));
  call.names_device = true;
}

// (pool *out, CUmemLocation *, type)
void pool_of_location(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* location = at<const void*>(p, 8);
  if (location != nullptr) set_location(location, call);
}

// (CUmemLocation *, type, pool)
void set_pool_of_location(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 16);
  const auto* location = at<const void*>(p, 0);
  if (location != nullptr) set_location(location, call);
}

// ---- virtual memory -------------------------------------------------------------------------------------------------

// (handle *out, size_t bytes, const CUmemAllocationProp *, flags)
void create_physical(const void* p, bool ok, DecodedCall& call) {
  alloc(p, ok, call);
  const auto* prop = at<const char*>(p, 16);
  if (prop != nullptr) set_location(prop + 8, call);
}

// (handle *out, …): the driver does not tell how large the imported memory is
void import_physical(const void* p, bool ok, DecodedCall& call) { call.event.address = output(p, 0, ok); }

// (pointer, size_t bytes, size_t offset, handle, flags)
void map(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.size = at<uint64_t>(p, 8);
  call.event.handle = at<uint64_t>(p, 24);
}

// (pointer, size_t bytes)
void unmap(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.size = at<uint64_t>(p, 8);
}

// (handle *out, void *address)
void retain(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.handle = at<uint64_t>(p, 8);
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

// Bits of one channel of a CUarray_format. Block-compressed formats give bits of a whole texel, marked negative.
int channel_bits(uint32_t format) {
  switch (format) {
    case 0x01:
    case 0x08:
      return 8;
    case 0x02:
    case 0x09:
    case 0x10:
      return 16;
    case 0x03:
    case 0x0a:
    case 0x20:
      return 32;
    case 0x91:  // BC1
    case 0x92:
    case 0x97:  // BC4
    case 0x98:
      return -4;
    default:
      break;
  }
  if (format >= 0x93 && format <= 0x9e) return -8;  // BC2, BC3, BC5, BC6H, BC7
  if ((format >= 0xc3 && format <= 0xc5) || (format >= 0xc9 && format <= 0xcb)) return 16;
  return 8;
}

uint64_t array_bytes(uint64_t width, uint64_t height, uint64_t depth, uint32_t format, uint32_t channels) {
  const uint64_t texels = width * std::max<uint64_t>(height, 1) * std::max<uint64_t>(depth, 1);
  const int bits = channel_bits(format);
  const uint64_t texel_bits = bits < 0 ? static_cast<uint64_t>(-bits) : static_cast<uint64_t>(bits) * channels;
  return (texels * texel_bits + 7) / 8;
}

constexpr uint32_t kSparse = 0x40;
constexpr uint32_t kDeferredMapping = 0x80;

struct Array3D {
  uint64_t width, height, depth;
  uint32_t format, channels, flags;
};

// Sparse and deferred arrays take no memory of their own: it is mapped in later.
bool has_own_memory(const Array3D& array) { return (array.flags & (kSparse | kDeferredMapping)) == 0; }

// (array *out, const CUDA_ARRAY_DESCRIPTOR *)
void create_array(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* d = at<const void*>(p, 8);
  if (d == nullptr) return;
  call.event.size = array_bytes(at<uint64_t>(d, 0), at<uint64_t>(d, 8), 0, at<uint32_t>(d, 16), at<uint32_t>(d, 20));
}

void create_array_v1(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* d = at<const void*>(p, 8);
  if (d == nullptr) return;
  call.event.size = array_bytes(at<uint32_t>(d, 0), at<uint32_t>(d, 4), 0, at<uint32_t>(d, 8), at<uint32_t>(d, 12));
}

// (array *out, const CUDA_ARRAY3D_DESCRIPTOR *)
void create_array_3d(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* d = at<const Array3D*>(p, 8);
  if (d == nullptr || !has_own_memory(*d)) return;
  call.event.size = array_bytes(d->width, d->height, d->depth, d->format, d->channels);
}

void create_array_3d_v1(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* d = at<const void*>(p, 8);
  if (d == nullptr) return;
  call.event.size =
      array_bytes(at<uint32_t>(d, 0), at<uint32_t>(d, 4), at<uint32_t>(d, 8), at<uint32_t>(d, 12), at<uint32_t>(d, 16));
}

// (mipmap *out, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned levels)
void create_mipmap(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* d = at<const Array3D*>(p, 8);
  if (d == nullptr || !has_own_memory(*d)) return;
  Array3D level = *d;
  const uint32_t levels = std::min<uint32_t>(at<uint32_t>(p, 16), 32);
  constexpr uint32_t kLayered = 0x01;
  for (uint32_t i = 0; i < levels; ++i) {
    call.event.size += array_bytes(level.width, level.height, level.depth, level.format, level.channels);
    level.width = std::max<uint64_t>(level.width / 2, 1);
    level.height = level.height == 0 ? 0 : std::max<uint64_t>(level.height / 2, 1);
    if ((level.flags & kLayered) == 0) level.depth = level.depth == 0 ? 0 : std::max<uint64_t>(level.depth / 2, 1);
  }
}

// ---- memory of other processes and other APIs -----------------------------------------------------------------------

// (pointer *out, …): the range has to be asked for
void import_pointer(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.size_unknown = true;
}

// (external *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *)
void import_external(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  const auto* description = at<const void*>(p, 8);
  if (description != nullptr) call.event.size = at<uint64_t>(description, 24);
}

// (pointer or mipmap *out, external, …): the bytes are counted with the import
void map_external(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.handle = at<uint64_t>(p, 8);
}

// ---- graphs ---------------------------------------------------------------------------------------------------------

// CUDA_MEM_ALLOC_NODE_PARAMS: CUmemPoolProps (88 bytes), access descriptors, their number, bytesize, dptr
void alloc_node_params(const char* params, DecodedCall& call) {
  set_location(params + 8, call);
  call.event.kind = kGraphNodeAlloc;
  call.event.size = at<uint64_t>(params, 104);
  call.event.address = at<uint64_t>(params, 112);
}

// (node *out, graph, dependencies, number, CUDA_MEM_ALLOC_NODE_PARAMS *)
void add_alloc_node(const void* p, bool ok, DecodedCall& call) {
  call.event.handle = at<uint64_t>(p, 8);
  const auto* params = at<const char*>(p, 32);
  if (ok && params != nullptr) alloc_node_params(params, call);
}

// (node *out, graph, dependencies, number, pointer)
void add_free_node(const void* p, bool, DecodedCall& call) {
  call.event.handle = at<uint64_t>(p, 8);
  call.event.address = at<uint64_t>(p, 32);
}

// CUgraphNodeParams: type, three reserved ints, then the parameters of that type
void generic_node(const void* graph_call, size_t params_offset, bool ok, DecodedCall& call) {
  constexpr int32_t kMemAllocNode = 10;
  constexpr int32_t kMemFreeNode = 11;
  call.event.kind = kNone;
  call.event.handle = at<uint64_t>(graph_call, 8);
  const auto* params = at<const char*>(graph_call, params_offset);
  if (!ok || params == nullptr) return;
  const auto type = at<int32_t>(params, 0);
  if (type == kMemAllocNode) {
    alloc_node_params(params + 16, call);
  } else if (type == kMemFreeNode) {
    call.event.kind = kGraphNodeFree;
    call.event.address = at<uint64_t>(params, 16);
  }
}

// (node *out, graph, dependencies, number, CUgraphNodeParams *)
void add_node(const void* p, bool ok, DecodedCall& call) { generic_node(p, 32, ok, call); }
// (node *out, graph, dependencies, edge data, number, CUgraphNodeParams *)
void add_node_v2(const void* p, bool ok, DecodedCall& call) { generic_node(p, 40, ok, call); }

// (out *, original, …)
void derived_graph(const void* p, bool ok, DecodedCall& call) {
  call.event.address = output(p, 0, ok);
  call.event.handle = at<uint64_t>(p, 8);
}

// (executable graph, stream)
void launch_graph(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.stream = at<uint64_t>(p, 8);
  call.stream_ordered = true;
}

void nothing(const void*, bool, DecodedCall&) {}

// ---- copies and waits, only when asked for --------------------------------------------------------------------------

// (destination, source, size_t bytes[, stream])
void copy(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.handle = at<uint64_t>(p, 8);
  call.event.size = at<uint64_t>(p, 16);
}

void copy_async(const void* p, bool ok, DecodedCall& call) {
  copy(p, ok, call);
  call.stream = at<uint64_t>(p, 24);
  call.stream_ordered = true;
}

// (destination, its context, source, its context, size_t bytes[, stream])
void copy_peer(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.handle = at<uint64_t>(p, 16);
  call.event.size = at<uint64_t>(p, 32);
}

void copy_peer_async(const void* p, bool ok, DecodedCall& call) {
  copy_peer(p, ok, call);
  call.stream = at<uint64_t>(p, 40);
  call.stream_ordered = true;
}

// (destination, value, size_t count[, stream]) with elements of `Bytes` bytes
template <uint64_t Bytes>
void set(const void* p, bool, DecodedCall& call) {
  call.event.address = at<uint64_t>(p, 0);
  call.event.size = at<uint64_t>(p, 16) * Bytes;
}

template <uint64_t Bytes>
void set_async(const void* p, bool ok, DecodedCall& call) {
  set<Bytes>(p, ok, call);
  call.stream = at<uint64_t>(p, 24);
  call.stream_ordered = true;
}

// ---- the table ------------------------------------------------------------------------------------------------------

constexpr Group kMemory = Group::kMemory;
constexpr Group kCopies = Group::kCopies;
constexpr Group kWaits = Group::kWaits;

constexpr DriverCall kCalls[] = {
    {29, Role::kRecord, kMemory, kAlloc, alloc_v1},                        // cuMemAlloc
    {243, Role::kRecord, kMemory, kAlloc, alloc},                          // cuMemAlloc_v2
    {31, Role::kRecord, kMemory, kAllocPitch, alloc_pitch_v1},             // cuMemAllocPitch
    {244, Role::kRecord, kMemory, kAllocPitch, alloc_pitch},               // cuMemAllocPitch_v2
    {371, Role::kRecord, kMemory, kAllocManaged, alloc},                   // cuMemAllocManaged
    {33, Role::kFree, kMemory, kFree, address_v1},                         // cuMemFree
    {245, Role::kFree, kMemory, kFree, address},                           // cuMemFree_v2
    {598, Role::kRecord, kMemory, kAllocAsync, alloc_async},               // cuMemAllocAsync
    {599, Role::kRecord, kMemory, kAllocAsync, alloc_async},               // cuMemAllocAsync_ptsz
    {611, Role::kRecord, kMemory, kAllocPool, alloc_pool},                 // cuMemAllocFromPoolAsync
    {612, Role::kRecord, kMemory, kAllocPool, alloc_pool},                 // cuMemAllocFromPoolAsync_ptsz
    {600, Role::kFree, kMemory, kFreeAsync, free_async},                   // cuMemFreeAsync
    {601, Role::kFree, kMemory, kFreeAsync, free_async},                   // cuMemFreeAsync_ptsz
    {37, Role::kRecord, kMemory, kAllocHost, alloc_host_v1},               // cuMemAllocHost
    {294, Role::kRecord, kMemory, kAllocHost, alloc},                      // cuMemAllocHost_v2
    {39, Role::kRecord, kMemory, kAllocHost, alloc},                       // cuMemHostAlloc
    {38, Role::kFree, kMemory, kFreeHost, address},                        // cuMemFreeHost
    {301, Role::kRecord, kMemory, kRegisterHost, register_host},           // cuMemHostRegister
    {379, Role::kRecord, kMemory, kRegisterHost, register_host},           // cuMemHostRegister_v2
    {302, Role::kFree, kMemory, kUnregisterHost, address},                 // cuMemHostUnregister
    {329, Role::kRecord, kMemory, kImportIpc, import_pointer},             // cuIpcOpenMemHandle
    {567, Role::kRecord, kMemory, kImportIpc, import_pointer},             // cuIpcOpenMemHandle_v2
    {330, Role::kFree, kMemory, kCloseIpc, address},                       // cuIpcCloseMemHandle
    {616, Role::kRecord, kMemory, kImportIpc, import_pointer},             // cuMemPoolImportPointer
    {549, Role::kRecord, kMemory, kCreatePhysical, create_physical},       // cuMemCreate
    {555, Role::kRecord, kMemory, kImportPhysical, import_physical},       // cuMemImportFromShareableHandle
    {550, Role::kFree, kMemory, kReleasePhysical, address},                // cuMemRelease
    {551, Role::kRecord, kMemory, kMap, map},                              // cuMemMap
    {552, Role::kRecord, kMemory, kUnmap, unmap},                          // cuMemUnmap
    {565, Role::kRecord, kMemory, kRetainPhysical, retain},                // cuMemRetainAllocationHandle
    {87, Role::kRecord, kMemory, kCreateArray, create_array_v1},           // cuArrayCreate
    {272, Role::kRecord, kMemory, kCreateArray, create_array},             // cuArrayCreate_v2
    {90, Role::kRecord, kMemory, kCreateArray, create_array_3d_v1},        // cuArray3DCreate
    {274, Role::kRecord, kMemory, kCreateArray, create_array_3d},          // cuArray3DCreate_v2
    {89, Role::kFree, kMemory, kDestroyArray, address},                    // cuArrayDestroy
    {347, Role::kRecord, kMemory, kCreateMipmap, create_mipmap},           // cuMipmappedArrayCreate
    {349, Role::kFree, kMemory, kDestroyMipmap, address},                  // cuMipmappedArrayDestroy
    {485, Role::kRecord, kMemory, kImportExternal, import_external},       // cuImportExternalMemory
    {486, Role::kRecord, kMemory, kMapExternal, map_external},             // cuExternalMemoryGetMappedBuffer
    {487, Role::kRecord, kMemory, kCreateMipmap, map_external},            // cuExternalMemoryGetMappedMipmappedArray
    {488, Role::kFree, kMemory, kDestroyExternal, address},                // cuDestroyExternalMemory
    {607, Role::kRecord, kMemory, kPoolCreate, create_pool},               // cuMemPoolCreate
    {614, Role::kRecord, kMemory, kPoolCreate, imported_pool},             // cuMemPoolImportFromShareableHandle
    {608, Role::kRecord, kMemory, kPoolDestroy, address},                  // cuMemPoolDestroy
    {602, Role::kRecord, kMemory, kPoolTrim, trim_pool},                   // cuMemPoolTrimTo
    {606, Role::kLearnPool, kMemory, kNone, pool_of_device},               // cuDeviceGetDefaultMemPool
    {610, Role::kLearnPool, kMemory, kNone, pool_of_device},               // cuDeviceGetMemPool
    {609, Role::kLearnPool, kMemory, kNone, set_pool_of_device},           // cuDeviceSetMemPool
    {801, Role::kLearnPool, kMemory, kNone, pool_of_location},             // cuMemGetDefaultMemPool
    {802, Role::kLearnPool, kMemory, kNone, pool_of_location},             // cuMemGetMemPool
    {803, Role::kLearnPool, kMemory, kNone, set_pool_of_location},         // cuMemSetMemPool
    {495, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCapture
    {496, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCapture_ptsz
    {539, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCapture_v2
    {540, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCapture_v2_ptsz
    {720, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCaptureToGraph
    {721, Role::kCaptureBegin, kMemory, kNone, nothing},                   // cuStreamBeginCaptureToGraph_ptsz
    {497, Role::kCaptureEnd, kMemory, kNone, nothing},                     // cuStreamEndCapture
    {498, Role::kCaptureEnd, kMemory, kNone, nothing},                     // cuStreamEndCapture_ptsz
    {638, Role::kGraphAddNode, kMemory, kGraphNodeAlloc, add_alloc_node},  // cuGraphAddMemAllocNode
    {639, Role::kGraphAddNode, kMemory, kGraphNodeFree, add_free_node},    // cuGraphAddMemFreeNode
    {712, Role::kGraphAddNode, kMemory, kNone, add_node},                  // cuGraphAddNode
    {723, Role::kGraphAddNode, kMemory, kNone, add_node_v2},               // cuGraphAddNode_v2
    {863, Role::kGraphAddNode, kMemory, kNone, add_node_v2},               // cuGraphAddNode_v3
    {513, Role::kGraphInstantiate, kMemory, kNone, derived_graph},         // cuGraphInstantiate
    {578, Role::kGraphInstantiate, kMemory, kNone, derived_graph},         // cuGraphInstantiate_v2
    {643, Role::kGraphInstantiate, kMemory, kNone, derived_graph},         // cuGraphInstantiateWithFlags
    {656, Role::kGraphInstantiate, kMemory, kNone, derived_graph},         // cuGraphInstantiateWithParams
    {657, Role::kGraphInstantiate, kMemory, kNone, derived_graph},         // cuGraphInstantiateWithParams_ptsz
    {523, Role::kGraphClone, kMemory, kNone, derived_graph},               // cuGraphClone
    {517, Role::kGraphDestroy, kMemory, kNone, address},                   // cuGraphDestroy
    {516, Role::kExecDestroy, kMemory, kNone, address},                    // cuGraphExecDestroy
    {514, Role::kGraphLaunch, kMemory, kGraphLaunch, launch_graph},        // cuGraphLaunch
    {515, Role::kGraphLaunch, kMemory, kGraphLaunch, launch_graph},        // cuGraphLaunch_ptsz
    {kDriverGetVersionId, Role::kHeartbeat, kMemory, kNone, nothing},      // cuDriverGetVersion

    {276, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyHtoD_v2
    {278, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyDtoH_v2
    {280, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyDtoD_v2
    {305, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpy
    {397, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyHtoD_v2_ptds
    {398, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyDtoH_v2_ptds
    {399, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpyDtoD_v2_ptds
    {408, Role::kRecord, kCopies, kCopy, copy},             // cuMemcpy_ptds
    {277, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyHtoDAsync_v2
    {279, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyDtoHAsync_v2
    {281, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyDtoDAsync_v2
    {306, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyAsync
    {418, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyAsync_ptsz
    {421, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyHtoDAsync_v2_ptsz
    {422, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyDtoHAsync_v2_ptsz
    {423, Role::kRecord, kCopies, kCopy, copy_async},       // cuMemcpyDtoDAsync_v2_ptsz
    {318, Role::kRecord, kCopies, kCopy, copy_peer},        // cuMemcpyPeer
    {409, Role::kRecord, kCopies, kCopy, copy_peer},        // cuMemcpyPeer_ptds
    {319, Role::kRecord, kCopies, kCopy, copy_peer_async},  // cuMemcpyPeerAsync
    {426, Role::kRecord, kCopies, kCopy, copy_peer_async},  // cuMemcpyPeerAsync_ptsz
    {249, Role::kRecord, kCopies, kSet, set<1>},            // cuMemsetD8_v2
    {250, Role::kRecord, kCopies, kSet, set<2>},            // cuMemsetD16_v2
    {251, Role::kRecord, kCopies, kSet, set<4>},            // cuMemsetD32_v2
    {411, Role::kRecord, kCopies, kSet, set<1>},            // cuMemsetD8_v2_ptds
    {412, Role::kRecord, kCopies, kSet, set<2>},            // cuMemsetD16_v2_ptds
    {413, Role::kRecord, kCopies, kSet, set<4>},            // cuMemsetD32_v2_ptds
    {216, Role::kRecord, kCopies, kSet, set_async<1>},      // cuMemsetD8Async
    {218, Role::kRecord, kCopies, kSet, set_async<2>},      // cuMemsetD16Async
    {220, Role::kRecord, kCopies, kSet, set_async<4>},      // cuMemsetD32Async
    {428, Role::kRecord, kCopies, kSet, set_async<1>},      // cuMemsetD8Async_ptsz
    {429, Role::kRecord, kCopies, kSet, set_async<2>},      // cuMemsetD16Async_ptsz
    {430, Role::kRecord, kCopies, kSet, set_async<4>},      // cuMemsetD32Async_ptsz

    {17, Role::kWait, kWaits, kSynchronize, nothing},   // cuCtxSynchronize
    {800, Role::kWait, kWaits, kSynchronize, nothing},  // cuCtxSynchronize_v2
    {121, Role::kWait, kWaits, kSynchronize, nothing},  // cuEventSynchronize
    {126, Role::kWait, kWaits, kSynchronize, nothing},  // cuStreamSynchronize
    {440, Role::kWait, kWaits, kSynchronize, nothing},  // cuStreamSynchronize_ptsz
};

constexpr size_t kIdLimit = 1024;

using Index = std::array<int16_t, kIdLimit>;

constexpr Index make_index() {
  Index index{};
  for (auto& entry : index) entry = -1;
  for (size_t i = 0; i < sizeof kCalls / sizeof *kCalls; ++i) index[kCalls[i].id] = static_cast<int16_t>(i);
  return index;
}

constexpr Index kIndex = make_index();

}  // namespace

const DriverCall* find_driver_call(uint32_t id) {
  if (id >= kIdLimit || kIndex[id] < 0) return nullptr;
  return &kCalls[kIndex[id]];
}

DriverCalls all_driver_calls() { return {kCalls, kCalls + sizeof kCalls / sizeof *kCalls}; }

}  // namespace gpumem
