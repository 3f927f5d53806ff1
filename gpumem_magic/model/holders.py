"""Who keeps device memory alive, in words: plain data that refers to none of the objects it tells of."""

from __future__ import annotations

import dataclasses
import enum
import itertools


class HeldBy(enum.IntEnum):
    """Why memory is still there. Of several reasons the first counts."""

    NOTEBOOK = 0
    EXCEPTION = 1
    RUNNING = 2
    LIBRARY = 3
    AUTOGRAD = 4
    GARBAGE = 5
    OPAQUE = 6
    LOST = 7


HELD_BY_LABELS = {
    HeldBy.NOTEBOOK: "held by notebook",
    HeldBy.EXCEPTION: "held by exception",
    HeldBy.RUNNING: "held by running code",
    HeldBy.LIBRARY: "held by library or module",
    HeldBy.AUTOGRAD: "autograd graph",
    HeldBy.GARBAGE: "garbage cycle",
    HeldBy.OPAQUE: "opaque",
    HeldBy.LOST: "lost",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name that a person knows, and the shortest way from it to some memory."""

    name: str  # "model", "Out[7]", "train() in train.py:12, local x"
    path: str  # "model.layers[3].weight"
    held_by: HeldBy
    exclusive_bytes: int  # of all memory, not of this one alone: what is freed when only this name goes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One piece of device memory and who keeps it alive."""

    address: int
    bytes: int
    device: int
    frameworks: tuple[str, ...]  # whose objects know it; several when they share it; empty for a raw pointer
    type_name: str  # of the object that knows it, "" when there is none
    held_by: HeldBy
    names: tuple[Name, ...]  # those that a person would rather read first; as many as were asked for
    name_count: int  # all that reach it: the memory goes when all of them went; 0 where names were not asked for
    path: str = ""  # where no name reaches it: from what is held from outside, or through a cycle


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NameTotal:
    """What one name alone keeps alive."""

    name: str
    held_by: HeldBy
    exclusive_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """A name, or several that lead to the same memory, and what of that goes with them."""

    names: tuple[str, ...]  # the one that a person would use first
    path: str  # from the first to the largest piece of memory
    held_by: HeldBy  # of the first
    pieces: int
    held_bytes: int
    freed_bytes: int  # when all of them go, after the names of the choice ``apart_from`` if they are none of these


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What goes when a choice of names goes together."""

    bytes: int
    lost_bytes: int  # driver memory that no object owns: its last address would go, and it would stay
    names: int  # that were chosen


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Device memory that Python objects know, largest first, and what each name alone would free."""

    holders: tuple[Holder, ...] = ()  # those that were asked for
    totals: tuple[NameTotal, ...] = ()  # of all memory
    bytes: int = 0  # of all memory
    freed: tuple[Freed, ...] = ()  # per choice of names that was asked for
    keepers: tuple[Keeper, ...] = ()  # the names of ``holders`` by what they lead to, where that was asked for
    objects: int = 0  # that were looked at

    def self_check(self) -> None:
        """Assert that memory is counted once, and that no more can be freed than there is."""
        ordered = sorted(self.holders, key=lambda holder: holder.address)
        for one, other in itertools.pairwise(ordered):
            assert one.address + one.bytes <= other.address, "memory is counted twice"
        assert sum(holder.bytes for holder in self.holders) <= self.bytes, "holders hold more than there is"
        assert sum(total.exclusive_bytes for total in self.totals) <= self.bytes, "names free more than there is"
        for holder in self.holders:
            assert len(holder.names) <= holder.name_count, "more names than were counted"
        for keeper in self.keepers:
            assert keeper.freed_bytes <= self.bytes, f"{keeper.names[0]} frees more than there is"
