"""What happened: refused calls, stretches in which calls were not seen, and what a person marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.analysis.incidents import Incident, IncidentLog
from gpumem_magic.views.dashboard.panel import Column, Moment, Panel, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SIGNS = {"refusal": ("refused", "error"), "gap": ("not seen", "warning"), "mark": ("mark", "info")}


def _make() -> Callable[[Moment], Sequence[Row]]:
    log = IncidentLog()
    return lambda moment: [_row(moment, each) for each in reversed(log.incidents(moment.snapshot, moment.labels))]


def _row(moment: Moment, incident: Incident) -> Row:
    text, severity = _SIGNS[incident.kind]
    return Row(
        key=f"{incident.kind} {incident.begin_ns} {incident.number}",
        cells={
            "what": incident.text,
            "name": incident.text,
            "time": moment.clock(incident.begin_ns),
            "where": incident.where,
            "cell": incident.cell,
            "badges": [(text, severity, "")],
        },
    )


PANEL = Panel(
    name="events",
    title="Events",
    hint="refused calls, gaps in what was seen, and marks (%gpumem mark NAME)",
    empty="Nothing to report: no call was refused, and every call was seen.",
    columns=(
        Column(key="what", title="What", wide=True),
        Column(key="time", title="When", kind="clock"),
        Column(key="where", title="Where"),
        Column(key="cell", title="Cell"),
    ),
    make=_make,
    counts=True,
    place=30,
)
