"""Snapshots by hand: say what happened on a fake clock, get what the tracker would have recorded.

Events go through the reference ledger, and carry what the native core puts into events that end something.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.model.events import DEATHS, EVENT_DTYPE, NO_DEVICE, Kind, Layer
from gpumem_magic.model.ledger import ReferenceLedger
from gpumem_magic.model.snapshot import Cell, Device, Gap, Process, Snapshot
from gpumem_magic.model.stacks import Code, StackTable
from gpumem_magic.model.tables import NODE_DTYPE, SERIES_DTYPE
from gpumem_magic.model.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB = 1024**2
GIB = 1024**3
SECOND = 1_000_000_000
START_NS = 5_000 * SECOND

TORCH = "/env/lib/python3.12/site-packages/torch/lib/libc10_cuda.so"
CUBLAS = "/env/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.13"
LINEAR = ("/env/lib/python3.12/site-packages/torch/nn/functional.py", "linear", 2300)
IPYTHON = ("/env/lib/python3.12/site-packages/IPython/core/interactiveshell.py", "InteractiveShell.run_code", 3600)

FrameSpec = tuple[str, str, int]
"""File name, qualified name, line."""


def notebook(number: int, line: int, function: str = "<module>") -> FrameSpec:
    """A frame of the cell whose source IPython filed under ``number``."""
    return (f"/tmp/ipykernel_4242/{number}.py", function, line)


class EventArray:
    """An event log in memory. ``first`` events were folded and are no longer kept."""

    def __init__(self, events: np.ndarray, first: int = 0) -> None:
        self._events = events[first:]
        self.first_index = first

    def __len__(self) -> int:
        return len(self._events)

    def count_between(self, begin_ns: int, end_ns: int) -> int:
        return len(self.between(begin_ns, end_ns))

    def between(self, begin_ns: int, end_ns: int) -> np.ndarray:
        times = self._events["time_ns"]
        return self._events[(times >= begin_ns) & (times <= end_ns)]


class Recording:
    """A recording in the making. Every event takes a millisecond; ``wait`` passes time."""

    def __init__(self, *devices: tuple[str, str | int | None], **process: object) -> None:
        described = devices or (("NVIDIA H200", "141GiB"),)
        self.devices = tuple(
            Device(ordinal=ordinal, name=name, total_bytes=None if total is None else parse_size(total))
            for ordinal, (name, total) in enumerate(described)
        )
        self.process = Process(
            **{"host": "node7", "pid": 4242, "started_ns": START_NS, "driver": "13.0", "python": "3.12.3"} | process
        )
        self.now = START_NS
        self.ledger = ReferenceLedger()
        self.events: list[dict[str, int]] = []
        self.cells: dict[int, Cell] = {}
        self.open: list[int] = []
        self.gaps: list[Gap] = []
        self.libraries = [""]
        self._codes: dict[int, Code] = {}
        self._code_ids: dict[FrameSpec, int] = {}
        self._nodes: dict[tuple[int, int], int] = {}
        self._next_address = 0x7F00_0000_0000

    # Events

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def event(self, kind: Kind, **fields: int) -> None:
        """Any event; fields that are not given are 0, the cell is the innermost open one."""
        self.now += 1_000_000
        cell = self.open[-1] if self.open else 0
        event = dict.fromkeys(EVENT_DTYPE.names, 0) | {"time_ns": self.now, "kind": kind, "cell": cell} | fields
        before = self._live()
        self.ledger.apply(event)
        self.events.append(event | _ended(kind, before, self._live()))

    def alloc(
        self,
        size: str | int,
        *stack: FrameSpec,
        kind: Kind = Kind.ALLOC,
        library: str = TORCH,
        device: int = 0,
        **fields: int,
    ) -> int:
        """A birth; returns its address. ``stack``: innermost frame first."""
        address = fields.pop("address", 0) or self._address()
        is_host = kind in (Kind.ALLOC_HOST, Kind.REGISTER_HOST)
        self.event(
            kind,
            address=address,
            size=parse_size(size),
            stack=self.stack(stack),
            library=self.library(library),
            device=NO_DEVICE if is_host else device,
            **fields,
        )
        return address

    def free(self, address: int, kind: Kind = Kind.FREE, **fields: int) -> None:
        self.event(kind, address=address, **fields)

    def fail(self, size: str | int, *stack: FrameSpec, kind: Kind = Kind.ALLOC, status: int = 2) -> None:
        self.event(kind, size=parse_size(size), stack=self.stack(stack), library=self.library(TORCH), status=status)

    @contextlib.contextmanager
    def cell(
        self, count: int | None, first_line: str = "", *, label: str = "", error: str = "", **fields: object
    ) -> Iterator[int]:
        """A cell run (``count``) or a block (None, with a label)."""
        cell_id = len(self.cells) + 1
        parent = self.open[-1] if self.open else 0
        self.event(Kind.SPAN_BEGIN, address=cell_id, handle=parent)
        self.cells[cell_id] = Cell(
            id=cell_id,
            parent=parent,
            label=label or f"In [{count}]",
            first_line=first_line,
            execution_count=count,
            begin_ns=self.now,
            **fields,
        )
        self.open.append(cell_id)
        yield cell_id
        self.open.remove(cell_id)
        self.event(Kind.SPAN_END, address=cell_id)
        self.cells[cell_id] = dataclasses.replace(self.cells[cell_id], end_ns=self.now, error=error)

    def gap(self, seconds: float, reason: str) -> None:
        """A stretch in which nothing is seen."""
        self.event(Kind.GAP_BEGIN)
        begin = self.now
        self.wait(seconds)
        self.event(Kind.GAP_END)
        self.gaps.append(Gap(begin_ns=begin, end_ns=self.now, reason=reason))

    # Tables

    def stack(self, frames: Sequence[FrameSpec]) -> int:
        """The id of a stack, innermost frame first."""
        node = 0
        for frame in reversed(frames):
            code = self._code_ids.setdefault(frame, len(self._code_ids) + 1)
            filename, function, line = frame
            self._codes[code] = Code(filename=filename, function=function, first_line=line, line_table=b"")
            node = self._nodes.setdefault((node, code), len(self._nodes) + 1)
        return node

    def library(self, path: str) -> int:
        if path not in self.libraries:
            self.libraries.append(path)
        return self.libraries.index(path)

    def snapshot(
        self, *, folded: int = 0, warnings: tuple[str, ...] = (), series: Sequence[tuple[object, ...]] = ()
    ) -> Snapshot:
        """What is known now; the first ``folded`` events are no longer kept. ``series``: rows of SERIES_DTYPE."""
        nodes = np.zeros(len(self._nodes), NODE_DTYPE)
        for (parent, code), node in self._nodes.items():
            nodes[node - 1] = (parent, code, 0)
        self.ledger.self_check()
        snapshot = Snapshot(
            name="test",
            time_ns=self.now,
            process=self.process,
            devices=self.devices,
            allocations=self.ledger.allocations,
            mappings=self.ledger.mappings,
            sites=self.ledger.sites,
            meters=self.ledger.meters,
            series=np.array(list(series), SERIES_DTYPE),
            cells=tuple(self._metered(cell) for cell in self.cells.values()),
            gaps=tuple(self.gaps),
            stacks=StackTable(nodes, dict(self._codes)),
            libraries=tuple(self.libraries),
            counters=self.ledger.counters,
            events=EventArray(self._event_array(), folded),
            warnings=warnings,
        )
        snapshot.self_check()
        return snapshot

    def _event_array(self) -> np.ndarray:
        names = EVENT_DTYPE.names
        return np.array([tuple(event[name] for name in names) for event in self.events], EVENT_DTYPE)

    def _metered(self, cell: Cell) -> Cell:
        table = self.ledger.span_meters
        rows = table[(table["span"] == cell.id) & (table["layer"] == Layer.DEVICE)]
        columns = ("begin_bytes", "end_bytes", "peak_bytes", "peak_ns")
        return dataclasses.replace(
            cell, **{name: {int(row["device"]): int(row[name]) for row in rows} for name in columns}
        )

    def _live(self) -> dict[tuple[int, int], int]:
        return {(int(row["device"]), int(row["layer"])): int(row["live_bytes"]) for row in self.ledger.meters}

    def _address(self) -> int:
        self._next_address += 0x10000
        return self._next_address


def _ended(kind: Kind, before: dict[tuple[int, int], int], after: dict[tuple[int, int], int]) -> dict[str, int]:
    """What the native core adds to an event that ended something."""
    lost = {key: size - after[key] for key, size in before.items() if size != after[key]}
    if kind == Kind.CONTEXT_DESTROY:
        return {"size": sum(size for (_, layer), size in lost.items() if layer == Layer.DEVICE)}
    if kind in DEATHS or kind == Kind.UNMAP:
        return {"handle": sum(lost.values())}
    return {}
