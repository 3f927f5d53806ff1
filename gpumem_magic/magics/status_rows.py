"""``%gpumem status`` in rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from gpumem_magic.model.status import Status
    from gpumem_magic.views.status import StatusRow

_SEVERITY = {"on": "ok", "paused": "warning", "yielded": "warning", "degraded": "warning", "no GPU": "warning"}


def status_rows(status: Status) -> list[StatusRow]:
    """What, its value, and how much it should worry."""
    rows: list[StatusRow] = [("tracking", status.state, _SEVERITY.get(status.state, "info"))]
    if status.reason:
        rows.append(("why", status.reason, ""))
    if status.slot_holder:
        rows.append(("CUPTI held by", status.slot_holder, ""))
    for device in status.devices:
        size = format_size(device.total_bytes) if device.total_bytes is not None else "size unknown"
        simulated = ", SIMULATED" if status.simulated else ""
        rows.append((f"GPU {device.ordinal}", f"{device.name}, {size}{simulated}", ""))
    if status.driver:
        rows.append(("CUDA driver", status.driver, ""))
    if status.library:
        rows.append(("CUPTI", status.library, ""))
    if status.state != "off":
        rows += [
            ("events so far", format_count(status.events), ""),
            ("time in our callbacks", f"about {format_duration(status.overhead_s)}", ""),
            ("gaps", format_count(status.gaps), "warning" if status.gaps else ""),
            ("stacks", status.stacks or "Python lines of every allocation", "warning" if status.stacks else ""),
            ("recording", status.recording, ""),
        ]
    if status.profiler_courtesy:
        rows.append(("lends CUPTI to", ", ".join(status.profiler_courtesy), ""))
    rows += [("attention", warning, "warning") for warning in status.warnings]
    return rows


_NAMED = 3  # devices that the line names before it counts them


def status_line(status: Status) -> str:
    """One line for ``%load_ext``."""
    if status.state == "on":
        names = ", ".join(f"{device.name}" for device in status.devices[:_NAMED])
        more = f" and {len(status.devices) - _NAMED} more" if len(status.devices) > _NAMED else ""
        mark = " (SIMULATED)" if status.simulated else ""
        attention = "".join(f" {warning}" for warning in (*status.warnings, status.stacks) if warning)
        return f"gpumem: tracking {names}{more}{mark}. Put %%gpumem on top of a cell to see what it does.{attention}"
    return f"gpumem: {status.state}. {status.reason}"
