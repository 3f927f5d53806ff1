"""Who holds device memory, by the stack that asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.analysis.frames import frame_place
from gpumem_magic.analysis.site_table import SiteRow, SiteTable
from gpumem_magic.views.dashboard.panel import Column, Moment, Panel, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_FRAMES = 24
_LONGEST_SOURCE = 160


def _make() -> Callable[[Moment], Sequence[Row]]:
    table = SiteTable()
    return lambda moment: [_row(moment, site) for site in table.rows(moment.snapshot, moment.labels)]


def _row(moment: Moment, site: SiteRow) -> Row:
    name = site.name
    return Row(
        key=".".join(map(str, site.key)),
        cells={
            "where": name.where,
            "name": name.where,
            "live": site.live_bytes,
            "peak": site.peak_bytes,
            "live_count": site.live_count,
            "count": site.count,
            "age": None if site.oldest_ns is None else moment.clock(site.oldest_ns),
            "library": name.library or "unknown",
            "kind": name.kind,
            "cell": name.cell or "outside any cell",
            "function": name.function or "(no Python function)",
            "thread": _threads(moment, site),
            "device": f"GPU {site.key[4]}" if site.key[4] != _NO_DEVICE else "host",
            "badges": [(f"{site.failed_count:,} failed", "error", "calls that the driver refused")]
            if site.failed_count
            else [],
        },
        detail=[
            (frame_place(frame, moment.labels), moment.source_line(frame.filename, frame.line)[:_LONGEST_SOURCE])
            for frame in name.frames[:_MOST_FRAMES]
        ],
    )


_NO_DEVICE = 255


def _threads(moment: Moment, site: SiteRow) -> str:
    names = [moment.thread_name(thread) for thread in site.threads]
    return ", ".join(dict.fromkeys(names)) or "unknown"


PANEL = Panel(
    name="allocations",
    title="Allocations",
    hint="by the stack that asked for them; a row unfolds into its source lines",
    empty="No allocation has been seen yet.",
    columns=(
        Column(key="where", title="Where", wide=True, hint="your innermost line, and the library call below it"),
        Column(key="live", title="Live", kind="bytes", bar="live", adds=True, hint="allocated and not freed"),
        Column(
            key="spark", title="Trend", kind="spark", minor=True, of="live", hint="live bytes over the last refreshes"
        ),
        Column(key="growth", title="Growth", kind="growth", hint="what the trend rose by"),
        Column(key="peak", title="Peak", kind="bytes", hint="highest live bytes of this stack at any moment"),
        Column(key="live_count", title="Count", kind="count", adds=True, hint="live allocations"),
        Column(key="count", title="Births", kind="count", adds=True, minor=True, hint="so far, freed ones too"),
        Column(key="age", title="Oldest", kind="age", minor=True, hint="age of the oldest that is live"),
        Column(key="device", title="On", minor=True, spare=True, hint="the GPU, or the host for pinned memory"),
        Column(key="library", title="Owner", hint="the library that made the driver call"),
    ),
    make=_make,
    rank="live",
    groups=(
        ("where", "line"),
        ("function", "function"),
        ("library", "library"),
        ("kind", "kind"),
        ("cell", "cell"),
        ("thread", "thread"),
        ("device", "GPU"),
    ),
    place=10,
)
