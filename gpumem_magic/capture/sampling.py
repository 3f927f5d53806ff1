"""Memory over time: starts the native sampler, and asks the frameworks for what only Python can ask them."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from gpumem_magic import _core
from gpumem_magic.model.history import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.snapshot import Device

INTERVAL_S = 0.1
SLOW_S = 1.0
_JOIN_S = 2.0
_REFRESH_S = 0.25
_FIRST_S = 2.0  # the first sample loads NVML


class Sampler:
    """Has a row taken of every device each ``interval_s``, from ``start`` to ``stop``.

    The rows are taken by a native thread, which needs no GIL. Beside it, once torch or CuPy is imported, a thread of
    Python's asks these for their counters: each second, or at the interval of the rows while ``hurry`` is set. It
    prints nothing, makes no CUDA context and imports no framework. The methods may be called from any thread, one at a
    time. No forked child has either thread.
    """

    def __init__(self, devices: Sequence[Device] = (), *, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._devices = tuple(devices)
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()  # guards what follows
        self._ended = True
        self._hurry = False
        self.problem = ""  # the last failure of the thread

    @property
    def is_alive(self) -> bool:
        """Whether rows are being taken."""
        return not self._ended

    def start(self, *, hurry: bool = False) -> None:
        """Begin sampling, or go on with the interval and the hurry that are wanted now. Nothing without a device."""
        if not self._devices:
            return
        _core.start_sampling([(each.ordinal, each.uuid) for each in self._devices], round(self.interval_s * 1e9))
        with self._turn:
            self._ended = False
            self._hurry = hurry
            self._turn.notify_all()
        self.follow_frameworks()

    def stop(self) -> None:
        """End both threads and wait for them. The rows stay."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)
        _core.stop_sampling()

    def follow_frameworks(self) -> None:
        """Begin asking the frameworks if one was imported meanwhile. Cheap: call it now and then."""
        if self._thread is not None or not _is_framework_imported():
            return
        with self._turn:
            if self._ended or self._thread is not None:
                return
            # A daemon, for it must not keep a script from ending; whoever starts it has to stop it before Python goes.
            self._thread = threading.Thread(target=self._run, name="gpumem-frameworks", daemon=True)
            self._thread.start()

    def refresh(self, timeout_s: float | None = None) -> bool:
        """Take a sample now. True once one is there that began after this call did; False when that takes too long."""
        if self._ended:
            return False
        if timeout_s is None:
            timeout_s = _REFRESH_S if _core.wait_for_news(0, 0, 0.0)[1] else _FIRST_S
        if _is_framework_imported():
            self._report()
        return _core.sample_now(timeout_s)

    def _run(self) -> None:
        while not self._ended:
            try:
                self._report()
            except Exception as error:  # noqa: BLE001  (a thread that prints would print into some cell)
                self.problem = repr(error)
            with self._turn:
                pace = self._hurry
                period_s = self.interval_s if pace else SLOW_S
                self._turn.wait_for(lambda: self._ended or self._hurry != pace, period_s)  # noqa: B023  (called here)

    def _report(self) -> None:
        for device in self._devices:
            _core.report_frameworks(device.ordinal, *torch_bytes(device.ordinal), cupy_bytes(device.ordinal))


def _is_framework_imported() -> bool:
    return "torch" in sys.modules or "cupy" in sys.modules


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
