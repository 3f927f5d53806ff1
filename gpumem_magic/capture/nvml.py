"""What NVML says of the devices' memory. What it does not tell is None, never 0."""

from __future__ import annotations

import dataclasses
import os
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of one device as NVML counts it, of all processes together."""

    total_bytes: int
    used_bytes: int  # without ``reserved_bytes``, unless that is None
    reserved_bytes: int | None  # the driver's own; None when it is part of ``used_bytes`` (drivers before R510)


class Nvml:
    """NVML, opened. Its methods may be called from any thread and raise nothing."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles: dict[str, Any] = {}

    @classmethod
    def open(cls) -> Nvml | None:
        """None where there is no NVML, such as on a machine without a driver."""
        try:
            import pynvml  # noqa: PLC0415  (only where it is used)

            pynvml.nvmlInit()
        except Exception:  # noqa: BLE001  (no package, no library, no driver, no permission: all the same to us)
            return None
        return cls(pynvml)

    def close(self) -> None:
        self._handles.clear()
        self._ask("nvmlShutdown")

    def memory(self, uuid: str) -> DeviceMemory | None:
        """Of the device with this UUID, as CUDA tells it (``GPU-…``)."""
        handle = self._handle(uuid)
        if handle is None:
            return None
        version = getattr(self._library, "nvmlMemory_v2", None)
        second = self._ask("nvmlDeviceGetMemoryInfo", handle, version) if version is not None else None
        if second is not None:
            return DeviceMemory(
                total_bytes=int(second.total), used_bytes=int(second.used), reserved_bytes=int(second.reserved)
            )
        first = self._ask("nvmlDeviceGetMemoryInfo", handle)
        if first is None:
            return None
        return DeviceMemory(total_bytes=int(first.total), used_bytes=int(first.used), reserved_bytes=None)

    def process_bytes(self, uuid: str, pid: int | None = None) -> int | None:
        """Bytes of one process, this one by default.

        None under WSL and wherever else NVML does not tell, and when the process is not listed: inside a container
        NVML may number processes as the host does, so an absent one is not known to hold nothing.
        """
        handle = self._handle(uuid)
        if handle is None:
            return None
        wanted = os.getpid() if pid is None else pid
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or ()
        known = [each.usedGpuMemory for each in processes if each.pid == wanted and each.usedGpuMemory is not None]
        return sum(int(each) for each in known) if known else None

    def _handle(self, uuid: str) -> Any:
        if uuid and uuid not in self._handles:
            # CUDA tells the UUID of a MIG instance without its prefix.
            candidates = (uuid, uuid.replace("GPU-", "MIG-", 1))
            found = (self._ask("nvmlDeviceGetHandleByUUID", each) for each in candidates)
            self._handles[uuid] = next((each for each in found if each is not None), None)
        return self._handles.get(uuid)

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._library, function)(*arguments)
        except Exception:  # noqa: BLE001  (each release refuses in ways of its own; any refusal means "not known")
            return None
