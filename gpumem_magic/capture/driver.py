"""What the driver says of itself and its devices, asked through cuda.bindings."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Any

from gpumem_magic.model.events import NO_DEVICE
from gpumem_magic.model.snapshot import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "libcuda.so.1"
_NOT_SUPPORTED = 801  # CUDA_ERROR_NOT_SUPPORTED: the device has no such pools


def is_driver_loaded() -> bool:
    """True when a driver library, real or simulated, is mapped into this process. Loads nothing."""
    try:
        ctypes.CDLL(LIBRARY, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    return True


def is_driver_present() -> bool:
    """True when a driver library can be loaded. Initialises nothing."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def driver_version() -> str:
    """``13.0``; empty when it cannot be told."""
    with _driver() as cuda:
        status, version = cuda.cuDriverGetVersion()
        if int(status) == 0:
            return f"{version // 1000}.{version % 1000 // 10}"
    return ""


def devices() -> tuple[Device, ...]:
    """The GPUs that this process sees, as CUDA numbers them. Empty when the driver is not initialised."""
    found = []
    with _driver() as cuda:
        status, count = cuda.cuDeviceGetCount()
        for ordinal in range(count if int(status) == 0 else 0):
            _, handle = cuda.cuDeviceGet(ordinal)
            found.append(_device(cuda, ordinal, handle))
    return tuple(found)


def device_of(address: int) -> int:
    """Ordinal of the device that an address belongs to; NO_DEVICE for pinned host memory and for unknown addresses."""
    with _driver() as cuda:
        kinds = cuda.CUpointer_attribute
        status, ordinal = cuda.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)
        if int(status) != 0:
            return NO_DEVICE
        _, memory_type = cuda.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        _, managed = cuda.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_IS_MANAGED, address)
        on_host = int(memory_type or 0) == int(cuda.CUmemorytype.CU_MEMORYTYPE_HOST) and not managed
    return NO_DEVICE if on_host else int(ordinal)


def trim_pools() -> str:
    """Give back what the driver's own pools, that of each device and the one in use there, keep for later.

    Returns what went wrong as a sentence, or "". What a stream has not yet freed stays.
    """
    with _driver() as cuda:
        for device in devices():
            for pool_of in (cuda.cuDeviceGetDefaultMemPool, cuda.cuDeviceGetMemPool):
                status, pool = pool_of(device.ordinal)
                if int(status) == 0:
                    (status,) = cuda.cuMemPoolTrimTo(pool, 0)
                if int(status) not in (0, _NOT_SUPPORTED):
                    return f"The driver could not trim its memory pool of GPU {device.ordinal} ({status.name})."
    return ""


def _device(cuda: Any, ordinal: int, handle: Any) -> Device:
    named, name = cuda.cuDeviceGetName(96, handle)
    sized, total = cuda.cuDeviceTotalMem(handle)
    known, uuid = cuda.cuDeviceGetUuid(handle)
    return Device(
        ordinal=ordinal,
        name=name.split(b"\0", 1)[0].decode(errors="replace") if int(named) == 0 else f"GPU {ordinal}",
        total_bytes=int(total) if int(sized) == 0 else None,
        uuid=f"GPU-{_uuid_text(bytes(uuid.bytes))}" if int(known) == 0 else "",
    )


def _uuid_text(raw: bytes) -> str:
    text = raw[:16].hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    from cuda.bindings import driver  # noqa: PLC0415  (costs time and loads the driver: only where it is used)

    yield driver
