"""Why memory ran out, and what would give some back: plain data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpumem_magic.model.holders import Keeper


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an exception says of the memory that could not be had. Sizes in bytes, None for what it does not say."""

    exception: str  # "torch.OutOfMemoryError"
    framework: str  # "torch", "cupy", "jax", "numba", "cuda", or "" when the exception does not tell
    text: str  # its message
    requested_bytes: int | None = None
    device: int | None = None
    limit_bytes: int | None = None  # of the framework's own pool, where one was set


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that gives memory back."""

    command: str  # "%gpumem free traceback"
    purpose: str
    bytes: int  # that it is predicted to free
    is_safe: bool  # no name of the notebook goes with it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The answer to "why did this run out of memory, and what would fix it?", of one device. Sizes in bytes."""

    refusal: Refusal
    cell: str  # "In [7]"
    where: str  # the line that asked: "train.py:12 forward", "In [7]:3 via torch.nn.functional.linear"
    device: int
    device_name: str
    total_bytes: int | None
    is_at_failure: bool  # the sizes are those of that moment; else of the end of the cell
    requested_bytes: int | None
    free_bytes: int  # of the device
    other_bytes: int  # other processes, and the driver itself
    base_bytes: int  # this process's context and kernels
    live_bytes: int  # handed out to programs
    cached_bytes: int  # kept by pools and could be given back
    pieces_bytes: int  # kept by pools between what is in use
    largest_piece_bytes: int
    rest_bytes: int  # rounding, and what is not explained
    pinned_bytes: int  # that only the exception keeps
    keepers: tuple[Keeper, ...]  # the largest first
    actions: tuple[Action, ...]  # the safe ones first, each by what it gives
    safe_bytes: int  # that the safe actions would free together
    note: str = ""  # what a reader must know before trusting a number, as a sentence

    @property
    def missing_bytes(self) -> int | None:
        """How much more would have been needed; None when it is not known what was asked for."""
        return None if self.requested_bytes is None else max(self.requested_bytes - self.free_bytes, 0)

    def self_check(self) -> None:
        """Assert that the parts are those of the device, and that nothing gives more than there is."""
        parts = self.free_bytes + self.other_bytes + self.base_bytes + self.live_bytes
        parts += self.cached_bytes + self.pieces_bytes + self.rest_bytes
        assert self.total_bytes is None or parts == self.total_bytes, "the parts do not add up to the device"
        assert self.safe_bytes >= max((each.bytes for each in self.actions if each.is_safe), default=0)
        assert self.pinned_bytes <= self.safe_bytes
