"""A PyTorch of modules and a cache of its own, as far as the history of blocks goes, in the forms that releases had.

``empty()`` hands out blocks and notes the Python stack as the real one does; frames of this file stand for C code.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
import threading
import time
import types
from typing import Any

SEGMENT = 64 << 20
ROUND = 512


@dataclasses.dataclass
class Block:
    address: int
    size: int
    asked: int
    frames: list[dict[str, Any]] | None
    state: str = "active_allocated"


class Tensor:
    """Gives its block back when it goes."""

    def __init__(self, cache: Cache, block: Block, device: int) -> None:
        self._cache, self._block, self._device = cache, block, device

    def data_ptr(self) -> int:
        return self._block.address

    def __del__(self) -> None:
        self._cache.free(self._block, self._device)


class Cache:
    """The caching allocator of all devices. Freed addresses are handed out again, the lowest first."""

    def __init__(self, flavour: str, devices: int) -> None:
        self.flavour = flavour
        self.devices = devices
        self.is_initialized = False
        self.enabled: str | None = None
        self.context: str | None = None
        self.stacks = "all"
        self.skipped: tuple[str, ...] = ()
        self.max_entries = 1
        self.switched: list[tuple[Any, ...]] = []  # what the switch was called with
        self.traces: list[collections.deque[dict[str, Any]]] = [collections.deque() for _ in range(devices)]
        self.blocks: list[list[Block]] = [[] for _ in range(devices)]
        self.stats = [{"allocation": 0, "requested_bytes": 0} for _ in range(devices)]
        self.reads = 0

    # What the program does

    def empty(self, asked: int, device: int = 0) -> Tensor:
        size = -(-asked // ROUND) * ROUND
        taken = sorted((block.address, block.size) for block in self.blocks[device])
        address = (1 + device) << 40
        for start, length in taken:
            if start - address >= size:
                break
            address = start + length
        frames = _frames() if self.context is not None else None
        block = Block(address, size, asked, frames)
        self.blocks[device].append(block)
        self.stats[device]["allocation"] += 1
        self.stats[device]["requested_bytes"] += asked
        self._note("alloc", block, device)
        return Tensor(self, block, device)

    def free(self, block: Block, device: int) -> None:
        self._note("free_requested", block, device)
        self._note("free_completed", block, device)
        self.blocks[device].remove(block)

    def _note(self, action: str, block: Block, device: int) -> None:
        if self.enabled is None or action in self.skipped:
            return
        entry: dict[str, Any] = {"action": action, "addr": block.address, "size": block.asked, "stream": 0}
        if block.frames is not None and self.context in ("alloc", "all"):
            entry["frames"] = block.frames
        if self.flavour != "2.1":
            entry["time_us"] = time.time_ns() // 1000
        trace = self.traces[device]
        trace.append(entry)
        while len(trace) > self.max_entries:
            trace.popleft()

    # torch._C

    def record(self, enabled: str | None, context: str | None, stacks: str, max_entries: int, *more: Any) -> None:
        expected = {"2.1": 0, "2.6": 0, "2.13": 4}[self.flavour]
        if len(more) != expected:
            raise TypeError(f"_cuda_record_memory_history(): incompatible function arguments: {more}")
        self.is_initialized = True  # the real one makes a CUDA context, too
        self.switched.append((enabled, context, stacks, max_entries, *more))
        self.enabled, self.stacks = enabled, stacks
        self.context = context if enabled else None
        self.max_entries = max_entries if enabled == "all" else 1
        self.skipped = tuple(more[3]) if more else ()
        if enabled is None or (more and more[0]):
            for trace in self.traces:
                trace.clear()

    def is_enabled(self) -> bool:
        assert self.is_initialized, "the real one would read beyond an empty list here"
        return self.enabled is not None

    def snapshot(self, *pool: Any) -> dict[str, Any]:
        self.reads += 1
        history = True
        if self.flavour == "2.1" and pool:
            raise TypeError("torch._C._cuda_memorySnapshot() takes no arguments (1 given)")
        if pool and pool[0] is not None:
            if self.flavour != "2.13" and len(pool[0]) != 2:
                raise RuntimeError("mempool_id must be a tuple of 2 integers")
            history = len(pool[0]) != 3 or pool[0][2]
        traces = [[dict(entry) for entry in trace] if history else [] for trace in self.traces]
        return {"segments": [self._segment(device) for device in range(self.devices)], "device_traces": traces}

    def _segment(self, device: int) -> dict[str, Any]:
        start = address = (1 + device) << 40
        blocks = []
        for block in sorted(self.blocks[device], key=lambda each: each.address):
            if block.address > address:
                blocks.append({"size": block.address - address, "requested_size": 0, "state": "inactive", "frames": []})
            frames = [dict(frame) for frame in block.frames or ()]
            blocks.append({"size": block.size, "requested_size": block.asked, "state": block.state, "frames": frames})
            address = block.address + block.size
        return {"device": device, "address": start, "total_size": SEGMENT, "stream": 0, "blocks": blocks}


def _frames() -> list[dict[str, Any]]:
    found = []
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            found.append({"filename": frame.f_code.co_filename, "name": frame.f_code.co_name, "line": frame.f_lineno})
        frame = frame.f_back
    return found


def make(flavour: str = "2.13", *, devices: int = 1, backend: str = "native", initialized: bool = True) -> Any:
    """A module ``torch``. ``torch.cache`` is the allocator behind it."""
    torch, core, cuda, memory = (
        types.ModuleType(name) for name in ("torch", "torch._C", "torch.cuda", "torch.cuda.memory")
    )
    cache = Cache(flavour, devices)
    cache.is_initialized = initialized
    lock = threading.Lock()
    everything: Any = torch
    everything.__version__, everything._C, everything.cuda, everything.cache = f"{flavour}.0", core, cuda, cache
    everything.empty = _empty_of(torch, cache)
    _fill_core(core, cache)
    _fill_memory(memory, core, flavour)
    vars(cuda).update(
        memory=memory,
        is_initialized=lambda: cache.is_initialized,
        get_allocator_backend=lambda: backend,
        memory_snapshot=lambda: memory._snapshot()["segments"],
        memory_stats_as_nested_dict=lambda device: _stats(cache, device),
        _queued_calls=[],
        _initialization_lock=lock,
        _lazy_call=lambda call: call() if cache.is_initialized else cuda._queued_calls.append((call, [])),
    )
    return torch


def _empty_of(torch: Any, cache: Cache) -> Any:
    def empty(asked: int, device: int = 0) -> Tensor:
        if not cache.is_initialized:
            with torch.cuda._initialization_lock:
                cache.is_initialized = True
                for call, _ in torch.cuda._queued_calls:
                    call()
        return cache.empty(asked, device)

    return empty


def _fill_core(core: Any, cache: Cache) -> None:
    core._cuda_record_memory_history = cache.record
    core._cuda_record_memory_history_legacy = lambda enabled, *_: cache.record(
        "all" if enabled else None, "all", "all", 1, *((False, False, False, []) if cache.flavour == "2.13" else ())
    )
    core._cuda_isHistoryEnabled = cache.is_enabled
    core._cuda_memorySnapshot = cache.snapshot
    core._cuda_getDeviceCount = lambda: cache.devices


def _fill_memory(memory: Any, core: Any, flavour: str) -> None:
    def older(
        enabled: str | None = "all",
        context: str | None = "all",
        stacks: str = "all",
        max_entries: int = sys.maxsize,
        device: Any = None,
    ) -> None:
        core._cuda_record_memory_history(enabled, context, stacks, max_entries)

    def newer(  # noqa: PLR0917  (as it is)
        enabled: str | None = "all",
        context: str | None = "all",
        stacks: str = "all",
        max_entries: int = sys.maxsize,
        device: Any = None,
        clear_history: bool = False,
        compile_context: bool = False,
        global_record_annotations: bool = False,
        skip_actions: list[str] | None = None,
    ) -> None:
        core._cuda_record_memory_history(
            enabled, context, stacks, max_entries, clear_history, compile_context, global_record_annotations,
            skip_actions or [],
        )  # fmt: skip

    def switch(enabled: Any = "all", *arguments: Any, **options: Any) -> None:
        if isinstance(enabled, bool):
            core._cuda_record_memory_history_legacy(enabled)
        else:
            memory._record_memory_history_impl(enabled, *arguments, **options)

    memory._record_memory_history_impl = newer if flavour == "2.13" else older
    memory._record_memory_history = switch
    memory._snapshot = lambda: core._cuda_memorySnapshot(*(() if flavour == "2.1" else (None,)))


def _stats(cache: Cache, device: int) -> dict[str, Any]:
    if not cache.is_initialized:
        return {}
    return {name: {"all": {"allocated": value}} for name, value in cache.stats[device].items()}
