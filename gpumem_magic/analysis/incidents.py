"""What went wrong or was marked, as a list that grows while a program runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from gpumem_magic.analysis.allocators import kind_label
from gpumem_magic.analysis.frames import shown_frames, where
from gpumem_magic.analysis.timelines import MAX_EVENTS
from gpumem_magic.model.events import NO_DEVICE, EventFlag
from gpumem_magic.model.units import format_count, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from gpumem_magic.model.snapshot import Snapshot

MOST = 200
OUT_OF_MEMORY = 2  # CUDA_ERROROUT_OF_MEMORY
_Item = TypeVar("_Item")
_LAST_MEMORY_KIND = 95  # kinds above are marks, copies and waits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that a reader should know of. Times are those of the events; ``end_ns`` is 0 while a gap lasts."""

    kind: str  # "refusal", "gap" or "mark"
    begin_ns: int
    end_ns: int
    text: str
    number: int  # tells apart what began in the same nanosecond
    device: int = NO_DEVICE
    where: str = ""
    cell: str = ""


class IncidentLog:
    """Finds what is new in each snapshot of the same recording. Not thread-safe."""

    def __init__(self) -> None:
        self._refusals: list[Incident] = []
        self._failures = 0  # of the ledger's count, those that were looked for
        self._looked_ns = 0

    def incidents(self, snapshot: Snapshot, labels: Mapping[str, str]) -> list[Incident]:
        """The incidents known, by time: of refused calls, gaps and marks the latest ``MOST`` each."""
        if snapshot.counters["failures"] != self._failures:
            self._look(snapshot, labels)
        gaps = [
            Incident(
                kind="gap",
                begin_ns=gap.begin_ns,
                end_ns=gap.end_ns,
                text=f"Calls were not seen: {gap.reason or 'reason unknown'}.",
                number=number,
            )
            for number, gap in _latest(snapshot.gaps)
        ]
        marks = [
            Incident(kind="mark", begin_ns=mark.time_ns, end_ns=mark.time_ns, text=mark.name, number=number)
            for number, mark in _latest(snapshot.marks)
        ]
        return sorted([*gaps, *marks, *self._refusals], key=lambda each: (each.begin_ns, each.number))

    def _look(self, snapshot: Snapshot, labels: Mapping[str, str]) -> None:
        new = snapshot.counters["failures"] - self._failures
        self._failures = snapshot.counters["failures"]
        begin_ns, self._looked_ns = self._looked_ns, snapshot.time_ns
        if snapshot.events.count_between(begin_ns, snapshot.time_ns) > MAX_EVENTS:
            self._refusals.append(_unplaced(snapshot, new))
        else:
            refused = refusals(snapshot.events.between(begin_ns, snapshot.time_ns))
            # The edge of the stretch before may be looked at twice.
            known = {(each.begin_ns, each.number) for each in self._refusals}
            made = [_refusal(snapshot, event, labels) for event in refused[-MOST:]]
            self._refusals += [each for each in made if (each.begin_ns, each.number) not in known]
        del self._refusals[:-MOST]


def _latest(items: Sequence[_Item]) -> list[tuple[int, _Item]]:
    """The latest ``MOST`` of a list that grows, with their numbers in it."""
    first = max(len(items) - MOST, 0)
    return list(enumerate(items[first:], first))


def refusals(events: np.ndarray) -> np.ndarray:
    """Of EVENT_DTYPE rows, the calls on memory that the driver refused."""
    refused: np.ndarray = events[(events["status"] != 0) & (events["kind"] <= _LAST_MEMORY_KIND)]
    return refused


def _refusal(snapshot: Snapshot, event: np.void, labels: Mapping[str, str]) -> Incident:
    status, device = int(event["status"]), int(event["device"])
    place = f" on GPU {device}" if device != NO_DEVICE else ""
    size = f" of {format_size(int(event['size']))}" if event["size"] else ""
    why = "out of memory" if status == OUT_OF_MEMORY else f"CUDA error {status}"
    if event["flags"] & EventFlag.INJECTED:
        why += ", made to fail on purpose"
    shown = shown_frames(snapshot.stacks.frames(int(event["stack"])))
    cells = {cell.id: cell.label for cell in snapshot.cells}
    return Incident(
        kind="refusal",
        begin_ns=int(event["time_ns"]),
        end_ns=int(event["time_ns"]),
        text=f"{kind_label(int(event['kind']))}{size}{place}: {why}",
        number=int(event["thread"]),
        device=device,
        where=where(shown, labels) if shown else "",
        cell=cells.get(int(event["cell"]), ""),
    )


def _unplaced(snapshot: Snapshot, count: int) -> Incident:
    return Incident(
        kind="refusal",
        begin_ns=snapshot.time_ns,
        end_ns=snapshot.time_ns,
        text=f"{format_count(count)} calls were refused among too many events to find them.",
        number=0,
    )
