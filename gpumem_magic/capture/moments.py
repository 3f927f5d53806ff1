"""PyTorch tells of a failed allocation while it fails, before frames are left and their tensors freed.

Its observers cannot be taken away again. So one is added once per process, and it does nothing while nobody listens.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from gpumem_magic.analysis.out_of_memory import Moment
from gpumem_magic.capture.frameworks import reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumem_magic.analysis.byte_ledger import ByteLedger


class Told(NamedTuple):
    """What was told, and when, on the clock of ``time.monotonic_ns``."""

    time_ns: int
    moment: Moment


class Moments:
    """The latest failure that PyTorch told of. At most one listens in a process."""

    def __init__(self, ledger: Callable[[], ByteLedger]) -> None:
        self._ledger = ledger
        self._told: Told | None = None
        self.problem = ""  # why the latest failure was not told, as a sentence

    def listen(self) -> None:
        """From now on. PyTorch that is imported later is heard from the next call on: call it at every cell."""
        global _listener  # noqa: PLW0603  (the observer outlives whoever listens)
        _listener = self
        _observe()

    def ignore(self) -> None:
        """No more."""
        global _listener  # noqa: PLW0603
        if _listener is self:
            _listener = None
        self._told = None

    def take(self, since_ns: int) -> Moment | None:
        """What was told last, if that was after ``since_ns``; it is told once."""
        told, self._told = self._told, None
        self.problem = ""
        return told.moment if told is not None and told.time_ns >= since_ns else None

    def tell(self, device: int, requested: int, free: int) -> None:
        """On the thread that failed, inside PyTorch, which holds no lock meanwhile."""
        moment = Moment(device=device, requested_bytes=requested, free_bytes=free, ledger=self._ledger())
        self._told = Told(time.monotonic_ns(), moment)


_listener: Moments | None = None
_is_observing = False


def _observe() -> None:
    """Add the observer, now or when PyTorch begins to use CUDA, which this does not make it do."""
    global _is_observing  # noqa: PLW0603
    torch = reading.module("torch")
    attach = getattr(getattr(torch, "_C", None), "_cuda_attach_out_of_memory_observer", None)
    later = getattr(getattr(torch, "cuda", None), "_lazy_call", None)
    if _is_observing or attach is None or later is None:
        return
    _is_observing = True
    later(lambda: attach(_observed))


def _observed(device: int, requested: int, _device_allocated: int, device_free: int) -> None:
    """Must not raise: what it raises would take the place of PyTorch's own error."""
    listener = _listener
    if listener is None:
        return
    try:
        listener.tell(device, requested, device_free)
    except Exception as error:  # noqa: BLE001  (see above)
        listener.problem = f"What was live at that moment could not be read ({type(error).__name__}: {error})."
