"""Who holds what a cell left behind."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpumem_magic.model.holders import HeldBy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.born import Born
    from gpumem_magic.model.holders import Holder, Holders

_FRAME = re.compile(r"(?:^|→ )([^→]+, local \.?\w+)")
_TYPE = re.compile(r"<.*?>(?=[.\[]| →|$)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldName:
    """What is held under one name. Memory that several names reach counts to the one that a person reads first."""

    name: str  # "model", "train() in In [3]:4, local logits", "<Trainer>" of a cycle, "cuBLAS" for who allocated it
    path: str  # the way to the largest piece; "" where there is none
    bytes: int
    count: int  # pieces of memory


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """What is held in one way."""

    held_by: HeldBy | None  # None: no Python object and no framework knows it
    bytes: int
    names: tuple[HeldName, ...]  # largest first; pieces too small to have been asked for have no name

    @property
    def unnamed_bytes(self) -> int:
        return self.bytes - sum(name.bytes for name in self.names)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellHolders:
    """What was born in a cell and is live, by who holds it. Sizes in bytes of device memory."""

    rows: tuple[HeldRow, ...] = ()  # largest first
    bytes: int = 0  # of all that was born and is live
    pools: tuple[str, ...] = ()  # frameworks of whose pools the blocks count, not what these took from the driver
    problem: str = ""  # why this is not known, as a sentence

    def self_check(self) -> None:
        """Assert that every byte is in one row, and no name has more than its row."""
        assert sum(row.bytes for row in self.rows) == self.bytes, "the rows do not add up to what was born and is live"
        for row in self.rows:
            assert row.bytes > 0, "a row of nothing"
            assert row.unnamed_bytes >= 0, "names hold more than their row"


def cell_holders(found: Holders, born: Born) -> CellHolders:
    """The rows of what was ``born``, from a search ``found`` that told the holders of all of it."""
    pieces = [*_held(found.holders, born), *_unknown(found.holders, born)]
    groups: dict[HeldBy | None, list[_Piece]] = collections.defaultdict(list)
    for piece in pieces:
        groups[piece.held_by].append(piece)
    rows = [
        HeldRow(held_by=held_by, bytes=sum(each.bytes for each in group), names=_names(group))
        for held_by, group in groups.items()
    ]
    made = CellHolders(
        rows=tuple(sorted(rows, key=lambda row: -row.bytes)),
        bytes=born.bytes,
        pools=born.pools,
    )
    made.self_check()
    return made


class _Piece(NamedTuple):
    """Some bytes that have one holder."""

    held_by: HeldBy | None
    name: str  # "" when it has none
    path: str
    bytes: int


def _held(holders: Sequence[Holder], born: Born) -> list[_Piece]:
    """Of each holder, what was born."""
    columns = _columns(holders)
    shared = _shared(columns, born.ranges).tolist()
    return [_Piece(holder.held_by, *_words(holder), size) for holder, size in zip(holders, shared, strict=True) if size]


def _unknown(holders: Sequence[Holder], born: Born) -> list[_Piece]:
    """What nobody holds that Python knows, by who made it."""
    known = _shared(born.ranges, np.sort(_columns(holders), order="address"))
    left = (born.ranges["bytes"] - known).tolist()
    rows = [*zip(born.ranges["maker"].tolist(), left, strict=True)]
    rows += zip(born.unplaced["maker"].tolist(), born.unplaced["bytes"].tolist(), strict=True)
    return [_Piece(None, born.makers[maker], "", size) for maker, size in rows if size]


_RANGE_DTYPE = np.dtype([("address", "<u8"), ("bytes", "<u8")])


def _columns(holders: Sequence[Holder]) -> np.ndarray:
    return np.array([(holder.address, holder.bytes) for holder in holders], _RANGE_DTYPE)


def _shared(ranges: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Per range, how many of its bytes lie in ``others``, which are ordered and apart from each other."""
    nothing = np.zeros(1, np.uint64)
    before = np.concatenate((nothing, np.cumsum(others["bytes"], dtype=np.uint64)))
    begins = np.concatenate((others["address"], nothing))

    def below(address: np.ndarray) -> np.ndarray:
        """Bytes of ``others`` below an address."""
        place = np.searchsorted(others["address"], address, side="right") - 1
        inside = np.minimum(address - begins[place], before[place + 1] - before[place])
        found: np.ndarray = np.where(place >= 0, before[place] + inside, nothing)
        return found

    shared: np.ndarray = below(ranges["address"] + ranges["bytes"]) - below(ranges["address"])
    return shared


def _words(holder: Holder) -> tuple[str, str]:
    """The name under which a holder's memory counts, and the way to it."""
    if holder.names:
        first = holder.names[0]
        frame = _FRAME.search(first.path) if first.held_by is HeldBy.EXCEPTION else None
        return (frame.group(1) if frame else first.name), first.path
    start = _TYPE.match(holder.path)
    if start:
        return start.group(), holder.path
    return (" + ".join(holder.frameworks) if holder.held_by is HeldBy.OPAQUE else ""), ""


def _names(pieces: Sequence[_Piece]) -> tuple[HeldName, ...]:
    groups: dict[str, list[_Piece]] = collections.defaultdict(list)
    for piece in sorted(pieces, key=lambda each: -each.bytes):
        if piece.name:
            groups[piece.name].append(piece)
    made = [
        HeldName(name=name, path=group[0].path, bytes=sum(each.bytes for each in group), count=len(group))
        for name, group in groups.items()
    ]
    return tuple(sorted(made, key=lambda each: (-each.bytes, each.name)))
