"""Which line made which of PyTorch's blocks in one cell, and what of it is still live."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.frames import distinct_names, is_user, short_path, shown_frames, where
from gpumem_magic.model.tensor_history import NO_STACK, BlockEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumem_magic.model.stacks import Frame
    from gpumem_magic.model.tensor_history import TensorHistory

NOT_RECORDED = "(not recorded)"
_TORCH = frozenset({"torch", "functorch"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorSite:
    """Blocks that one stack made on one device. All bytes are those that were asked for."""

    stack: tuple[Frame, ...]  # innermost first, without PyTorch's own frames; empty without a Python frame
    where: str  # "In [7]:3", "train.py:12 forward", "(no Python frame)"
    frames: tuple[str, ...]  # one label per frame of the stack
    device: int
    count: int
    made_bytes: int
    live_count: int
    live_bytes: int  # still live at the end of the cell
    peak_bytes: int | None  # highest sum of its live blocks within the cell; None when nothing tells
    peak_is_bound: bool  # part of the history is lost: the peak was at least this
    largest_bytes: int | None  # the largest block; None when nothing tells


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorSites:
    """The answer to "which line made which tensors?" for one cell."""

    rows: tuple[TensorSite, ...] = ()  # the most live bytes first, then the most made
    unrecorded: tuple[TensorSite, ...] = ()  # per device, what was made and has no stack
    end_bytes: int = 0  # of all live blocks at the end
    kept_bytes: int = 0  # of these, live since before the cell
    taken_bytes: int = 0  # what the cell's own live blocks take from the cache, alignment included
    made_bytes: int | None = None  # by PyTorch's counters; None when they do not tell
    notes: tuple[str, ...] = ()
    problem: str = ""  # why there is nothing, as a sentence

    @property
    def count(self) -> int:
        return sum(row.count for row in self.all_rows())

    @property
    def live_bytes(self) -> int:
        return sum(row.live_bytes for row in self.all_rows())

    def all_rows(self) -> tuple[TensorSite, ...]:
        """Rows of stacks, then of what was not recorded."""
        return self.rows + self.unrecorded

    def self_check(self) -> None:
        """Assert that the rows account for every live block that the cell made, and for all that PyTorch counted."""
        born = self.end_bytes - self.kept_bytes
        assert self.live_bytes == born, f"rows have {self.live_bytes} live bytes, the cell's blocks have {born}"
        made = sum(row.made_bytes for row in self.all_rows())
        assert self.made_bytes in (None, made), f"rows made {made} bytes, PyTorch counted {self.made_bytes}"
        for row in self.all_rows():
            assert 0 <= row.live_bytes <= row.made_bytes, f"{row.where}: more is live than was made"
            assert 0 <= row.live_count <= row.count, f"{row.where}: more blocks are live than were made"
        for row in self.rows:
            assert row.peak_bytes is not None, f"{row.where}: a stack has no peak"
            assert row.live_bytes <= row.peak_bytes <= row.made_bytes, f"{row.where}: the peak is out of bounds"


_Place = tuple[int, int]  # device, address
_Key = tuple["tuple[Frame, ...] | None", int]  # a shown stack, None where none was recorded; device


@dataclasses.dataclass(slots=True)
class _Sum:
    """A row in the making."""

    count: int = 0
    made: int = 0
    live_count: int = 0
    live: int = 0
    now: int = 0  # live at the point of the history that was reached
    peak: int = 0
    largest: int = 0

    def make(self, asked: int) -> None:
        self.count += 1
        self.made += asked
        self.largest = max(self.largest, asked)
        self.now += asked
        self.peak = max(self.peak, self.now)


def tensor_sites(history: TensorHistory, labels: Mapping[str, str]) -> TensorSites:
    """Rows per stack and device.

    What is live at the end is told by the blocks themselves, whose stacks PyTorch keeps for as long as they live.
    What was freed again is known from the history alone, which is a ring and may have lost its begin. What PyTorch's
    counters have beyond the rows was made without being recorded: ``TensorSites.unrecorded``.

    Args:
        history: what was recorded.
        labels: cell labels by file name (``analysis.frames.notebook_labels``).
    """
    if history.problem:
        return TensorSites(problem=history.problem, notes=history.notes)
    births = _births(history)
    fresh = _fresh(history, births)
    sums = _sums(history, births, fresh)
    counted = _counted(history, sums)
    unrecorded = {device: each for (stack, device), each in (counted or sums).items() if stack is None and each.count}
    after = history.after
    return TensorSites(
        rows=_rows(sums, labels, lost=counted is None or bool(unrecorded)),
        unrecorded=tuple(_unrecorded(device, each) for device, each in sorted(unrecorded.items())),
        end_bytes=int(after["asked"].sum()),
        kept_bytes=int(after["asked"][~fresh].sum()),
        taken_bytes=int(after["bytes"][fresh].sum()),
        made_bytes=None if counted is None else sum(each.made for each in counted.values()),
        notes=history.notes,
    )


# Which blocks the cell made


def _births(history: TensorHistory) -> dict[_Place, int]:
    """Blocks that the history knows to be live at its end, with the stack that made them."""
    born: dict[_Place, int] = {}
    for address, _, device, stack, kind in history.events.tolist():
        if kind == BlockEvent.MADE:
            born[device, address] = stack
        else:
            born.pop((device, address), None)
    return born


def _fresh(history: TensorHistory, births: Mapping[_Place, int]) -> np.ndarray:
    """Per live block whether the cell made it.

    One that the history does not mention is from before if it was there then, of the same size and stack. It cannot
    be told from one that took its place in a part of the history that is lost.
    """
    before = set(history.before.tolist())
    fresh = [(block[3], block[0]) in births or block not in before for block in history.after.tolist()]
    return np.array(fresh, bool)


def _sums(history: TensorHistory, births: Mapping[_Place, int], fresh: np.ndarray) -> dict[_Key, _Sum]:
    """What each row has made, has live, and had at most."""
    shown = [_shown(stack) for stack in history.stacks]
    sums: dict[_Key, _Sum] = collections.defaultdict(_Sum)
    for address, _, asked, device, own_stack in history.after[fresh].tolist():
        stack = births.get((device, address), own_stack)
        row = sums[None if stack == NO_STACK else shown[stack], device]
        row.live_count += 1
        row.live += asked
        if (device, address) not in births:
            row.make(asked)  # before the part of the history that is kept
    _walk(history, shown, sums)
    return sums


def _walk(history: TensorHistory, shown: Sequence[tuple[Frame, ...]], sums: dict[_Key, _Sum]) -> None:
    """Go through the history once, for counts and peaks."""
    live: dict[_Place, tuple[_Sum, int]] = {}
    for address, asked, device, stack, kind in history.events.tolist():
        ended = live.pop((device, address), None)
        if ended is not None:  # freed, or handed out again where the entry that freed it is missing
            ended[0].now -= ended[1]
        if kind == BlockEvent.MADE:
            row = sums[shown[stack], device]
            row.make(asked)
            live[device, address] = row, asked


def _shown(stack: Sequence[Frame]) -> tuple[Frame, ...]:
    """A stack without the frames of PyTorch itself, unless there are no others."""
    shown = shown_frames(stack)
    return tuple(frame for frame in shown if not _is_torch(frame.filename)) or shown


def _is_torch(filename: str) -> bool:
    return not is_user(filename) and short_path(filename).split("/")[0] in _TORCH


# What was not recorded


def _counted(history: TensorHistory, sums: Mapping[_Key, _Sum]) -> dict[_Key, _Sum] | None:
    """``sums`` with all that PyTorch counted: what has no stack is what is left.

    None when the counters do not tell, or have less than what was seen: the program may set them to 0.
    """
    if history.made is None:
        return None
    found = {key: row for key, row in sums.items() if key[0] is not None}
    for device, made in history.made.items():
        rows = [row for (_, its), row in found.items() if its == device]
        nameless = sums.get((None, device), _Sum())
        left = dataclasses.replace(
            nameless,
            count=made.count - sum(row.count for row in rows),
            made=made.bytes - sum(row.made for row in rows),
        )
        if left.count < nameless.count or left.made < nameless.made:
            return None
        found[None, device] = left
    return found if {device for _, device in sums} <= set(history.made) else None


def _unrecorded(device: int, row: _Sum) -> TensorSite:
    return dataclasses.replace(
        _row(((), device), row, {}, lost=True), where=NOT_RECORDED, peak_bytes=None, largest_bytes=None
    )


# Rows


def _rows(sums: Mapping[_Key, _Sum], labels: Mapping[str, str], *, lost: bool) -> tuple[TensorSite, ...]:
    made = [
        _row((stack, device), each, labels, lost=lost) for (stack, device), each in sums.items() if stack is not None
    ]
    names = distinct_names([row.where for row in made], [row.frames for row in made])
    told = [dataclasses.replace(row, where=name) for row, name in zip(made, names, strict=True)]
    return tuple(sorted(told, key=lambda row: (-row.live_bytes, -row.made_bytes, row.where, row.device)))


def _row(key: tuple[tuple[Frame, ...], int], row: _Sum, labels: Mapping[str, str], *, lost: bool) -> TensorSite:
    stack, device = key
    return TensorSite(
        stack=stack,
        where=where(stack, labels),
        frames=tuple(where([frame], labels) for frame in stack),
        device=device,
        count=row.count,
        made_bytes=row.made,
        live_count=row.live_count,
        live_bytes=row.live,
        peak_bytes=row.peak,
        peak_is_bound=lost,
        largest_bytes=row.largest,
    )
