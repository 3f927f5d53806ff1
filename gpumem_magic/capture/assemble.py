"""Puts a Snapshot together from the ledger's tables and the records."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.model.events import Layer
from gpumem_magic.model.history import HISTORY_DTYPE, HOST_DTYPE
from gpumem_magic.model.snapshot import Cell, Gap, Mark, Snapshot
from gpumem_magic.model.tables import (
    ALLOCATION_DTYPE,
    COUNTERS,
    MAPPING_DTYPE,
    METER_DTYPE,
    SERIES_DTYPE,
    SITE_DTYPE,
    SPAN_DTYPE,
    SPAN_METER_DTYPE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpumem_magic.capture.records import Note, RecordTable
    from gpumem_magic.model.frameworks import FrameworkMemory
    from gpumem_magic.model.snapshot import Device, EventLog, Process


def snapshot_from_tables(
    tables: Mapping[str, Any],
    records: RecordTable,
    events: EventLog,
    *,
    name: str,
    process: Process,
    devices: tuple[Device, ...],
    warnings: Iterable[str] = (),
    history: Mapping[str, Any] | None = None,
    frameworks: tuple[FrameworkMemory, ...] = (),
) -> Snapshot:
    """``tables`` is what the core's ``snapshot()`` or ``replay()`` returned, ``history`` its levels of samples."""
    allocations = np.sort(np.frombuffer(tables["allocations"], ALLOCATION_DTYPE), order="serial")
    return Snapshot(
        name=name,
        time_ns=int(tables["time_ns"]),
        process=process,
        devices=devices,
        allocations=_frozen(allocations),
        mappings=np.frombuffer(tables["mappings"], MAPPING_DTYPE),
        sites=np.frombuffer(tables["sites"], SITE_DTYPE),
        meters=np.frombuffer(tables["meters"], METER_DTYPE),
        series=np.frombuffer(tables["series"], SERIES_DTYPE),
        cells=_cells(tables, records),
        gaps=gaps_from_notes(records.notes),
        marks=marks_from_notes(records.notes),
        stacks=records.stacks(),
        libraries=tuple(records.libraries),
        counters=dict(zip(COUNTERS, np.frombuffer(tables["counters"], "<u8").tolist(), strict=True)),
        frameworks=frameworks,
        events=events,
        warnings=tuple(warnings),
        history=_rows(history, "rows", HISTORY_DTYPE),
        host_history=_rows(history, "host", HOST_DTYPE),
    )


def _rows(history: Mapping[str, Any] | None, name: str, kind: np.dtype[np.void]) -> np.ndarray | None:
    return np.frombuffer(history[name], kind) if history is not None and history[name] else None


def _frozen(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False
    return table


def _cells(tables: Mapping[str, Any], records: RecordTable) -> tuple[Cell, ...]:
    meters: dict[int, dict[str, dict[int, int]]] = {}
    rows = np.frombuffer(tables["span_meters"], SPAN_METER_DTYPE)
    for row in rows[rows["layer"] == Layer.DEVICE]:
        sizes = meters.setdefault(int(row["span"]), {})
        for column in ("begin_bytes", "end_bytes", "peak_bytes", "peak_ns"):
            sizes.setdefault(column, {})[int(row["device"])] = int(row[column])
    return tuple(
        _cell(row, records.spans.get(int(row["id"]), {}), meters.get(int(row["id"]), {}))
        for row in np.frombuffer(tables["spans"], SPAN_DTYPE)
    )


_DESCRIBED: dict[str, tuple[type, ...]] = {
    "label": (str,),
    "first_line": (str,),
    "cell_id": (str, type(None)),
    "execution_count": (int, type(None)),
    "error": (str,),
    "source_file": (str,),
}
"""What a span's description may say, and as what: a damaged or hostile recording may say anything."""


def _cell(row: np.void, description: Mapping[str, Any], sizes: Mapping[str, dict[int, int]]) -> Cell:
    known: dict[str, Any] = {
        key: description[key]
        for key, kinds in _DESCRIBED.items()
        if key in description and isinstance(description[key], kinds)
    }
    known.setdefault("label", f"span {int(row['id'])}")
    return Cell(
        id=int(row["id"]),
        parent=int(row["parent"]),
        thread=int(row["thread"]),
        begin_ns=int(row["begin_ns"]),
        end_ns=int(row["end_ns"]),
        **(known | dict(sizes)),
    )


def gaps_from_notes(notes: Iterable[Note]) -> tuple[Gap, ...]:
    """Gaps as the notes ``{"gap": "begin", "reason": …}`` and ``{"gap": "end"}`` tell them, in order."""
    gaps: list[Gap] = []
    for note in notes:
        if note.text.get("gap") == "begin":
            gaps.append(Gap(begin_ns=note.time_ns, end_ns=0, reason=str(note.text.get("reason", ""))))
        elif note.text.get("gap") == "end" and gaps and gaps[-1].end_ns == 0:
            gaps[-1] = dataclasses.replace(gaps[-1], end_ns=note.time_ns)
    return tuple(gaps)


def marks_from_notes(notes: Iterable[Note]) -> tuple[Mark, ...]:
    """Marks as the notes ``{"mark": name}`` tell them, in order."""
    named = ((note.time_ns, note.text.get("mark")) for note in notes)
    return tuple(Mark(time_ns=time_ns, name=name) for time_ns, name in named if isinstance(name, str))
