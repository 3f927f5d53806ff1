"""Why device memory ran out: what was asked for, where all of it was at that moment, and what gives some back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gpumem_magic.analysis.changes import changes
from gpumem_magic.analysis.incidents import OUT_OF_MEMORY, refusals
from gpumem_magic.analysis.timelines import MAX_EVENTS
from gpumem_magic.model.events import Layer
from gpumem_magic.model.holders import HeldBy
from gpumem_magic.model.out_of_memory import Action, OutOfMemory
from gpumem_magic.model.release import WORDS as RELEASE_WORDS

if TYPE_CHECKING:
    from gpumem_magic.analysis.byte_ledger import ByteLedger, DeviceLedger
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.model.out_of_memory import Refusal
    from gpumem_magic.model.snapshot import Cell, Snapshot

MOST_KEEPERS = 10
_MOST_VARIABLES = 3
_LEAST_SHARE = 0.0005  # of a device: what gives less is no action worth a line


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """A call of the driver that was refused because memory was gone."""

    time_ns: int
    device: int
    bytes: int
    freed_since: int  # of that device's memory, by this process, until the snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a framework told while it failed, before anything was given back on the way out. Sizes in bytes."""

    device: int
    requested_bytes: int
    free_bytes: int  # of the device
    ledger: ByteLedger


def refused_call(snapshot: Snapshot, cell: Cell) -> RefusedCall | None:
    """The latest call that was refused for want of memory in ``cell``; None when there is none, or too many events."""
    if not snapshot.counters["failures"]:
        return None
    if snapshot.events.count_between(cell.begin_ns, snapshot.time_ns) > MAX_EVENTS:
        return None
    events = snapshot.events.between(cell.begin_ns, snapshot.time_ns)
    found = refusals(events)
    found = found[found["status"] == OUT_OF_MEMORY]
    if not len(found):
        return None
    latest = found[-1]
    since = changes(events[events["time_ns"] > latest["time_ns"]])
    mine = since[(since["layer"] == Layer.DEVICE) & (since["device"] == latest["device"])]
    return RefusedCall(
        time_ns=int(latest["time_ns"]),
        device=int(latest["device"]),
        bytes=int(latest["size"]),
        freed_since=max(-int(mine["delta"].sum()), 0),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one failure. ``ledger`` and ``holders`` are of the end of the cell."""

    refusal: Refusal
    cell: str
    where: str
    call: RefusedCall | None
    moment: Moment | None
    ledger: ByteLedger
    device: int  # ordinal; what ``holders`` predicts is of its memory alone
    note: str
    holders: Holders  # with two choices, see ``CHOICES``


# What ``Evidence.holders`` was asked to predict, in this order.
CHOICES = ("the exception", "the exception and all outputs")


def out_of_memory(evidence: Evidence) -> OutOfMemory:
    """The card of a failure."""
    ordinal = evidence.device
    ledger = evidence.ledger if evidence.moment is None else evidence.moment.ledger
    device = next(each for each in ledger.devices if each.device.ordinal == ordinal)
    moment, call = evidence.moment, evidence.call
    freed_since = call.freed_since if moment is None and call is not None else 0
    parts = _parts(device, freed_since)
    total = device.device.total_bytes
    free = moment.free_bytes if moment else max((total or device.used_bytes) - device.used_bytes - freed_since, 0)
    actions = _actions(evidence, total or device.used_bytes)
    return OutOfMemory(
        refusal=evidence.refusal,
        cell=evidence.cell,
        where=evidence.where,
        device=ordinal,
        device_name=device.device.name,
        total_bytes=total,
        is_at_failure=moment is not None or call is not None,
        requested_bytes=_requested(evidence),
        free_bytes=free,
        rest_bytes=(total - free - sum(parts.values())) if total else 0,
        largest_piece_bytes=max((row.largest_bytes for row in device.leaves()), default=0),
        pinned_bytes=evidence.holders.freed[0].bytes,
        keepers=evidence.holders.keepers[:MOST_KEEPERS],
        actions=tuple(actions),
        note=evidence.note,
        safe_bytes=sum(action.bytes for action in actions if action.is_safe),
        **parts,
    )


def failing_device(refusal: Refusal, call: RefusedCall | None, moment: Moment | None, ledger: ByteLedger) -> int | None:
    """Ordinal of the device whose memory ran out, as far as it is known: else the fullest. None when there is none."""
    known = {each.device.ordinal for each in ledger.devices}
    told = (None if moment is None else moment.device, None if call is None else call.device, refusal.device)
    fullest = max(ledger.devices, key=lambda each: each.process_bytes or 0, default=None)
    last = None if fullest is None else fullest.device.ordinal
    return next((each for each in told if each is not None and each in known), last)


def _requested(evidence: Evidence) -> int | None:
    """What the program asked for. A framework asks the driver for more than that, so the driver's call comes last."""
    if evidence.moment is not None:
        return evidence.moment.requested_bytes
    if evidence.refusal.requested_bytes is not None:
        return evidence.refusal.requested_bytes
    return None if evidence.call is None or not evidence.call.bytes else evidence.call.bytes


def _parts(device: DeviceLedger, freed_since: int) -> dict[str, int]:
    """Bytes by what they are; what was freed between the failure and the ledger was in use then."""
    leaves = device.leaves()

    def of(*kinds: str) -> int:
        return sum(row.bytes for row in leaves if row.kind in kinds)

    returnable = sum(row.bytes for row in leaves if row.kind == "cached" and row.command)
    return {
        "other_bytes": of("other"),
        "base_bytes": of("context", "code"),
        "live_bytes": of("live") + freed_since,
        "cached_bytes": returnable,
        "pieces_bytes": of("cached") - returnable,
    }


def _actions(evidence: Evidence, total: int) -> list[Action]:
    """Those that give something, the safe ones first. Each counts what is left to free after the exception is gone."""
    found = evidence.holders
    least = int(total * _LEAST_SHARE)
    exception, with_outputs = (freed.bytes for freed in found.freed)
    mine = [each for each in found.holders if each.device == evidence.device and each.frameworks]
    garbage = sum(each.bytes for each in mine if each.held_by is HeldBy.GARBAGE)
    safe = [
        Action(command="%gpumem free traceback", purpose=_TRACEBACK, bytes=exception, is_safe=True),
        Action(command="%gpumem free cycles", purpose=_CYCLES, bytes=garbage, is_safe=True),
        Action(command="%gpumem free cache", purpose=_CACHE, bytes=_returnable(evidence), is_safe=True),
    ]
    outputs = Action(command="%gpumem free out", purpose=_OUTPUTS, bytes=with_outputs - exception, is_safe=False)
    variables = [
        Action(
            command=_freeing(names),
            purpose=_VARIABLE,
            bytes=each.freed_bytes,
            is_safe=False,
        )
        for each in found.keepers
        if (names := [name for name in each.names if name.isidentifier() and not name.startswith("_")])
        and each.held_by is HeldBy.NOTEBOOK
        and len(names) == len(each.names)
    ]
    variables.sort(key=lambda each: -each.bytes)
    ordered = [*sorted(safe, key=lambda each: -each.bytes), outputs, *variables[:_MOST_VARIABLES]]
    return [each for each in ordered if each.bytes > (0 if each.is_safe else least)]


def _freeing(names: list[str]) -> str:
    """The command that frees variables, which may be called like one of its own words."""
    return f"%gpumem free {' '.join(f'--variable {each}' if each in RELEASE_WORDS else each for each in names)}"


def _returnable(evidence: Evidence) -> int:
    devices = (each for each in evidence.ledger.devices if each.device.ordinal == evidence.device)
    leaves = (row for each in devices for row in each.leaves())
    return sum(row.bytes for row in leaves if row.kind == "cached" and row.command)


_TRACEBACK = "let go of the exception and the variables of its frames; %debug is lost"
_CYCLES = "collect garbage that refers to itself"
_CACHE = "let frameworks give back what they keep for later"
_OUTPUTS = "let go of what Out[n] and _ keep"
_VARIABLE = "delete it, if it is not needed any more"
