"""The event: one call into the driver that touched memory, in 64 bytes.

The layout is the recording's own (``docs/recording-format.md``) and the native core writes it byte for
byte, so an array of events is read from a recording, or taken from the live tracker, without conversion.
"""

from __future__ import annotations

import enum

import numpy as np

EVENT_DTYPE = np.dtype(
    [
        ("time_ns", "<u8"),  # CLOCK_MONOTONIC when the call returned
        ("address", "<u8"),  # what the event is about: device or host pointer, or a handle (see Kind)
        ("size", "<u8"),  # bytes asked for; 0 for deaths
        ("handle", "<u8"),  # pool, physical handle, external memory, graph, copy source; 0 when none
        ("stack", "<u4"),  # node in the stack table; 0 when no Python frame was running
        ("cell", "<u4"),  # span (cell run or track block) the event is attributed to; 0 outside any
        ("thread", "<u4"),  # operating system's thread id
        ("context", "<u4"),  # CUPTI's context id; 0 when none
        ("stream", "<u4"),  # index in the stream table; 0 is the legacy default stream
        ("status", "<u2"),  # CUresult of the call; 0 is success
        ("library", "<u2"),  # index in the library table; 0 when unknown
        ("function", "<u2"),  # CUPTI's driver-API callback id of the call; 0 for marks
        ("kind", "u1"),  # Kind
        ("device", "u1"),  # CUDA ordinal in this process; NO_DEVICE when it concerns the host or none
        ("flags", "<u2"),  # EventFlag
        ("reserved", "<u2"),
    ],
)
assert EVENT_DTYPE.itemsize == 64, "the recording format fixes an event at 64 bytes"

NO_DEVICE = 255


class Kind(enum.IntEnum):
    """What happened. Births and deaths change the live set; marks and notes do not.

    ``address`` holds a device or host pointer, unless the comment names a handle.
    """

    ALLOC = 1  # cuMemAlloc
    ALLOC_PITCH = 2  # cuMemAllocPitch; size is pitch times height
    ALLOC_MANAGED = 3  # cuMemAllocManaged
    ALLOC_ASYNC = 4  # cuMemAllocAsync; handle is the pool when known
    ALLOC_POOL = 5  # cuMemAllocFromPoolAsync; handle is the pool
    ALLOC_HOST = 6  # cuMemAllocHost, cuMemHostAlloc
    REGISTER_HOST = 7  # cuMemHostRegister
    IMPORT_IPC = 8  # cuIpcOpenMemHandle, cuMemPoolImportPointer
    MAP_EXTERNAL = 9  # cuExternalMemoryGetMappedBuffer; handle is the external memory
    ALLOC_GRAPH = 10  # memory of a graph's allocation node, live since the graph was launched
    CREATE_PHYSICAL = 11  # cuMemCreate; address is the physical handle
    IMPORT_PHYSICAL = 12  # cuMemImportFromShareableHandle; address is the physical handle
    CREATE_ARRAY = 13  # cuArrayCreate, cuArray3DCreate; address is the array handle
    CREATE_MIPMAP = 14  # cuMipmappedArrayCreate; address is the mipmap handle
    IMPORT_EXTERNAL = 15  # cuImportExternalMemory; address is the external-memory handle

    FREE = 32  # cuMemFree
    FREE_ASYNC = 33  # cuMemFreeAsync
    FREE_HOST = 34  # cuMemFreeHost
    UNREGISTER_HOST = 35  # cuMemHostUnregister
    CLOSE_IPC = 36  # cuIpcCloseMemHandle
    FREE_GRAPH = 37  # a graph's free node ran
    RELEASE_PHYSICAL = 38  # cuMemRelease; address is the physical handle
    DESTROY_ARRAY = 39  # cuArrayDestroy
    DESTROY_MIPMAP = 40  # cuMipmappedArrayDestroy
    DESTROY_EXTERNAL = 41  # cuDestroyExternalMemory
    ABSENT = 42  # after a gap the driver no longer knew this address; size 0

    MAP = 64  # cuMemMap; address range of size bytes onto physical handle
    UNMAP = 65  # cuMemUnmap; address range of size bytes
    RETAIN_PHYSICAL = 66  # cuMemRetainAllocationHandle; address is the physical handle

    CONTEXT_CREATE = 80  # context says which
    CONTEXT_DESTROY = 81  # context says which; ends what the context owned
    POOL_CREATE = 82  # address is the pool handle
    POOL_DESTROY = 83  # address is the pool handle; what was allocated from it lives on until it is freed
    POOL_TRIM = 84  # address is the pool handle; size is what may stay
    MODULE_LOAD = 85  # address is CUPTI's module id; size is the size of its cubin
    MODULE_UNLOAD = 86  # address is CUPTI's module id
    GRAPH_NODE_ALLOC = 87  # planned, not live: allocation node added to, or captured into, graph `handle`
    GRAPH_NODE_FREE = 88  # planned: free node for address added to, or captured into, graph `handle`
    GRAPH_LAUNCH = 89  # address is the executable graph's handle

    COPY = 96  # optional: address is the destination, handle the source
    SET = 97  # optional: memset of size bytes at address
    SYNCHRONIZE = 98  # optional: size is the time spent waiting, in ns

    SPAN_BEGIN = 112  # a cell run or track block began; address is its id, handle its parent's id
    SPAN_END = 113  # address is its id
    GAP_BEGIN = 114  # from here on calls were not seen
    GAP_END = 115  # calls are seen again


class EventFlag(enum.IntFlag):
    """Bits of an event's ``flags``."""

    BACKGROUND = 1  # made by a thread other than the one running the cell
    REUSED = 2  # the address was handed out again while its free was still returning on another thread
    DEFERRED_FREE = 4  # this is that free: it ended the previous owner of the address, not the present one
    HOST_LOCATION = 8  # physical memory or pool that lives in host memory
    INJECTED = 16  # the call was made to fail on purpose


class Layer(enum.IntEnum):
    """Which sum an allocation belongs to. Sums of different layers are never added up."""

    DEVICE = 0  # takes memory of the device
    MANAGED = 1  # unified memory: moves between host and device as it is touched
    HOST = 2  # pinned or registered host memory
    IMPORTED = 3  # owned by another process or another API, only mapped here


_LAYERS = {
    Kind.ALLOC: Layer.DEVICE,
    Kind.ALLOC_PITCH: Layer.DEVICE,
    Kind.ALLOC_MANAGED: Layer.MANAGED,
    Kind.ALLOC_ASYNC: Layer.DEVICE,
    Kind.ALLOC_POOL: Layer.DEVICE,
    Kind.ALLOC_HOST: Layer.HOST,
    Kind.REGISTER_HOST: Layer.HOST,
    Kind.IMPORT_IPC: Layer.IMPORTED,
    Kind.MAP_EXTERNAL: Layer.IMPORTED,
    Kind.ALLOC_GRAPH: Layer.DEVICE,
    Kind.CREATE_PHYSICAL: Layer.DEVICE,
    Kind.IMPORT_PHYSICAL: Layer.IMPORTED,
    Kind.CREATE_ARRAY: Layer.DEVICE,
    Kind.CREATE_MIPMAP: Layer.DEVICE,
    Kind.IMPORT_EXTERNAL: Layer.IMPORTED,
}

BIRTHS = frozenset(_LAYERS)
DEATHS = frozenset(kind for kind in Kind if 32 <= kind < 64)

KIND_LABELS = {
    Kind.ALLOC: "cuMemAlloc",
    Kind.ALLOC_PITCH: "pitched",
    Kind.ALLOC_MANAGED: "managed",
    Kind.ALLOC_ASYNC: "stream-ordered",
    Kind.ALLOC_POOL: "memory pool",
    Kind.ALLOC_HOST: "pinned host",
    Kind.REGISTER_HOST: "registered host",
    Kind.IMPORT_IPC: "IPC import",
    Kind.MAP_EXTERNAL: "external mapping",
    Kind.ALLOC_GRAPH: "graph node",
    Kind.CREATE_PHYSICAL: "virtual memory",
    Kind.IMPORT_PHYSICAL: "imported virtual memory",
    Kind.CREATE_ARRAY: "array",
    Kind.CREATE_MIPMAP: "mipmapped array",
    Kind.IMPORT_EXTERNAL: "external import",
}
"""What a table shows for the kind of an allocation."""


def layer_of(kind: int, device: int) -> Layer:
    """The layer that a birth of ``kind`` on ``device`` counts in.

    Physical memory and pools that the driver placed in host memory carry ``NO_DEVICE`` and count as host.
    """
    layer = _LAYERS[Kind(kind)]
    return Layer.HOST if layer is Layer.DEVICE and device == NO_DEVICE else layer
