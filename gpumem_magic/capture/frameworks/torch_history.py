"""PyTorch's own history of its blocks, switched on for the length of one cell.

PyTorch notes the Python stack of every block that its cache hands out, and keeps it for as long as the block lives.
It also keeps a ring of what was handed out and given back. Both end with the cell: the ring is emptied, and the
stacks go with their blocks.

The cheapest form that says who made what is gone again: ``context="alloc"`` gathers a stack when a block is made and
none when it is freed, and ``stacks="python"`` no C++ frames, whose symbols would take about 3 s to load when they are
first read.

Everything here is of PyTorch's private interface, but it is the documented way to its memory snapshots, and has kept
its form since 2.1. Nothing here imports PyTorch or makes a CUDA context.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.torch import segments_of
from gpumem_magic.model.stacks import Frame
from gpumem_magic.model.tensor_history import (
    NO_STACK,
    TENSOR_BLOCK_DTYPE,
    TENSOR_EVENT_DTYPE,
    BlockEvent,
    Made,
    TensorHistory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_ENTRIES = 100_000
"""Entries of the ring on each GPU: up to 100 MB of host memory and 0.7 s to read, when it is full."""

ABSENT = "PyTorch was not imported when this cell began, so its tensors were not recorded."
NO_CUDA = "This PyTorch was built without CUDA: it has no tensors on a GPU."
UNUSED = "PyTorch did not use a GPU."
OLD = "PyTorch {} cannot tell who made its tensors. Versions from 2.1 on can."
ASYNC = "PyTorch uses cudaMallocAsync: each of its tensors is an allocation of the driver, and in the rows above."
OTHER_ALLOCATOR = "PyTorch uses the allocator {}, which does not tell who made a tensor."
NESTED = "Tensors are recorded for the cell around this one."
THEIRS = "The program records PyTorch's history itself. It was read, and is left on."
THEIRS_WITHOUT_TIMES = (
    "The program records PyTorch's history itself, which is left on. This PyTorch does not tell when a block was made, "
    "so what was freed again in this cell is not counted."
)
TURNED_ON = "This cell switched on PyTorch's history itself. It was read, and is left on."
TURNED_OFF = "PyTorch's history was switched off in this cell: what came before and was freed is not known."

_UNWANTED = ("free_completed", "segment_alloc", "segment_free", "snapshot")
"""Entries that say nothing about who made a block. Newer releases can leave them out, which makes the ring longer."""

_SWITCHES = ("_cuda_record_memory_history", "_cuda_record_memory_history_legacy")
_KINDS = {"alloc": BlockEvent.MADE, "free_requested": BlockEvent.FREED}
_LIVE = "active_allocated"
_NATIVE = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".hxx", ".cxx")


class TensorRecorder:
    """Records one cell: ``start`` before it, ``stop`` after it, both on the thread that runs it. Neither raises."""

    def __init__(self) -> None:
        self._torch: Any = None
        self._stacks = Stacks()
        self._problem = ""
        self._is_recording = False
        self._queued: Callable[[], None] | None = None  # what PyTorch calls when it begins to use CUDA
        self._were_theirs = False
        self._watch: _Watch | None = None
        self._begin_ns = 0
        self._before = np.empty(0, TENSOR_BLOCK_DTYPE)
        self._made_before: dict[int, Made] | None = None

    def start(self) -> None:
        """Switch on, now or as soon as PyTorch begins to use CUDA."""
        self._torch = reading.module("torch")
        if self._torch is None:
            self._problem = ABSENT
            return
        try:
            self._problem = _unable(self._torch)
            if self._problem:
                return
            if self._torch.cuda.is_initialized():
                self._begin()
            else:
                # Switching on would make a CUDA context, which is for the program to do.
                self._queued = self._begin
                self._torch.cuda._lazy_call(self._queued)  # noqa: SLF001  (how all of PyTorch does it)
        except Exception as error:  # noqa: BLE001  (an older or newer release may throw anything)
            self._fail(error)

    def stop(self) -> TensorHistory:
        """Read, switch off and empty; all of it also when something goes wrong, or is interrupted, on the way."""
        torch = self._torch
        try:
            with contextlib.ExitStack() as afterwards:
                afterwards.callback(self._switch_off)
                self._stop_waiting()
                if self._is_recording and not self._problem:
                    return self._drained()
        except Exception as error:  # noqa: BLE001  (see start)
            self._fail(error)
        finally:
            self._torch = None
        waited = torch is not None and not self._problem
        return TensorHistory(problem=UNUSED if waited else self._problem)

    def _begin(self) -> None:
        """Called by PyTorch itself where it was waited for: what is raised here would be raised into user code."""
        torch = self._torch
        if torch is None or self._is_recording:
            return
        try:
            self._problem = _unfit(torch)
            if self._problem:
                return
            core = torch._C  # noqa: SLF001
            self._were_theirs = bool(core._cuda_isHistoryEnabled())  # noqa: SLF001
            self._made_before = _made(torch)
            self._begin_ns = time.time_ns()
            # Their history may be long; before ours there is none, and the same call reads the same way at both ends.
            segments = segments_of(torch) if self._were_theirs else _snapshot(torch)["segments"]
            self._before = read_blocks(segments, self._stacks)
            self._is_recording = True
            if not self._were_theirs:
                _switch_on(torch)
                self._watch = _Watch(core)
        except Exception as error:  # noqa: BLE001  (see start)
            self._fail(error)

    def _stop_waiting(self) -> None:
        """Take our call off PyTorch's list, where it stays also after it was made."""
        queued, self._queued = self._queued, None
        if queued is None:
            return
        cuda = self._torch.cuda
        with cuda._initialization_lock:  # noqa: SLF001  (another thread may be going through the list)
            cuda._queued_calls[:] = [each for each in cuda._queued_calls if each[0] is not queued]  # noqa: SLF001

    def _drained(self) -> TensorHistory:
        torch = self._torch
        snapshot = _snapshot(torch)
        traces = snapshot["device_traces"]
        has_times = all("time_us" in entry for trace in traces for entry in trace[:1])
        if self._were_theirs:  # their history may reach far back
            traces = [_since(trace, self._begin_ns // 1000) for trace in traces] if has_times else []
        return TensorHistory(
            before=self._before,
            after=read_blocks(snapshot["segments"], self._stacks),
            events=read_events(traces, self._stacks),
            stacks=self._stacks.all(),
            made=_between(self._made_before, _made(torch)),
            notes=self._notes(has_times=has_times),
        )

    def _notes(self, *, has_times: bool) -> tuple[str, ...]:
        if not self._torch._C._cuda_isHistoryEnabled():  # noqa: SLF001
            return (TURNED_OFF,)
        if self._were_theirs:
            return (THEIRS if has_times else THEIRS_WITHOUT_TIMES,)
        return (TURNED_ON,) if self._watch is not None and self._watch.touched else ()

    def _switch_off(self) -> None:
        """Switch off what we switched on, unless it has become the program's own since. Empties the ring, too."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.remove()
        if not self._is_recording:
            return
        self._is_recording = False
        if not self._were_theirs and (watch is None or not watch.touched):
            self._torch.cuda.memory._record_memory_history(None)  # noqa: SLF001

    def _fail(self, error: Exception) -> None:
        name = reading.type_name(type(error))
        self._problem = f"PyTorch's history could not be used ({name}: {error})."


class _Watch:
    """Notices when the program itself switches the history, by standing in for PyTorch's own functions."""

    def __init__(self, core: Any) -> None:
        self.touched = False
        self._core = core
        self._originals = {name: vars(core)[name] for name in _SWITCHES if name in vars(core)}
        self._ours = {name: self._noting(original) for name, original in self._originals.items()}
        for name, ours in self._ours.items():
            setattr(core, name, ours)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def switch(*arguments: Any) -> Any:
            result = original(*arguments)
            self.touched = True
            return result

        return switch

    def remove(self) -> None:
        """Put the originals back, where nobody else has put something in front of ours."""
        for name, ours in self._ours.items():
            if vars(self._core).get(name) is ours:
                setattr(self._core, name, self._originals[name])


def _unable(torch: Any) -> str:
    """Why this build of PyTorch has no history; "" when it has."""
    core = vars(torch._C)  # noqa: SLF001
    if "_cuda_getDeviceCount" not in core:
        return NO_CUDA
    known = {"_cuda_record_memory_history", "_cuda_isHistoryEnabled"} <= core.keys()
    return "" if known else OLD.format(reading.version_of(torch))


def _unfit(torch: Any) -> str:
    """Why the allocator in use has no history, and would throw when it is asked; "" when it has."""
    backend = torch.cuda.get_allocator_backend()
    if backend == "cudaMallocAsync":
        return ASYNC
    return "" if backend == "native" else OTHER_ALLOCATOR.format(backend)


def _switch_on(torch: Any) -> None:
    memory = torch.cuda.memory
    options: dict[str, Any] = {}
    if "skip_actions" in inspect.signature(memory._record_memory_history_impl).parameters:  # noqa: SLF001
        options["skip_actions"] = list(_UNWANTED)
    memory._record_memory_history(  # noqa: SLF001
        "all", context="alloc", stacks="python", max_entries=MAX_ENTRIES, **options
    )


def _snapshot(torch: Any) -> dict[str, Any]:
    found: dict[str, Any] = torch.cuda.memory._snapshot()  # noqa: SLF001
    return found


def _made(torch: Any) -> dict[int, Made] | None:
    """What each device's cache has handed out so far; None where PyTorch does not count it."""
    found = {}
    for device in range(torch._C._cuda_getDeviceCount()):  # noqa: SLF001
        stats = torch.cuda.memory_stats_as_nested_dict(device)
        if not stats:  # CUDA is just being initialised
            found[device] = Made(count=0, bytes=0)
        elif "requested_bytes" not in stats:
            return None
        else:
            count, size = (stats[name]["all"]["allocated"] for name in ("allocation", "requested_bytes"))
            found[device] = Made(count=count, bytes=size)
    return found


def _between(before: Mapping[int, Made] | None, after: Mapping[int, Made] | None) -> dict[int, Made] | None:
    """What was made in between; None when it is not known, as when the program set the counters to 0."""
    if before is None or after is None or before.keys() != after.keys():
        return None
    made = {
        device: Made(count=now.count - before[device].count, bytes=now.bytes - before[device].bytes)
        for device, now in after.items()
    }
    return None if any(each.count < 0 or each.bytes < 0 for each in made.values()) else made


# Reading a snapshot


class Stacks:
    """Gives each Python stack a number. Snapshots repeat the same frames thousands of times."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, int, str], int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._known: dict[int, int] = {}

    def forget(self) -> None:
        """The objects seen so far are gone, and others may have their ids."""
        self._known.clear()

    def number(self, frames: Sequence[Mapping[str, Any]]) -> int:
        """Of a stack as PyTorch writes it, innermost frame first. C++ frames are left out."""
        key = tuple(number for frame in frames if (number := self._frame(frame)) >= 0)
        return self._stacks.setdefault(key, len(self._stacks))

    def _frame(self, frame: Mapping[str, Any]) -> int:
        known = self._known.get(id(frame))
        if known is None:
            name = str(frame["filename"])
            place = (name, int(frame["line"]), str(frame["name"]))
            known = -1 if _is_native(name) else self._frames.setdefault(place, len(self._frames))
            self._known[id(frame)] = known
        return known

    def all(self) -> tuple[tuple[Frame, ...], ...]:
        """The stacks, in the order of their numbers."""
        frames = [Frame(filename=name, function=function, line=line) for name, line, function in self._frames]
        return tuple(tuple(frames[number] for number in stack) for stack in self._stacks)


def _is_native(filename: str) -> bool:
    """Whether a frame is one of C or C++, which are among the others where the program records those."""
    known = filename == "??" or filename.endswith(_NATIVE) or ".so" in filename.rpartition("/")[2]
    return known or "/include/c++/" in filename  # headers there have no suffix


def read_blocks(segments: Iterable[Mapping[str, Any]], stacks: Stacks) -> np.ndarray:
    """The live blocks (TENSOR_BLOCK_DTYPE) in ``segments`` of a snapshot in PyTorch's documented form."""
    stacks.forget()
    rows = []
    for segment in segments:
        address, device = segment["address"], segment["device"]
        for block in segment["blocks"]:  # they cover the segment without a hole
            size, frames = block["size"], block.get("frames")
            if block["state"] == _LIVE:
                stack = stacks.number(frames) if frames else NO_STACK
                rows.append((address, size, block.get("requested_size") or size, device, stack))
            address += size
    return np.array(rows, TENSOR_BLOCK_DTYPE)


def read_events(traces: Iterable[Iterable[Mapping[str, Any]]], stacks: Stacks) -> np.ndarray:
    """What was made and freed (TENSOR_EVENT_DTYPE) by the ``device_traces`` of a snapshot.

    Blocks that were made without a stack being gathered are left out; an empty stack is one of a thread of PyTorch's
    own.
    """
    stacks.forget()
    rows: list[tuple[int, int, int, int, int]] = []
    for device, trace in enumerate(traces):
        for entry in trace:
            kind = _KINDS.get(entry["action"])
            if kind is BlockEvent.FREED:
                rows.append((entry["addr"], entry["size"], device, NO_STACK, kind))
            elif kind is BlockEvent.MADE and "frames" in entry:
                rows.append((entry["addr"], entry["size"], device, stacks.number(entry["frames"]), kind))
    return np.array(rows, TENSOR_EVENT_DTYPE)


def _since(trace: Iterable[Mapping[str, Any]], begin_us: int) -> list[Mapping[str, Any]]:
    return [entry for entry in trace if entry["time_us"] >= begin_us]
