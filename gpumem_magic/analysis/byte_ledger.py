"""Every byte that a device reports as used, in rows that add up."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.analysis.bands import settled_base
from gpumem_magic.analysis.cell_report import device_of, is_device_layer
from gpumem_magic.analysis.frames import NO_FRAME, distinct_names, notebook_labels, shown_frames, where
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.analysis.pools import Pooled, pooled
from gpumem_magic.model.events import Kind
from gpumem_magic.model.history import UNKNOWN, finest
from gpumem_magic.model.tables import NO_SERIAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpumem_magic.model.snapshot import Device, Process, Snapshot

PAGE_BYTES = 2 << 20
"""What the driver takes of a device at least, and in whole numbers of; measured on an H200."""

_MOST_PLACES = 8
_ORDERED = tuple(int(kind) for kind in (Kind.ALLOC_ASYNC, Kind.ALLOC_POOL, Kind.ALLOC_GRAPH))
_SHARING = tuple(int(kind) for kind in (Kind.ALLOC, Kind.ALLOC_PITCH))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One row. ``parts``, if there are any, make up its bytes."""

    name: str
    bytes: int  # negative only for what is not explained: more was counted than the device reports
    kind: str  # "other", "context", "code", "live", "cached", "pages" or "unexplained"
    hint: str = ""  # what it is, for somebody who does not know
    command: str = ""  # what gives it back; "" when nothing does
    largest_bytes: int = 0  # the largest piece, where the bytes are free in pieces
    count: int = 0  # allocations; 0 where that means nothing
    parts: tuple[LedgerRow, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLedger:
    """The rows of one device. Their sum is ``used_bytes``."""

    device: Device
    used_bytes: int  # by NVML, or by the driver where NVML does not tell; what is known of it where neither does
    process_bytes: int | None  # this process's part, by NVML; None where it does not tell
    is_measured: bool  # False where nobody tells how full the device is
    rows: tuple[LedgerRow, ...]

    def leaves(self) -> list[LedgerRow]:
        """The rows that have no parts, and the parts of the others: each byte once."""
        return [row for top in self.rows for row in (top.parts or (top,))]

    @property
    def unexplained_bytes(self) -> int:
        return sum(row.bytes for row in self.rows if row.kind == "unexplained")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ByteLedger:
    """The answer of ``%gpumem ledger``."""

    process: Process
    devices: tuple[DeviceLedger, ...]
    notes: tuple[str, ...]  # what a reader must know before trusting the rows, as sentences

    def rows(self) -> list[LedgerRow]:
        """All rows of all devices, each followed by its parts."""
        return [row for device in self.devices for top in device.rows for row in (top, *top.parts)]

    def _leaves(self) -> list[LedgerRow]:
        return [row for device in self.devices for row in device.leaves()]

    @property
    def live_bytes(self) -> int:
        """What programs have in use: blocks of pools, and allocations outside of pools."""
        return sum(row.bytes for row in self._leaves() if row.kind == "live")

    @property
    def held_bytes(self) -> int:
        """What this process took of the devices by allocating, in use or kept for later."""
        return sum(row.bytes for row in self._leaves() if row.kind in ("live", "cached", "pages"))

    @property
    def returnable_bytes(self) -> int:
        """What is kept for later and can be given back now."""
        return sum(row.bytes for row in self._leaves() if row.kind == "cached" and row.command)

    def self_check(self) -> None:
        """Assert that parts add up to their row, and rows to what the device reports."""
        for each in self.devices:
            assert sum(row.bytes for row in each.rows) == each.used_bytes, f"GPU {each.device.ordinal} does not add up"
            for row in each.rows:
                assert not row.parts or sum(part.bytes for part in row.parts) == row.bytes, f"{row.name}: parts differ"
                assert row.bytes >= 0 or row.kind == "unexplained", f"{row.name} is negative"


def byte_ledger(snapshot: Snapshot, devices: Iterable[int] | None = None) -> ByteLedger:
    """The rows of ``devices`` (ordinals), of all that there are when None.

    Raises:
        ValueError: a device that is not there.
    """
    known = [device.ordinal for device in snapshot.devices]
    wanted = known if devices is None else list(devices)
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise ValueError(f"There is no GPU {missing[0]}: there are {', '.join(map(str, known)) or 'none'}.")
    labels = notebook_labels(snapshot)
    return ByteLedger(
        process=snapshot.process,
        devices=tuple(_device_ledger(snapshot, ordinal, labels) for ordinal in wanted),
        notes=_notes(snapshot),
    )


def paged_bytes(allocations: np.ndarray) -> int:
    """What a device gives for these allocations (ALLOCATION_DTYPE) of it, stream-ordered ones left out.

    Whole pages; those smaller than a page share the pages that they touch.
    """
    rows = allocations[~np.isin(allocations["kind"], _ORDERED)]
    shares = np.isin(rows["kind"], _SHARING) & (rows["size"] < PAGE_BYTES)
    small = rows[shares]
    first = small["address"] // PAGE_BYTES
    last = (small["address"] + np.maximum(small["size"], 1) - np.uint64(1)) // PAGE_BYTES
    whole = -(-rows["size"][~shares].astype(np.int64) // PAGE_BYTES)
    return (len(np.union1d(first, last)) + int(whole.sum())) * PAGE_BYTES


# ---- one device -----------------------------------------------------------------------------------------------------


def _device_ledger(snapshot: Snapshot, ordinal: int, labels: Mapping[str, str]) -> DeviceLedger:
    mine = snapshot.allocations[is_device_layer(snapshot.allocations) & (snapshot.allocations["device"] == ordinal)]
    measured = _Measured.of(snapshot, ordinal)
    owners = _owner_rows(snapshot, ordinal, mine, labels)
    ordered = int(mine["size"][np.isin(mine["kind"], _ORDERED)].sum())
    asked = int(mine["size"].sum())
    own = [
        *_base_rows(measured),
        *owners,
        *_row("kept by the driver's memory pools", measured.pool - ordered, "cached", _POOL_HINT, _TRIM),
        *_row("rounded up to whole pages", paged_bytes(mine) - (asked - ordered), "pages", _PAGE_HINT),
    ]
    explained = sum(row.bytes for row in own)
    process = explained if measured.process is None else measured.process
    used = process if measured.used is None else measured.used
    outside = max(used - process, 0)
    name = "other processes, and the driver itself" if measured.process is not None else _REST
    rest = used - outside - explained
    rows = [
        *_row(name, outside, "other", _OTHER_HINT if measured.process is not None else _REST_HINT),
        *own,
        *(_unexplained(rest) if measured.used is not None else []),
    ]
    return DeviceLedger(
        device=device_of(snapshot, ordinal),
        used_bytes=used,
        process_bytes=measured.process,
        is_measured=measured.used is not None,
        rows=tuple(rows),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The latest sample of a device; None for what nobody tells."""

    used: int | None = None
    process: int | None = None
    context: int = 0
    code: int = 0
    pool: int = 0

    @classmethod
    def of(cls, snapshot: Snapshot, ordinal: int) -> _Measured:
        history = snapshot.history
        rows = None if history is None else finest(history[history["device"] == ordinal])
        if rows is None or not len(rows):
            return cls()
        latest = {name: _latest(rows, name) for name in _SAMPLED}
        used = latest["used_bytes"] if latest["used_bytes"] is not None else latest["driver_used_bytes"]
        context = latest["context_bytes"]
        if context is None and latest["process_bytes"] is not None:
            context = settled_base(rows)
        return cls(
            used=used,
            process=latest["process_bytes"],
            context=context or 0,
            code=latest["code_bytes"] or 0,
            pool=latest["pool_bytes"] or 0,
        )


_SAMPLED = ("used_bytes", "driver_used_bytes", "process_bytes", "context_bytes", "code_bytes", "pool_bytes")


def _latest(rows: np.ndarray, column: str) -> int | None:
    known = rows[column][rows[column] != UNKNOWN]
    return int(known[-1]) if len(known) else None


def _row(name: str, size: int, kind: str, hint: str, command: str = "") -> list[LedgerRow]:
    """A row of its own, unless there is nothing in it."""
    return [LedgerRow(name=name, bytes=size, kind=kind, hint=hint, command=command)] if size > 0 else []


def _unexplained(size: int) -> list[LedgerRow]:
    return [LedgerRow(name="not explained", bytes=size, kind="unexplained", hint=_UNEXPLAINED_HINT)]


def _base_rows(measured: _Measured) -> list[LedgerRow]:
    return [
        *_row("CUDA context", measured.context, "context", _CONTEXT_HINT),
        *_row("kernels: code and local memory", measured.code, "code", _CODE_HINT),
    ]


# ---- owners ---------------------------------------------------------------------------------------------------------


def _owner_rows(snapshot: Snapshot, ordinal: int, mine: np.ndarray, labels: Mapping[str, str]) -> list[LedgerRow]:
    """A row per framework, and per library that allocates outside of a framework's pools; the largest first."""
    names = np.array([library_name(path) for path in snapshot.libraries] or [""], object)
    owner = names[np.minimum(mine["library"], len(names) - 1)]
    addresses = mapped_addresses(snapshot, mine)
    pools = {}
    for memory in snapshot.frameworks:
        found = pooled(memory, ordinal, addresses)
        if found.is_empty:
            continue
        inside = found.inside
        if not found.knows_ranges:
            inside = inside | np.array([str(name).split(" ")[0].lower() == memory.name for name in owner], bool)
        pools[memory.name] = found
        owner = np.where(inside, f"\0{memory.name}", owner)
    rows = []
    for name in dict.fromkeys(owner.tolist()):
        group = mine[owner == name]
        if name.startswith("\0"):
            rows.append(_framework_row(name[1:], group, pools[name[1:]]))
        else:
            rows.append(_library_row(snapshot, name, group, labels))
    return sorted(rows, key=lambda row: (-row.bytes, row.name))


def mapped_addresses(snapshot: Snapshot, mine: np.ndarray) -> np.ndarray:
    """Where each allocation can be reached: of physical memory, the start of its first mapping."""
    addresses = mine["address"].copy()
    mappings = snapshot.mappings[snapshot.mappings["serial"] != NO_SERIAL]
    serials, first = np.unique(mappings["serial"], return_index=True)
    if len(serials):
        place = np.minimum(np.searchsorted(serials, mine["serial"]), len(serials) - 1)
        mapped = (serials[place] == mine["serial"]) & (mine["kind"] == Kind.CREATE_PHYSICAL)
        addresses[mapped] = mappings["address"][first[place[mapped]]]
    return addresses


def _framework_row(name: str, group: np.ndarray, found: Pooled) -> LedgerRow:
    size = int(group["size"].sum())
    parts = [
        *_row("live blocks", found.live, "live", "handed out to the program: tensors and arrays"),
        *_row("rounding inside blocks", found.rounding, "pages", "blocks are larger than what was asked for"),
        *_row("waiting to be freed", found.pending, "cached", _PENDING_HINT, _TRIM if found.command else ""),
    ]
    hint = f"{_RETURNABLE_HINT}; its own call is {found.command}" if found.command else _RETURNABLE_HINT
    parts += _row("cached, can be given back", found.returnable, "cached", hint, _TRIM if found.command else "")
    pieces = f"free between live blocks, so it cannot be given back; the largest piece is {found.largest_free:,} bytes"
    largest = found.largest_free
    parts += [
        dataclasses.replace(row, largest_bytes=largest)
        for row in _row("cached, in pieces", found.pieces, "cached", pieces)
    ]
    known = sum(part.bytes for part in parts)
    if known > size:  # the framework went on between its answer and the tracker's
        parts, known = [], 0
    if parts:
        parts += _row("outside of its pools", size - known, "live", f"{name} took it from the driver without a pool")
    return LedgerRow(
        name=name,
        bytes=size,
        kind="live",
        hint=f"taken from the driver by {name}",
        count=len(group),
        parts=tuple(parts),
    )


def _library_row(snapshot: Snapshot, name: str, group: np.ndarray, labels: Mapping[str, str]) -> LedgerRow:
    places = _places(snapshot, group, labels)
    shown, others = places[:_MOST_PLACES], places[_MOST_PLACES:]
    if others:
        rest = LedgerRow(
            name=f"{len(others)} other places",
            bytes=sum(row.bytes for row in others),
            kind="live",
            count=sum(row.count for row in others),
        )
        shown = [*shown, rest]
    return LedgerRow(
        name=name or "an unknown library",
        bytes=int(group["size"].sum()),
        kind="live",
        hint="allocated by calls of this library, outside of any framework's pool",
        count=len(group),
        parts=tuple(shown),
    )


def _places(snapshot: Snapshot, group: np.ndarray, labels: Mapping[str, str]) -> list[LedgerRow]:
    """The lines that allocated, the largest first."""
    sizes: dict[tuple[str, tuple[str, ...]], list[int]] = collections.defaultdict(list)
    for stack in np.unique(group["stack"]).tolist():
        frames = shown_frames(snapshot.stacks.frames(stack))
        key = (where(frames, labels) if frames else NO_FRAME, tuple(where([frame], labels) for frame in frames))
        sizes[key] += group["size"][group["stack"] == stack].tolist()
    names = distinct_names([name for name, _ in sizes], [stack for _, stack in sizes])
    rows = [
        LedgerRow(name=name, bytes=sum(each), kind="live", count=len(each))
        for name, each in zip(names, sizes.values(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.bytes, row.name))


# ---- words ----------------------------------------------------------------------------------------------------------

_REST = "other processes, contexts, and what nobody explains"
_OTHER_HINT = (
    "what the device reports as used beyond this process: other programs, what the driver keeps for each of them, and "
    "unified memory that lies on the device"
)
_REST_HINT = "the driver does not tell how much of the device this process holds"
_CONTEXT_HINT = "what every process pays for using CUDA, and what this one held before tracking began"
_CODE_HINT = "loaded from modules when their kernels were first used; it stays until the process ends"
_POOL_HINT = "freed by the program and kept for its next stream-ordered allocation; given back at a synchronisation"
_TRIM = "%gpumem free cache"
_PENDING_HINT = "given back by the program; a stream uses it still, or the framework frees it later"
_RETURNABLE_HINT = "nothing in these ranges is in use: the framework keeps them for what comes next"
_PAGE_HINT = f"the driver hands out whole pages of {PAGE_BYTES >> 20} MiB"
_UNEXPLAINED_HINT = "the device reports it, no allocation call asked for it, and it came with no context and no kernel"


def _notes(snapshot: Snapshot) -> tuple[str, ...]:
    notes = [f"{memory.name}: {memory.problem}" for memory in snapshot.frameworks if memory.problem]
    if snapshot.process.simulated:
        notes.append("A simulated GPU: nothing here was allocated on real hardware.")
    if snapshot.process.degraded:
        notes.append(f"Not every call was seen: {snapshot.process.degraded}.")
    if snapshot.gaps:
        notes.append("Calls were not seen all the time: what was allocated then is in 'not explained'.")
    return tuple(notes)
