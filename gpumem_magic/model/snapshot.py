"""The Snapshot: everything a recording knows at one moment, frozen. Every answer, view and export reads one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

from gpumem_magic.model.events import NO_DEVICE, Layer, layer_of
from gpumem_magic.model.tables import METER_DTYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from gpumem_magic.model.frameworks import FrameworkMemory
    from gpumem_magic.model.stacks import StackTable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU as the recording process numbered it."""

    ordinal: int
    name: str
    total_bytes: int | None  # None when nobody could tell
    uuid: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Who made the recording. ``rank`` is -1 where there is no launcher."""

    host: str
    pid: int
    rank: int = -1
    started_unix_ns: int = 0  # wall clock, and
    started_ns: int = 0  # the monotonic clock of the events, at the same moment
    python: str = ""
    driver: str = ""  # "13.0" as cuDriverGetVersion tells it; empty when unknown
    simulated: bool = False
    degraded: str = ""  # why this recording saw samples only; empty when it saw every call


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One span: a run of a notebook cell, or a ``track()`` block. Sizes are per device where a mapping."""

    id: int
    parent: int  # 0 when it has none
    label: str  # "In [7]" or the name given to track()
    first_line: str = ""
    cell_id: str | None = None  # the front end's id, opaque
    execution_count: int | None = None
    thread: int = 0
    begin_ns: int = 0
    end_ns: int = 0  # 0 while it runs
    source_file: str = ""  # file name that the code objects of a notebook cell carry
    error: str = ""  # name of the exception that ended it, "" when none did
    begin_bytes: Mapping[int, int] = dataclasses.field(default_factory=dict)
    end_bytes: Mapping[int, int] = dataclasses.field(default_factory=dict)
    peak_bytes: Mapping[int, int] = dataclasses.field(default_factory=dict)
    peak_ns: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        return self.end_ns == 0

    @property
    def delta_bytes(self) -> int:
        """Live device bytes at the end minus at the start, over all devices."""
        return sum(self.end_bytes.values()) - sum(self.begin_bytes.values())


class EventLog(Protocol):
    """Events of a recording, read when asked for."""

    def __len__(self) -> int: ...

    @property
    def first_index(self) -> int:
        """Index of the oldest event still kept; larger than 0 once old segments were folded."""
        ...

    def count_between(self, begin_ns: int, end_ns: int) -> int:
        """How many events ``between`` would return, without reading them."""
        ...

    def between(self, begin_ns: int, end_ns: int) -> np.ndarray:
        """Events (EVENT_DTYPE) with ``begin_ns <= time_ns <= end_ns``, in order of the ledger."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch in which calls were not seen. ``end_ns`` is 0 while it lasts."""

    begin_ns: int
    end_ns: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment that somebody gave a name."""

    time_ns: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A recording at one moment. Arrays are columns; see ``model.tables`` for their fields.

    All times are nanoseconds of the recording process's monotonic clock. Immutable and free of any
    connection to the tracker, so it may be read on any thread and kept for as long as one likes.
    """

    name: str
    time_ns: int
    process: Process
    devices: tuple[Device, ...]
    allocations: np.ndarray  # ALLOCATION_DTYPE, live now, in order of birth
    mappings: np.ndarray  # MAPPING_DTYPE
    sites: np.ndarray  # SITE_DTYPE
    meters: np.ndarray  # METER_DTYPE
    series: np.ndarray  # SERIES_DTYPE: device memory over the whole recording, coarse
    cells: tuple[Cell, ...]
    gaps: tuple[Gap, ...]
    stacks: StackTable
    libraries: tuple[str, ...]  # paths; index 0 is ""
    counters: Mapping[str, int]
    events: EventLog
    marks: tuple[Mark, ...] = ()  # by time
    warnings: tuple[str, ...] = ()  # what of the recording could not be read, in sentences
    history: np.ndarray | None = None  # HISTORY_DTYPE, by device, level and time; None when nothing was sampled
    host_history: np.ndarray | None = None  # HOST_DTYPE, by level and time; None when nothing was sampled
    frameworks: tuple[FrameworkMemory, ...] = ()  # what frameworks say of their pools; nothing unless they were asked

    @property
    def live_bytes(self) -> int:
        """Device memory held by tracked allocations, over all devices."""
        return sum(self.live_bytes_by_device().values())

    def live_bytes_by_device(self, layer: Layer = Layer.DEVICE) -> dict[int, int]:
        """Live bytes of ``layer`` per device ordinal (``NO_DEVICE`` for host memory)."""
        return self._meter("live_bytes", layer)

    def peak_bytes_by_device(self, layer: Layer = Layer.DEVICE) -> dict[int, int]:
        """Highest live bytes of ``layer`` so far, per device ordinal."""
        return self._meter("peak_bytes", layer)

    def _meter(self, column: str, layer: Layer) -> dict[int, int]:
        rows = self.meters[self.meters["layer"] == layer]
        return {int(row["device"]): int(row[column]) for row in rows}

    def cell(self, cell_id: int) -> Cell:
        """The span with this id. Raises KeyError when there is none."""
        for cell in self.cells:
            if cell.id == cell_id:
                return cell
        raise KeyError(cell_id)

    def self_check(self) -> None:
        """Assert that the columns agree with each other: sums per device and layer, sites and live set."""
        totals: dict[tuple[int, int], list[int]] = {}
        for row in self.allocations:
            layer = layer_of(int(row["kind"]), int(row["device"]))
            device = NO_DEVICE if layer is Layer.HOST else int(row["device"])
            entry = totals.setdefault((device, layer), [0, 0])
            entry[0] += 1
            entry[1] += int(row["size"])
        meters = {
            (int(row["device"]), int(row["layer"])): [int(row["live_count"]), int(row["live_bytes"])]
            for row in self.meters
            if row["live_count"]
        }
        assert meters == totals, f"meters {meters} disagree with the live set {totals}"
        assert self.meters.dtype == METER_DTYPE, "meters have another layout"
        live = int(self.sites["allocated_bytes"].sum()) - int(self.sites["freed_bytes"].sum())
        assert live == int(self.allocations["size"].sum()), "sites disagree with the live set"
