"""Samples of device memory, for when calls cannot be seen: NVML, the driver and the frameworks' own counters."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.capture.nvml import Nvml
from gpumem_magic.model.samples import SAMPLE_DTYPE, UNKNOWN, level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.snapshot import Device

INTERVAL_S = 0.1
CAPACITY = 32768
_RESOLUTION = 2048
_JOIN_S = 2.0
_REFRESH_S = 0.25
_FIRST_S = 2.0  # the first sample loads NVML


class Sampler:
    """Takes a sample of every device each ``interval_s`` in a thread of its own, from ``start`` to ``stop``.

    What was sampled stays readable after ``stop``, and ``start`` goes on with it. All methods may be called from any
    thread. The thread prints nothing, makes no CUDA context and imports no framework. No forked child has it.
    """

    def __init__(
        self, devices: Sequence[Device] = (), *, interval_s: float = INTERVAL_S, capacity: int = CAPACITY
    ) -> None:
        self.interval_s = interval_s
        self._devices = tuple(devices)
        self._buffers = {device.ordinal: SampleBuffer(capacity) for device in self._devices}
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()  # guards the buffers and all that follows
        self._stopping = True
        self._begun = self._done = 0  # samples begun and finished
        self._wanted = 0  # samples that somebody waits for
        self.problem = ""  # the last failure of the thread

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin sampling. Does nothing when it does so already, or when there is no device."""
        if self.is_alive or not self._devices:
            return
        with self._turn:
            self._stopping = False
        # A daemon, for it must not keep a script from ending; whoever starts it has to stop it before Python goes.
        self._thread = threading.Thread(target=self._run, name="gpumem-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it: at most one sample."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        self._thread = None

    def refresh(self, timeout_s: float | None = None) -> bool:
        """Take a sample now. True once one is there that began after this call did; False when that takes too long."""
        with self._turn:
            if self._stopping:
                return False
            if timeout_s is None:
                timeout_s = _REFRESH_S if self._done else _FIRST_S
            wanted = self._begun + 1
            self._wanted = max(self._wanted, wanted)
            self._turn.notify_all()
            return self._turn.wait_for(lambda: self._done >= wanted or self._stopping, timeout_s) and not self._stopping

    def samples(self) -> np.ndarray:
        """All that is kept (SAMPLE_DTYPE), in order of time; a copy."""
        with self._turn:
            parts = [buffer.rows() for buffer in self._buffers.values()]
        rows = np.concatenate(parts) if parts else np.empty(0, SAMPLE_DTYPE)
        rows = rows[np.argsort(rows["time_ns"], kind="stable")]
        rows.flags.writeable = False
        return rows

    def _run(self) -> None:
        sources = _Sources()
        try:
            while self._begin():
                try:
                    taken = [sources.sample(device) for device in self._devices]
                except Exception as error:  # noqa: BLE001  (a thread that prints would print into some cell)
                    self.problem, taken = repr(error), []
                self._keep(taken)
        finally:
            sources.close()

    def _begin(self) -> bool:
        """Wait until the next sample is due, or asked for. False when it is time to end."""
        with self._turn:
            if self._begun:
                self._turn.wait_for(lambda: self._stopping or self._wanted > self._begun, self.interval_s)
            self._begun += 1
            return not self._stopping

    def _keep(self, taken: list[np.void]) -> None:
        with self._turn:
            for row in taken:
                self._buffers[int(row["device"])].append(row)
            self._done = self._begun
            self._turn.notify_all()


class SampleBuffer:
    """The samples of one device, bounded: hours fit, the latest minutes whole, older ones ever coarser.

    Of older samples the lowest and the highest of each stretch are kept, by ``model.samples.level``, so no peak of
    that measure is lost; peaks of the other columns may be. A stretch is a fixed share of its age.
    """

    def __init__(self, capacity: int = CAPACITY, *, resolution: int = _RESOLUTION) -> None:
        assert capacity >= 16, "a buffer that small could not be thinned"  # noqa: PLR2004
        self._rows = np.empty(capacity, SAMPLE_DTYPE)
        self._count = 0
        self._resolution = resolution

    def append(self, row: np.void) -> None:
        """Take one more sample, later than all before."""
        if self._count == len(self._rows):
            self._thin()
        self._rows[self._count] = row
        self._count += 1

    def rows(self) -> np.ndarray:
        """A copy of what is kept, in order of time."""
        return self._rows[: self._count].copy()

    def _thin(self) -> None:
        limit = len(self._rows) * 3 // 4
        rows, resolution = self._rows, float(self._resolution)
        while len(rows) > limit:
            rows = thinned(rows, resolution)
            resolution /= 2
        self._count = len(rows)
        self._rows[: self._count] = rows.copy()


def thinned(rows: np.ndarray, resolution: float) -> np.ndarray:
    """``rows`` of one device, thinned: the latest ``resolution`` untouched, two per stretch of those before.

    A stretch lasts 1/``resolution`` of its age.
    """
    old = max(len(rows) - max(int(resolution), 2), 0)
    if not old:
        return rows
    age = (rows["time_ns"][-1] - rows["time_ns"][:old]).astype(np.float64)
    bucket = np.floor(np.log(np.maximum(age, 1.0)) * resolution).astype(np.int64)
    height = level(rows[:old])
    first = np.diff(bucket, prepend=bucket[0] + 1) != 0
    starts, stretch = np.flatnonzero(first), np.cumsum(first)
    kept = np.unique(np.concatenate((np.lexsort((height, stretch))[starts], np.lexsort((-height, stretch))[starts])))
    return np.concatenate((rows[kept], rows[old:]))


class _Sources:
    """Everything that is asked for one sample. Belongs to the sampling thread."""

    def __init__(self) -> None:
        self._nvml = Nvml.open()
        self._driver = _DriverMemory()

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()

    def sample(self, device: Device) -> np.void:
        time_ns = time.monotonic_ns()
        memory = self._nvml.memory(device.uuid) if self._nvml is not None else None
        process = self._nvml.process_bytes(device.uuid) if self._nvml is not None else None
        row = np.zeros(1, SAMPLE_DTYPE)
        row[0] = (
            time_ns,
            device.ordinal,
            UNKNOWN if memory is None else memory.used_bytes,
            UNKNOWN if memory is None or memory.reserved_bytes is None else memory.reserved_bytes,
            UNKNOWN if process is None else process,
            self._driver.used_bytes(device.ordinal),
            *torch_bytes(device.ordinal),
            cupy_bytes(device.ordinal),
        )
        taken: np.void = row[0]
        return taken


class _DriverMemory:
    """``cuMemGetInfo`` from a thread that has no context, without ever making one: a context costs 500 MiB."""

    def __init__(self) -> None:
        self._cuda: Any = None
        with contextlib.suppress(ImportError):
            from cuda.bindings import driver  # noqa: PLC0415  (costs time; only where it is used)

            self._cuda = driver
            # While another thread captures a graph, the driver would refuse this thread's calls and spoil the capture.
            with contextlib.suppress(Exception):  # an older driver has no such call
                driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)

    def used_bytes(self, ordinal: int) -> int:
        """Total minus free; UNKNOWN when the process has no context on the device, or the driver refuses."""
        if self._cuda is None:
            return UNKNOWN
        try:
            return self._ask(self._cuda, ordinal)
        except Exception:  # noqa: BLE001  (bindings raise for a driver that lacks a call)
            return UNKNOWN

    def _ask(self, cuda: Any, ordinal: int) -> int:
        failed, device = cuda.cuDeviceGet(ordinal)
        if int(failed):
            return UNKNOWN
        failed, _flags, active = cuda.cuDevicePrimaryCtxGetState(device)
        if int(failed) or not active:
            return UNKNOWN
        failed, context = cuda.cuDevicePrimaryCtxRetain(device)
        if int(failed):
            return UNKNOWN
        try:
            return self._ask_in(cuda, context)
        finally:
            cuda.cuDevicePrimaryCtxRelease(device)

    def _ask_in(self, cuda: Any, context: Any) -> int:
        if int(cuda.cuCtxPushCurrent(context)[0]):
            return UNKNOWN
        failed, free, total = cuda.cuMemGetInfo()
        cuda.cuCtxPopCurrent()
        return UNKNOWN if int(failed) else int(total) - int(free)


def torch_bytes(ordinal: int) -> tuple[int, int]:
    """Bytes in tensors and in the pool, as torch counts them; UNKNOWN unless it is imported and uses CUDA."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return UNKNOWN, UNKNOWN
        return int(torch.cuda.memory_allocated(ordinal)), int(torch.cuda.memory_reserved(ordinal))
    except Exception:  # noqa: BLE001  (it may be half imported, or lack CUDA)
        return UNKNOWN, UNKNOWN


def cupy_bytes(ordinal: int) -> int:
    """Bytes handed out by CuPy's default pool; UNKNOWN unless CuPy is imported.

    The pool answers for the current device of the asking thread. To ask for another would make a context there.
    """
    cupy = sys.modules.get("cupy")
    try:
        if cupy is None or cupy.cuda.runtime.getDevice() != ordinal:
            return UNKNOWN
        return int(cupy.get_default_memory_pool().used_bytes())
    except Exception:  # noqa: BLE001  (it may be half imported, or lack CUDA)
        return UNKNOWN
