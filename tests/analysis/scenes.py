"""Recordings that several tests look at."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.analysis.cell_holders import CellHolders, HeldName, HeldRow
from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.analysis.growth import Growth
from gpumem_magic.model.events import EventFlag, Kind
from gpumem_magic.model.frameworks import BLOCK_DTYPE, SEGMENT_DTYPE, BlockState, FrameworkMemory, Pool
from gpumem_magic.model.holders import HeldBy, Holder, Holders, Name, NameTotal
from gpumem_magic.model.stacks import Frame
from gpumem_magic.model.tensor_history import (
    NO_STACK,
    TENSOR_BLOCK_DTYPE,
    TENSOR_EVENT_DTYPE,
    BlockEvent,
    Made,
    TensorHistory,
)
from tests.analysis.build import CUBLAS, GIB, IPYTHON, LINEAR, MIB, TORCH, Recording, notebook
from tests.analysis.histories import samples

if TYPE_CHECKING:
    from gpumem_magic.analysis.cell_report import CellReport
    from gpumem_magic.model.snapshot import Snapshot
    from tests.analysis.build import FrameSpec


def training(*, simulated: bool = False, degraded: str = "") -> tuple[Recording, int]:
    """A cell that builds a model, steps eight times and keeps the model; returns the recording and the cell's id."""
    recording = Recording(simulated=simulated, degraded=degraded)
    recording.alloc(96 * MIB, ("/home/ada/prepare.py", "load", 4))
    with recording.cell(7, "model, losses = train(steps=8)", cell_id="a1b2") as cell:
        _model(recording)
        recording.wait(0.2)
        recording.alloc(32 * MIB, LINEAR, notebook(77, 3), IPYTHON, library=CUBLAS)
        for step in range(8):
            _step(recording, step)
        recording.alloc(64 * MIB, ("/home/ada/project/loader.py", "Loader.pin", 88), kind=Kind.ALLOC_HOST)
        recording.alloc(4 * MIB, library="/usr/lib/x86_64-linux-gnu/libnccl.so.2", flags=EventFlag.BACKGROUND)
    return recording, cell


def _model(recording: Recording) -> None:
    where = ("/home/ada/project/model.py", "Net.__init__", 31)
    for _ in range(12):
        recording.wait(0.01)
        recording.alloc(40 * MIB, where, notebook(77, 1), IPYTHON)


def _step(recording: Recording, step: int) -> None:
    frames = (("/home/ada/project/train.py", "step", 12), notebook(77, 3), IPYTHON)
    held = []
    for _ in range(6):
        recording.wait(0.03)
        held.append(recording.alloc((120 + 10 * step) * MIB, *frames))
    recording.wait(0.05)
    for address in held:
        recording.wait(0.005)
        recording.free(address)


def two_devices() -> tuple[Recording, int]:
    """A cell that fills one device and a little of another."""
    recording = Recording(("NVIDIA H200", "141GiB"), ("NVIDIA H200", "141GiB"))
    with recording.cell(3, "pipeline.run(batch)") as cell:
        where = ("/home/ada/project/pipeline.py", "Stage.run", 55)
        first = recording.alloc(90 * GIB, where, notebook(30, 1), device=0)
        recording.wait(0.5)
        recording.alloc(2 * GIB, where, notebook(30, 1), device=1)
        with recording.cell(None, label="backward"):
            recording.wait(0.2)
            second = recording.alloc(30 * GIB, where, notebook(30, 2), device=0)
            recording.wait(0.3)
        recording.free(second)
        recording.free(first)
        recording.wait(0.2)
    return recording, cell


def out_of_memory() -> tuple[Recording, int]:
    """A cell that dies of a failed allocation, after a gap."""
    recording = Recording(("NVIDIA L4", "22GiB"))
    with recording.cell(12, "out = model(big)", error="OutOfMemoryError") as cell:
        recording.alloc(9 * GIB, LINEAR, notebook(99, 1, "forward"), notebook(99, 8))
        recording.wait(1.5)
        recording.gap(0.25, "torch.profiler took over CUPTI")
        recording.fail(16 * GIB, LINEAR, notebook(99, 1, "forward"), notebook(99, 8))
        recording.wait(0.1)
    return recording, cell


def series() -> Recording:
    """Three runs of a leaking cell, a nested block, a quiet cell and a running one's beginnings."""
    recording = Recording(started_unix_ns=1_760_000_000_000_000_000)
    with recording.cell(1, "import torch", cell_id="c1"):
        recording.wait(1.2)
    for run in range(3):
        with recording.cell(2 + run, "history.append(step())", cell_id="c2"):
            recording.alloc(256 * MIB, notebook(20, 1))
            recording.wait(0.3)
            with recording.cell(None, label="forward"):
                scratch = recording.alloc(
                    (512 + run) * MIB, ("/home/ada/project/train.py", "step", 12), notebook(20, 1)
                )
                recording.wait(0.4)
                recording.free(scratch)
    with recording.cell(5, "evaluate()", cell_id="c3", error="KeyboardInterrupt"):
        recording.wait(2.0)
        recording.alloc(1 * MIB, notebook(21, 1))
    recording.alloc(8 * MIB, ("/home/ada/project/daemon.py", "poll", 3))
    return recording


def torch_pool(address: int, size: int, live: int) -> FrameworkMemory:
    """One segment, of which the first ``live`` bytes are in use."""
    segments = np.array([(address, size, 0, 0)], SEGMENT_DTYPE)
    blocks = np.array([(address, live, live, 0, BlockState.LIVE)], BLOCK_DTYPE)
    pool = Pool(name="default", device=0, kind="device", empty_with="torch.cuda.empty_cache()")
    return FrameworkMemory(name="torch", version="2.11", pools=(pool,), segments=segments, blocks=blocks)


def every_owner(**measured: Any) -> Snapshot:
    """Torch's pool, a workspace of cuBLAS, raw and stream-ordered memory, and what was measured of the device."""
    recording = Recording()
    with recording.cell(1, "train()"):
        segment = recording.alloc(200 * MIB, LINEAR, notebook(1, 3), library=TORCH, address=1 << 40)
        recording.alloc(32 * MIB, LINEAR, notebook(1, 3), library=CUBLAS)
        recording.alloc(MIB, ("/home/ada/raw.py", "make", 3), library="/x/cuda/bindings/cydriver.so")
        recording.alloc(3 * MIB, ("/home/ada/raw.py", "other", 9), library="/x/cuda/bindings/cydriver.so")
        recording.alloc(10 * MIB, kind=Kind.ALLOC_ASYNC, library="/x/cuda/bindings/cydriver.so")
    columns = {
        "tracked_bytes": 246 * MIB,
        "used_bytes": 2 * GIB,
        "process_bytes": GIB,
        "context_bytes": 530 * MIB,
        "code_bytes": 92 * MIB,
        "pool_bytes": 32 * MIB,
    }
    made = recording.snapshot()
    return dataclasses.replace(
        made, history=samples(0, 3, **(columns | measured)), frameworks=(torch_pool(segment, 200 * MIB, 150 * MIB),)
    )


def left_behind() -> CellReport:
    """The report of the cell of ``training``, run for the fifth time, with who holds what it left."""
    recording, cell = training()

    def name(label: str, size: int, count: int = 1, path: str = "") -> HeldName:
        return HeldName(name=label, path=path or label, bytes=size, count=count)

    frame = "train_step() in In [12]:4, local logits"
    model = (
        name("model", 300 * MIB, 8, "model.encoder.layers[11].weight"),
        name("optimizer", 20 * MIB, path="optimizer.state[<Parameter key>]['exp_avg']"),
        name("best", 10 * MIB),
    )
    rows = (
        HeldRow(held_by=HeldBy.NOTEBOOK, bytes=340 * MIB, names=model),
        HeldRow(
            held_by=HeldBy.EXCEPTION,
            bytes=96 * MIB,
            names=(name(frame, 96 * MIB, path=f"sys.last_exc → traceback → {frame}"),),
        ),
        HeldRow(held_by=None, bytes=36 * MIB, names=(name("cuBLAS", 32 * MIB), name("NCCL", 4 * MIB))),
        HeldRow(
            held_by=HeldBy.GARBAGE, bytes=9 * MIB, names=(name("<Trainer>", 9 * MIB, path="<Trainer>.state['last']"),)
        ),
        HeldRow(held_by=HeldBy.LOST, bytes=7 * MIB, names=()),
    )
    holders = CellHolders(rows=rows, bytes=sum(row.bytes for row in rows), pools=("torch",))
    holders.self_check()
    return dataclasses.replace(cell_report(recording.snapshot(), cell), holders=holders, growth=growing()[0])


def growing() -> tuple[Growth, ...]:
    """Cells that leave more behind with every run, held in one way each."""

    def growth(label: str, *added_mib: int, first: int = 1, **holder: Any) -> Growth:
        added = tuple(each * MIB for each in added_mib)
        return Growth(label=label, first_run=first, added_bytes=added, cells=tuple(range(len(added))), **holder)

    return (
        growth("In [12]", 1200, 1210, 1190, 1200, 1200, is_searched=True, held_by=HeldBy.NOTEBOOK, holder="losses"),
        growth("In [30]", 1000, 1200, 1400, first=2, is_searched=True, held_by=HeldBy.GARBAGE, holder="<Trainer>"),
        growth("In [31]", 8, 8, 8, is_searched=True),
        growth("In [32]", 4, 4, 4, is_searched=True, held_by=HeldBy.OPAQUE),
        growth("In [33]", 2, 2, 2),
    )


def held() -> Holders:
    """What a notebook holds in which training has just failed."""

    def name(path: str, held_by: HeldBy = HeldBy.NOTEBOOK, exclusive: int = 0) -> Name:
        return Name(name=path.partition(".")[0], path=path, held_by=held_by, exclusive_bytes=exclusive)

    def holder(number: int, size: int, held_by: HeldBy, *names: Name, count: int = 0, path: str = "") -> Holder:
        return Holder(
            address=0x7F0000000000 + (number << 32),
            bytes=size,
            device=0,
            frameworks=("torch",) if held_by is not HeldBy.LOST else (),
            type_name="Parameter" if names else "Tensor" if held_by is not HeldBy.LOST else "",
            held_by=held_by,
            names=names,
            name_count=count or len(names),
            path=path,
        )

    failed = Name(
        name="sys.last_exc",
        path="sys.last_exc → traceback → train_step() in In [12]:4, local logits",
        held_by=HeldBy.EXCEPTION,
        exclusive_bytes=0,
    )
    holders = (
        holder(1, 3 * GIB, HeldBy.NOTEBOOK, name("model.encoder.layers[11].weight"), name("best['model']"), count=7),
        holder(2, 2 * GIB, HeldBy.EXCEPTION, failed, count=3),
        holder(3, GIB, HeldBy.AUTOGRAD, name("loss → grad_fn MmBackward0: saved mat2", HeldBy.NOTEBOOK)),
        holder(4, 96 * MIB, HeldBy.GARBAGE, path="<Trainer>.state['last']"),
        holder(5, 7 * MIB, HeldBy.LOST),
    )
    totals = (NameTotal(name="loss", held_by=HeldBy.NOTEBOOK, exclusive_bytes=GIB),)
    return Holders(holders=holders, totals=totals, bytes=sum(each.bytes for each in holders), objects=1_000_000)


def frames_of(*stack: FrameSpec) -> tuple[Frame, ...]:
    """A stack, innermost frame first."""
    return tuple(Frame(filename=name, function=function, line=line) for name, function, line in stack)


def tensors(*, lost: int = 0) -> TensorHistory:
    """A cell that made a model and ran it, on two GPUs. Of ``lost`` blocks the history kept nothing."""
    model = ("/home/ada/project/model.py", "__init__", 31)
    stacks = [(LINEAR, model, notebook(77, 1)), (LINEAR, notebook(77, 3), IPYTHON), ()]
    weights = [(number * 4 * MIB, 4 * MIB, 4 * MIB - 24, 0, 0) for number in range(12)]
    other = (1 << 40, 2 * MIB, 2 * MIB, 1, 2)
    events = [
        (address, asked, device, stack, BlockEvent.MADE) for address, _, asked, device, stack in [*weights, other]
    ]
    for step in range(1000):
        address = (100 + step % 2) * MIB
        events.append((address, MIB, 0, 1, BlockEvent.MADE))
        events.append((address, MIB, 0, NO_STACK, BlockEvent.FREED))
    return TensorHistory(
        stacks=tuple(frames_of(*stack) for stack in stacks),
        after=np.array([*weights, other], TENSOR_BLOCK_DTYPE),
        events=np.array(events, TENSOR_EVENT_DTYPE),
        made={
            0: Made(count=1012 + lost, bytes=12 * (4 * MIB - 24) + 1000 * MIB + lost * MIB),
            1: Made(count=1, bytes=2 * MIB),
        },
        notes=("The program records PyTorch's history itself. It was read, and is left on.",) if lost else (),
    )
