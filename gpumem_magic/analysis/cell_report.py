"""What one cell run, or one ``track()`` block, did to device memory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from gpumem_magic.model.snapshot import Cell, Device, Gap, Process
    from gpumem_magic.model.stacks import Frame


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Live device bytes of one device while the cell ran; a step function, exact or decimated to min and max."""

    device: int
    seconds: np.ndarray  # float64, since the cell began, ascending; starts at 0 and ends at the duration
    live_bytes: np.ndarray  # int64, live from that moment on; same shape as seconds
    peak_index: int  # where live_bytes is highest
    decimated: bool  # False when every event of the cell is a point


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """One device's bytes over the cell."""

    device: Device
    begin_bytes: int
    end_bytes: int
    peak_bytes: int  # highest live bytes within the cell, at event granularity
    held_bytes: int  # born inside and still live
    timeline: Timeline | None  # None when the events of the cell are no longer kept

    @property
    def delta_bytes(self) -> int:
        return self.end_bytes - self.begin_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Allocator:
    """Who allocated: one row per Python line, library, kind and device."""

    stack: tuple[Frame, ...]  # innermost first, our own and IPython's frames left out; empty for a native thread
    where: str  # "train.py:12 forward", "In [7]:3", or "(no Python frame)"
    library: str  # short name such as "torch (libc10_cuda.so)"; "" when unknown
    kind: str  # KIND_LABELS
    layer: int  # Layer
    device: int
    count: int
    allocated_bytes: int
    live_count: int
    live_bytes: int  # still live at the time of the snapshot
    peak_bytes: int
    failed_count: int
    background: bool  # made by another thread than the one that ran the cell


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """The answer to "what did this cell do?". All sizes in bytes; device layer only unless a field says so."""

    cell: Cell
    process: Process
    duration_s: float
    devices: tuple[DeviceChange, ...]  # those that the cell touched; all known ones when it touched none
    allocators: tuple[Allocator, ...]  # by allocated bytes, largest first
    hidden_allocators: int  # rows below the --min threshold, left out above
    hidden_bytes: int  # what those allocated
    stays: tuple[Allocator, ...]  # rows of all layers with live_bytes > 0, largest first
    other_layers: tuple[tuple[str, int, int], ...]  # (layer's name, delta bytes, peak bytes) for those that changed
    failures: int  # driver calls that failed
    gaps: tuple[Gap, ...]  # gaps that overlap the cell: its numbers miss what happened in them
    notes: tuple[str, ...]  # sentences a reader must know before trusting a number

    @property
    def delta_bytes(self) -> int:
        return sum(device.delta_bytes for device in self.devices)

    @property
    def peak_bytes(self) -> int:
        """Sum of the devices' peaks: equal to the true joint peak when one device was used."""
        return sum(device.peak_bytes for device in self.devices)

    @property
    def held_bytes(self) -> int:
        return sum(device.held_bytes for device in self.devices)
