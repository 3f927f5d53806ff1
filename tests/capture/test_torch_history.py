"""PyTorch's history is switched on for a cell, read, and left as it was."""

from __future__ import annotations

import collections
import gc
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.analysis.tensor_sites import TensorSites, tensor_sites
from gpumem_magic.capture.frameworks import torch_history
from gpumem_magic.capture.frameworks.torch_history import Stacks, TensorRecorder, read_blocks, read_events
from gpumem_magic.model.stacks import Frame
from gpumem_magic.model.tensor_history import NO_STACK, BlockEvent, Made, TensorHistory
from tests import fake_torch

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
FLAVOURS = ("2.1", "2.6", "2.13")

# As torch.cuda.memory._snapshot() of 2.11 returns it: one list of frames for the entry and for its block.
FRAMES = [
    {"filename": "/env/lib/python3.12/site-packages/torch/nn/functional.py", "name": "linear", "line": 125},
    {"filename": "/tmp/ipykernel_7/1.py", "name": "<module>", "line": 4},
]
SNAPSHOT: dict[str, Any] = {
    "segments": [
        {
            "device": 1,
            "address": 0x7F0000000000,
            "total_size": 20 * MIB,
            "stream": 0,
            "segment_pool_id": (0, 0),
            "frames": FRAMES,
            "blocks": [
                {
                    "address": 0x7F0000000000,
                    "size": 4 * MIB,
                    "requested_size": 4 * MIB - 24,
                    "state": "active_allocated",
                    "frames": FRAMES,
                },
                {"size": 1024, "requested_size": 1000, "state": "active_pending_free", "frames": FRAMES},
                {"size": 512, "requested_size": 4, "state": "active_allocated", "frames": []},
                {"size": 16 * MIB - 1536, "requested_size": 0, "state": "inactive", "frames": []},
            ],
        }
    ],
    "device_traces": [
        [],
        [
            {"action": "segment_alloc", "addr": 0x7F0000000000, "size": 20 * MIB, "stream": 0, "frames": FRAMES},
            {"action": "alloc", "addr": 0x7F0000000000, "size": 4 * MIB - 24, "stream": 0, "frames": FRAMES},
            {"action": "alloc", "addr": 0x7F0000400000, "size": 1000, "stream": 0, "frames": []},
            {"action": "alloc", "addr": 0x7F0000400400, "size": 4, "stream": 0},
            {"action": "free_requested", "addr": 0x7F0000400000, "size": 1000, "stream": 0, "frames": []},
            {"action": "free_completed", "addr": 0x7F0000400000, "size": 1000, "stream": 0, "frames": []},
            {"action": "oom", "device_free": 5, "size": 1 << 40, "stream": 0, "frames": FRAMES},
            {"action": "snapshot", "addr": 0, "size": 4 * MIB, "stream": 0},
        ],
    ],
}


def test_a_snapshot_is_read() -> None:
    stacks = Stacks()
    blocks = read_blocks(SNAPSHOT["segments"], stacks)
    assert blocks.tolist() == [
        (0x7F0000000000, 4 * MIB, 4 * MIB - 24, 1, 0),
        (0x7F0000400400, 512, 4, 1, NO_STACK),
    ]
    events = read_events(SNAPSHOT["device_traces"], stacks)
    assert events.tolist() == [
        (0x7F0000000000, 4 * MIB - 24, 1, 0, BlockEvent.MADE),
        (0x7F0000400000, 1000, 1, 1, BlockEvent.MADE),
        (0x7F0000400000, 1000, 1, NO_STACK, BlockEvent.FREED),
    ]
    assert stacks.all() == (
        tuple(Frame(filename=each["filename"], function=each["name"], line=each["line"]) for each in FRAMES),  # type: ignore[arg-type]
        (),
    )


def test_frames_of_c_are_left_out() -> None:
    stacks = Stacks()
    native = [
        {"filename": "??", "name": "??", "line": 0},
        {"filename": "/pytorch/c10/cuda/CUDACachingAllocator.cpp", "name": "malloc", "line": 3},
        {"filename": "/env/torch/lib/libtorch_cpu.so", "name": "at::empty", "line": 0},
        {"filename": "/usr/lib/libc.so.6", "name": "clone", "line": 0},
        {"filename": "/usr/include/c++/13/functional", "name": "operator()", "line": 9},
    ]
    assert stacks.number([*native, *FRAMES]) == stacks.number(FRAMES)
    assert len(stacks.all()[0]) == len(FRAMES)


def test_a_frame_that_took_the_place_of_another_is_not_taken_for_it() -> None:
    stacks = Stacks()
    for line in range(50):  # each dictionary is gone when the next is made, and often at the same address
        blocks = [
            {"size": 512, "state": "active_allocated", "frames": [{"filename": "a.py", "name": "f", "line": line}]}
        ]
        read_blocks([{"device": 0, "address": 0, "blocks": blocks}], stacks)
        del blocks
    assert [stack[0].line for stack in stacks.all()] == list(range(50))


# ---- switching ----


@pytest.fixture(params=FLAVOURS)
def torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return put(monkeypatch, fake_torch.make(request.param))


def put(monkeypatch: pytest.MonkeyPatch, torch: Any) -> Any:
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch


def recorded(cell: Callable[[], Any]) -> tuple[TensorHistory, TensorSites]:
    recorder = TensorRecorder()
    recorder.start()
    try:
        cell()
    finally:
        history = recorder.stop()
    sites = tensor_sites(history, {})
    sites.self_check()
    return history, sites


def by_line(sites: TensorSites) -> dict[str, tuple[int, int, int, int]]:
    """Per function of the program: count, made, highest peak of its rows, and live bytes."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for row in sites.rows:
        count, made, peak, live = found.get(row.stack[0].function, (0, 0, 0, 0))
        highest = max(peak, row.peak_bytes or 0)
        found[row.stack[0].function] = (count + row.count, made + row.made_bytes, highest, live + row.live_bytes)
    return found


def make_one(torch: Any, asked: int, device: int = 0) -> Any:
    return torch.empty(asked, device)


def test_a_cell_is_recorded_and_nothing_is_left(torch: Any) -> None:
    old = torch.empty(3 * MIB)
    kept = []

    def cell() -> None:
        for _ in range(3):
            make_one(torch, MIB)
        kept.append(make_one(torch, MIB))
        kept.append(torch.empty(10 * MIB))

    before = dict(vars(torch._C))
    history, sites = recorded(cell)
    assert by_line(sites) == {"cell": (1, 10 * MIB, 10 * MIB, 10 * MIB), "make_one": (4, 4 * MIB, MIB, MIB)}
    assert (sites.end_bytes, sites.kept_bytes, sites.made_bytes, sites.unrecorded) == (14 * MIB, 3 * MIB, 14 * MIB, ())
    assert history.notes == ()
    assert torch.cache.enabled is None
    assert not any(torch.cache.traces)
    assert vars(torch._C) == before
    (on, off) = torch.cache.switched
    assert on[:4] == ("all", "alloc", "python", torch_history.MAX_ENTRIES)
    assert on[4:] == ((False, False, False, list(torch_history._UNWANTED)) if torch.cache.flavour == "2.13" else ())
    assert off[0] is None
    del old


def test_a_block_of_an_earlier_cell_is_not_of_this_one(torch: Any) -> None:
    kept = []
    recorded(lambda: kept.append(torch.empty(MIB)))
    _, sites = recorded(lambda: None)
    assert (sites.rows, sites.kept_bytes) == ((), MIB)
    _, sites = recorded(kept.clear)
    assert (sites.rows, sites.end_bytes) == ((), 0)


def test_a_block_in_the_place_of_an_earlier_one_is_of_this_cell(torch: Any) -> None:
    kept = [torch.empty(MIB)]
    place = kept[0].data_ptr()

    def cell() -> None:
        kept.clear()
        kept.append(make_one(torch, MIB))

    _, sites = recorded(cell)
    assert kept[0].data_ptr() == place
    assert by_line(sites) == {"make_one": (1, MIB, MIB, MIB)}


def test_recording_keeps_no_tensor(torch: Any) -> None:
    recorder = TensorRecorder()
    recorder.start()
    kept = torch.empty(MIB)
    history = recorder.stop()
    referents = {id(each) for each in gc.get_referrers(torch._C)} & {id(recorder), id(history), id(vars(torch))}
    assert referents == {id(vars(torch))}
    del kept
    assert torch.cache.blocks == [[]]


def test_each_device_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = put(monkeypatch, fake_torch.make(devices=2))
    kept = []
    _, sites = recorded(lambda: kept.extend([make_one(torch, MIB, 0), make_one(torch, 2 * MIB, 1)]))
    assert [(row.device, row.live_bytes) for row in sites.rows] == [(1, 2 * MIB), (0, MIB)]


def test_a_full_ring_loses_its_begin(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_history, "MAX_ENTRIES", 30)
    kept = []

    def early() -> None:
        kept.append(torch.empty(5 * MIB))
        torch.empty(7 * MIB)

    def cell() -> None:
        early()
        for _ in range(100):
            make_one(torch, MIB)

    _, sites = recorded(cell)
    rows = by_line(sites)
    assert rows["early"] == (1, 5 * MIB, 5 * MIB, 5 * MIB)  # what lives has its line, also where its birth is lost
    (lost,) = sites.unrecorded
    assert 0 < rows["make_one"][0] < 100
    assert lost.count == 102 - 1 - rows["make_one"][0]
    assert (lost.live_bytes, lost.peak_bytes) == (0, None)
    assert sum(row.made_bytes for row in sites.all_rows()) == 112 * MIB == sites.made_bytes
    assert all(row.peak_is_bound for row in sites.rows)


class Program:
    """Makes and frees blocks at random on several lines and devices, and keeps its own books."""

    def __init__(self, torch: Any, seed: int) -> None:
        self.torch, self.random = torch, random.Random(seed)
        self.live: list[tuple[Any, str, int, int]] = []
        self.made: collections.Counter[tuple[str, int]] = collections.Counter()
        self.now: collections.Counter[tuple[str, int]] = collections.Counter()
        self.peak: collections.Counter[tuple[str, int]] = collections.Counter()

    def first(self, asked: int, device: int) -> Any:
        return self.torch.empty(asked, device)

    def second(self, asked: int, device: int) -> Any:
        return self.torch.empty(asked, device)

    def third(self, asked: int, device: int) -> Any:
        return self.torch.empty(asked, device)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.live and self.random.random() < 0.5:
                name, asked, device = self.live.pop(self.random.randrange(len(self.live)))[1:]
                self.now[name, device] -= asked
            name = self.random.choice(("first", "second", "third"))
            asked, device = self.random.randint(1, 2000), self.random.randrange(self.torch.cache.devices)
            self.live.append((getattr(self, name)(asked, device), name, asked, device))
            self.made[name, device] += asked
            self.now[name, device] += asked
            self.peak[name, device] = max(self.peak[name, device], self.now[name, device])

    def begin_cell(self) -> None:
        """From here on only blocks that are made count; what lives already is of no line."""
        self.live = [(each[0], "before", *each[2:]) for each in self.live]
        for books in (self.made, self.now, self.peak):
            books.clear()

    def live_bytes(self) -> dict[tuple[str, int], int]:
        found: collections.Counter[tuple[str, int]] = collections.Counter()
        for _, name, asked, device in self.live:
            found[name, device] += asked
        return {key: size for key, size in found.items() if key[0] != "before"}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ring", [7, 60, 100_000])
def test_random_programs_add_up(monkeypatch: pytest.MonkeyPatch, seed: int, ring: int) -> None:
    torch = put(monkeypatch, fake_torch.make(FLAVOURS[seed % 3], devices=1 + seed % 2))
    monkeypatch.setattr(torch_history, "MAX_ENTRIES", ring)
    program = Program(torch, seed)
    program.run(30)
    for _ in range(3):
        program.begin_cell()
        _, sites = recorded(lambda: program.run(80))
        rows = {(row.stack[0].function, row.device): row for row in sites.rows}
        assert {key: row.live_bytes for key, row in rows.items() if row.live_bytes} == program.live_bytes()
        assert sites.made_bytes == sum(program.made.values())
        for key, row in rows.items():
            assert row.made_bytes <= program.made[key]
            assert (row.peak_bytes or 0) <= program.peak[key]
        if ring > 1000:
            assert {key: row.made_bytes for key, row in rows.items()} == dict(program.made)
            assert {key: row.peak_bytes for key, row in rows.items()} == dict(program.peak)
        assert bool(sites.unrecorded) is (sum(row.count for row in sites.rows) < 80), "all others are counted there"
        assert ring > 7 or sites.unrecorded


# ---- the program's own use ----


def test_history_that_the_program_records_is_left_on(torch: Any) -> None:
    torch.cuda.memory._record_memory_history(max_entries=1000)
    old = [torch.empty(MIB), torch.empty(MIB)]
    old.pop()
    switched = list(torch.cache.switched)
    kept = []
    history, sites = recorded(lambda: kept.append(make_one(torch, 4 * MIB)))
    assert by_line(sites) == {"make_one": (1, 4 * MIB, 4 * MIB, 4 * MIB)}
    assert sites.kept_bytes == MIB
    assert history.notes == (
        torch_history.THEIRS_WITHOUT_TIMES if torch.cache.flavour == "2.1" else torch_history.THEIRS,
    )
    assert torch.cache.switched == switched
    assert torch.cache.enabled == "all"
    assert [entry["action"] for entry in torch.cache.traces[0]][:2] == ["alloc", "alloc"]


def test_history_that_the_cell_switches_on_is_left_on(torch: Any) -> None:
    original = torch._C._cuda_record_memory_history
    kept = []

    def cell() -> None:
        kept.append(make_one(torch, MIB))
        torch.cuda.memory._record_memory_history(max_entries=777)
        kept.append(make_one(torch, MIB))

    history, sites = recorded(cell)
    assert by_line(sites) == {"make_one": (2, 2 * MIB, MIB, 2 * MIB)}
    assert history.notes == (torch_history.TURNED_ON,)
    assert (torch.cache.enabled, torch.cache.max_entries) == ("all", 777)
    assert len(torch.cache.traces[0]) == 2
    assert torch._C._cuda_record_memory_history is original


@pytest.mark.parametrize("off", [None, False])
def test_history_that_the_cell_switches_off_stays_off(torch: Any, off: object) -> None:
    kept = []

    def cell() -> None:
        kept.append(make_one(torch, MIB))
        make_one(torch, 3 * MIB)
        torch.cuda.memory._record_memory_history(off)
        kept.append(make_one(torch, 5 * MIB))

    history, sites = recorded(cell)
    assert by_line(sites) == {"make_one": (1, MIB, MIB, MIB)}
    (lost,) = sites.unrecorded
    assert (lost.count, lost.made_bytes, lost.live_bytes) == (2, 8 * MIB, 5 * MIB)
    assert history.notes == (torch_history.TURNED_OFF,)
    assert len(torch.cache.switched) == 2, "we switched on, the cell off"


def test_counters_set_to_0_by_the_program_are_not_believed(torch: Any) -> None:
    kept = []

    def cell() -> None:
        kept.append(make_one(torch, MIB))
        torch.cache.stats[0].update(allocation=0, requested_bytes=0)

    torch.empty(MIB)
    _, sites = recorded(cell)
    assert sites.made_bytes is None
    assert by_line(sites) == {"make_one": (1, MIB, MIB, MIB)}


# ---- where there is nothing to record ----


def test_without_pytorch_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    history, _ = recorded(lambda: None)
    assert history.problem == torch_history.ABSENT
    assert "torch" not in sys.modules


def test_no_context_is_made_for_a_pytorch_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = put(monkeypatch, fake_torch.make(initialized=False))
    history, _ = recorded(lambda: None)
    assert history.problem == torch_history.UNUSED
    assert not torch.cache.is_initialized
    assert torch.cuda._queued_calls == []


def test_recording_begins_when_pytorch_begins_to_use_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = put(monkeypatch, fake_torch.make(initialized=False))
    theirs: list[str] = []
    torch.cuda._lazy_call(lambda: theirs.append("called"))
    kept = []
    _, sites = recorded(lambda: kept.append(make_one(torch, MIB)))
    assert by_line(sites) == {"make_one": (1, MIB, MIB, MIB)}
    assert sites.made_bytes == MIB
    assert theirs == ["called"]
    assert len(torch.cuda._queued_calls) == 1
    assert torch.cache.enabled is None


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ("cudaMallocAsync", torch_history.ASYNC),
        ("pluggable", torch_history.OTHER_ALLOCATOR.format("pluggable")),
    ],
)
def test_other_allocators_have_no_history(monkeypatch: pytest.MonkeyPatch, backend: str, problem: str) -> None:
    torch = put(monkeypatch, fake_torch.make(backend=backend))
    history, _ = recorded(lambda: None)
    assert history.problem == problem
    assert torch.cache.switched == []


def test_builds_without_cuda_and_old_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = put(monkeypatch, fake_torch.make())
    del torch._C._cuda_isHistoryEnabled
    assert (
        recorded(lambda: None)[0].problem
        == "PyTorch 2.13.0 cannot tell who made its tensors. Versions from 2.1 on can."
    )
    del torch._C._cuda_getDeviceCount
    assert recorded(lambda: None)[0].problem == torch_history.NO_CUDA


@pytest.mark.parametrize("place", ["_record_memory_history", "_snapshot"])
def test_a_release_that_throws_is_a_sentence(torch: Any, place: str) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("changed")

    original = getattr(torch.cuda.memory, place)
    setattr(torch.cuda.memory, place, broken)
    recorder = TensorRecorder()
    recorder.start()
    history = recorder.stop()
    assert history.problem == "PyTorch's history could not be used (ValueError: changed)."
    setattr(torch.cuda.memory, place, original)
    assert torch.cache.enabled is None


def test_a_switch_that_throws_half_way_is_a_sentence(torch: Any) -> None:
    original = torch.cuda.memory._record_memory_history

    def half_way(enabled: Any = "all", **options: Any) -> None:
        original(enabled, **options)
        if enabled:
            raise ValueError("changed")

    torch.cuda.memory._record_memory_history = half_way
    history, sites = recorded(lambda: torch.empty(MIB))
    assert history.problem == "PyTorch's history could not be used (ValueError: changed)."
    assert sites.all_rows() == ()
    assert torch.cache.enabled is None


def test_reading_that_fails_leaves_nothing_on(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.cuda.memory._snapshot
    recorder = TensorRecorder()
    recorder.start()
    kept = torch.empty(MIB)

    def interrupted() -> None:
        raise KeyboardInterrupt

    torch.cuda.memory._snapshot = interrupted
    with pytest.raises(KeyboardInterrupt):
        recorder.stop()
    torch.cuda.memory._snapshot = original
    assert torch.cache.enabled is None
    assert not any(torch.cache.traces)
    del kept


def test_stopping_what_never_started_is_quiet(torch: Any) -> None:
    history = TensorRecorder().stop()
    assert (len(history.after), len(history.events), history.problem) == (0, 0, "")
    assert torch.cache.switched == []


def test_the_python_side_of_the_installed_pytorch_takes_what_we_say(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(torch._C, "_cuda_record_memory_history", lambda *told: called.append(told), raising=False)
    torch_history._switch_on(torch)
    torch.cuda.memory._record_memory_history(None)
    (on, off) = called
    assert on[:4] == ("all", "alloc", "python", torch_history.MAX_ENTRIES)
    assert off[0] is None
    monkeypatch.setattr(torch._C, "_cuda_memorySnapshot", lambda *_: SNAPSHOT, raising=False)
    assert torch_history._snapshot(torch) == SNAPSHOT
    queued = list(torch.cuda._queued_calls)
    recorder = TensorRecorder()
    recorder.start()
    waits = len(torch.cuda._queued_calls) - len(queued)
    assert recorder.stop().problem == (torch_history.UNUSED if waits else torch_history.NO_CUDA)
    assert torch.cuda._queued_calls == queued
    assert not torch.cuda.is_initialized()


def test_what_was_made_between_two_readings() -> None:
    between = torch_history._between
    assert between({0: Made(count=1, bytes=10)}, {0: Made(count=3, bytes=50)}) == {0: Made(count=2, bytes=40)}
    assert between({0: Made(count=1, bytes=10)}, {0: Made(count=0, bytes=10)}) is None
    assert between({0: Made(count=1, bytes=10)}, {0: Made(count=1, bytes=9)}) is None
    assert between(None, {}) is None
    assert between({}, {0: Made(count=0, bytes=0)}) is None
