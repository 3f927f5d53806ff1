"""What the tracker does right now."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpumem_magic.model.snapshot import Device


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the tracker does right now, for people and for tests."""

    state: str  # "on", "paused", "yielded", "degraded", "no GPU" or "off"
    reason: str = ""  # why it is not simply "on"; "" when it is
    library: str = ""  # the CUPTI in use
    slot_holder: str = ""  # who holds CUPTI when it is not us
    simulated: bool = False
    driver: str = ""
    devices: tuple[Device, ...] = ()
    recording: str = ""  # directory, or "memory"
    warnings: tuple[str, ...] = ()
    events: int = 0
    gaps: int = 0
    stacks: str = ""  # "" when stacks are taken, else why not
    overhead_s: float = 0.0  # time spent in callbacks so far, estimated from one in 64
    profiler_courtesy: tuple[str, ...] = ()  # profilers that CUPTI will be lent to
