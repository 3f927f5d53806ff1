"""The verbs in Python. One recording at a time per process; every function may be called from any thread."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from gpumem_magic import simulator
from gpumem_magic.capture.ipython_shell import running_shell
from gpumem_magic.capture.recording import open_recording
from gpumem_magic.session import Session
from gpumem_magic.verbs import free as verbs_free
from gpumem_magic.verbs import who as verbs_who
from gpumem_magic.verbs.who import TOP
from gpumem_magic.views.shown import Shown, shown_byte_ledger, shown_cell_report, shown_holders, shown_release

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpumem_magic.analysis.byte_ledger import ByteLedger
    from gpumem_magic.analysis.cell_report import CellReport, DeviceChange
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.model.release import Release
    from gpumem_magic.model.snapshot import Snapshot
    from gpumem_magic.model.status import Status

_lock = threading.Lock()
_session: Session | None = None


def _forget_lock() -> None:
    """In a forked child: a thread that does not exist here may have held the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)


def session() -> Session:
    """The process's session; made when first asked for, and anew in a forked child."""
    global _session  # noqa: PLW0603  (there is one tracker in a process, so there is one session)
    with _lock:
        if _session is None or _session.owner_pid != os.getpid():
            _session = Session()
        return _session


def start() -> Status:
    """Begin a recording of every driver allocation in this process. Does nothing when one is being made.

    Never raises for a missing GPU: the status says what is missing and what to do.
    """
    return session().start()


def stop() -> None:
    """End the recording and leave nothing of ours in the process. The recording stays on disk."""
    session().stop()


def status() -> Status:
    """What is tracked right now, and what is wrong if anything is."""
    return session().status()


def simulate(devices: int = 1, memory: int | str = "16GiB") -> Status:
    """Put simulated GPUs in the place of a driver, for machines without one, and track them.

    Args:
        devices: how many, 1 to 8.
        memory: capacity of each, in bytes or as text such as ``"16GiB"``.

    Raises:
        RuntimeError: a driver is loaded in this process already.
        ValueError: a number of devices or a size that makes no sense.
    """
    simulator.activate(devices=devices, memory=memory)
    running = session()
    return running.resume() if running.state != "off" else running.start()


def snapshot(name: str = "") -> Snapshot:
    """Everything that is known at this moment, frozen. Raises RuntimeError when nothing is being recorded."""
    return session().snapshot(name)


def ledger(devices: Iterable[int] | None = None) -> Shown[ByteLedger]:
    """Every byte of ``devices`` (ordinals; all when None), in rows that add up to what each device reports.

    Raises:
        RuntimeError: nothing is being recorded.
        ValueError: a device that is not there.
    """
    return shown_byte_ledger(session().ledger(devices))


def who(target: object = "", *, top: int = TOP) -> Shown[Holders]:
    """Which names keep device memory alive.

    Args:
        target: a name such as ``"model"`` or ``"Out[7]"``, an address, an array or tensor, or what a variable refers
            to; by default the largest pieces of memory.
        top: how many of these.

    Raises:
        RuntimeError: nothing is being recorded.
        gpumem_magic.verbs.names.NameNotFoundError: there is no such name.
    """
    title, found = verbs_who.who(session(), target, shell=running_shell(), top=top)
    return shown_holders(found, title)


def free(*targets: str, variables: Iterable[str] = (), dry_run: bool = False) -> Shown[Release]:
    """Let go of what keeps device memory alive, and measure what that gives back.

    Args:
        targets: ``"Out[7]"``, ``"out"``, ``"traceback"``, ``"cycles"``, ``"cache"``, ``"all-safe"`` (the latter three),
            or variables of the notebook or of ``__main__``.
        variables: variables that are called like one of these words.
        dry_run: only predict.

    Raises:
        RuntimeError: nothing is being recorded.
        gpumem_magic.verbs.free.CannotFreeError: nothing was freed, because a target means nothing.
    """
    made = verbs_free.free(session(), targets, variables=variables, shell=running_shell(), dry_run=dry_run)
    return shown_release(made)


def load(path: str | os.PathLike[str]) -> Snapshot:
    """Read a recording: finished, still being written, or left by a killed process.

    Raises:
        gpumem_magic.capture.recording.RecordingError: the path holds no recording.
    """
    return open_recording(path)


@contextlib.contextmanager
def track(name: str) -> Iterator[TrackedBlock]:
    """Measure a block of code. May be nested, in cells and in itself, and used on any thread.

    Starts tracking if nothing did. The numbers of the block may be read inside it (so far) and after it.
    """
    running = session()
    if running.state == "off":
        running.start()
    block = TrackedBlock(running, running.open_span(label=name))
    error = ""
    try:
        yield block
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        running.close_span(block.id, label=name, error=error)


class TrackedBlock:
    """Numbers of a ``track()`` block, in bytes of device memory over all devices.

    They are computed when they are read: ``held_bytes`` is what is still live at that moment.
    """

    def __init__(self, running: Session, span: int) -> None:
        self._session = running
        self.id = span

    def report(self) -> Shown[CellReport]:
        """The whole report, to be displayed or searched."""
        return shown_cell_report(self._session.report(self.id))

    def _report(self) -> CellReport:
        return self._session.report(self.id)

    @property
    def delta_bytes(self) -> int:
        """Live bytes at the end of the block (or now) minus at its start."""
        return self._report().delta_bytes

    @property
    def peak_bytes(self) -> int:
        """Highest live bytes within the block, exact at every allocation."""
        return self._report().peak_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes allocated in the block and still live."""
        return self._report().held_bytes

    @property
    def allocations(self) -> int:
        """How many device allocations the block made."""
        return sum(row.count for row in self._report().allocators)

    @property
    def per_device(self) -> dict[int, DeviceChange]:
        """The same numbers device by device, by CUDA ordinal."""
        return {change.device.ordinal: change for change in self._report().devices}

    def __repr__(self) -> str:
        return repr(self.report())
