"""A recording's report as JSON: for scripts, so names here are kept from release to release."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gpumem_magic.model.events import Layer

if TYPE_CHECKING:
    from gpumem_magic.analysis.allocators import Allocator
    from gpumem_magic.analysis.cell_table import CellRun
    from gpumem_magic.analysis.recording_report import DeviceTotal, RecordingReport


def report_json(report: RecordingReport, directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``json.dumps`` takes. Sizes in bytes, times in seconds since the recording began."""
    process = report.process
    return {
        "recording": os.fspath(directory),
        "simulated": process.simulated,
        "degraded": process.degraded,
        "process": {
            "host": process.host,
            "pid": process.pid,
            "rank": process.rank if process.rank >= 0 else None,
            "python": process.python,
            "driver": process.driver,
            "started_unix_ns": process.started_unix_ns,
        },
        "duration_s": report.duration_s,
        "live_bytes": report.live_bytes,
        "peak_bytes": report.peak_bytes,
        "events": report.events,
        "failures": report.failures,
        "devices": [_device(total) for total in report.devices],
        "cells": [_cell(run, report.begin_ns) for run in report.cells.runs],
        "outside_cells_bytes": report.cells.outside_bytes,
        "still_live": [_allocator(row) for row in report.stays],
        "still_live_left_out": {"rows": report.hidden_stays, "bytes": report.hidden_bytes},
        "failed": [_allocator(row) for row in report.failed],
        "gaps": [
            {
                "begin_s": (gap.begin_ns - report.begin_ns) / 1e9,
                "end_s": (gap.end_ns - report.begin_ns) / 1e9 if gap.end_ns else None,
                "reason": gap.reason,
            }
            for gap in report.gaps
        ],
        "oddities": [{"count": count, "what": text} for text, count in report.oddities],
        "warnings": list(report.warnings),
    }


def _device(total: DeviceTotal) -> dict[str, Any]:
    return {
        "ordinal": total.device.ordinal,
        "name": total.device.name,
        "uuid": total.device.uuid,
        "total_bytes": total.device.total_bytes,
        "live_bytes": total.live_bytes,
        "live_count": total.live_count,
        "peak_bytes": total.peak_bytes,
        "peak_s": total.peak_s,
        "allocated_bytes": total.allocated_bytes,
    }


def _cell(run: CellRun, begin_ns: int) -> dict[str, Any]:
    return {
        "label": run.cell.label,
        "first_line": run.cell.first_line,
        "depth": run.depth,
        "run": run.run,
        "begin_s": (run.cell.begin_ns - begin_ns) / 1e9,
        "duration_s": run.duration_s,
        "delta_bytes": run.delta_bytes,
        "peak_bytes": run.peak_bytes,
        "held_bytes": run.held_bytes,
        "failures": run.failures,
        "error": run.cell.error,
    }


def _allocator(row: Allocator) -> dict[str, Any]:
    return {
        "where": row.where,
        "stack": list(row.frames),
        "library": row.library,
        "kind": row.kind,
        "layer": Layer(row.layer).name.lower(),
        "device": row.device,
        "count": row.count,
        "allocated_bytes": row.allocated_bytes,
        "live_count": row.live_count,
        "live_bytes": row.live_bytes,
        "failed_count": row.failed_count,
    }
