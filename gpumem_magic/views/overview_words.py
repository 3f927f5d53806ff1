"""What the still dashboard says, the same in HTML and in text."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gpumem_magic.analysis.bands import BAND_HINTS, BAND_LABELS, BAND_NAMES
from gpumem_magic.model.units import format_count, format_duration, format_size
from gpumem_magic.views.stacked_chart import failure, gap
from gpumem_magic.views.text import shortened

if TYPE_CHECKING:
    from gpumem_magic.analysis.overview import DeviceOverview, Overview

NEXT = (("%gpumem timeline", "the picture alone, larger"), ("%gpumem cells", "every cell run"))
NO_GPU = "No GPU is known here. %gpumem simulate makes one up, to try things out."
NOTHING_YET = "Nothing has been allocated here, and how full it is was not recorded."
LONGEST = 80
"""Characters of a name that somebody chose; a page cannot take any length."""
MOST_NOTES = 5


def device_title(each: DeviceOverview) -> str:
    """``GPU 0  NVIDIA H200``."""
    return f"GPU {each.device.ordinal}  {shortened(each.device.name, LONGEST // 2)}"


def since_begin(overview: Overview) -> str:
    """How long after its begin the recording was looked at, and how much of that the pictures show."""
    since = f"after {format_duration(overview.seconds(overview.end_ns))}"
    is_whole = overview.begin_ns <= overview.recording_begin_ns
    return since if is_whole else f"{since}, the last {format_duration(overview.duration_s)}"


def when(overview: Overview) -> str:
    """When the numbers were taken: since the begin, and in UTC, so that it does not depend on where it is read."""
    since = since_begin(overview)
    process = overview.process
    if not process.started_unix_ns:
        return since
    taken_s = (process.started_unix_ns + overview.end_ns - process.started_ns) // 10**9
    return f"{dt.datetime.fromtimestamp(taken_s, tz=dt.UTC):%Y-%m-%d %H:%M:%S} UTC, {since}"


def source(overview: Overview) -> str:
    """Whose memory it is: ``process 4242 on node7, rank 3, 8 GPUs``."""
    process = overview.process
    parts = [f"process {process.pid} on {process.host}"]
    parts += [f"rank {process.rank}"] if process.rank >= 0 else []
    parts += [f"{len(overview.devices)} GPUs"] if len(overview.devices) > 1 else []
    return short(", ".join(parts))


def short(text: str) -> str:
    """A name that anybody could have chosen, at a length that a page can take."""
    return shortened(text, LONGEST)


def legend(overview: Overview) -> list[tuple[str, str, int, str]]:
    """(name of the band, label, bytes now over all devices, hint), without what nobody can tell."""
    shown = [each.bands for each in overview.devices if each.bands is not None]
    knows_total = any(bands.knows_total for bands in shown)
    knows_processes = any(bands.knows_processes for bands in shown)
    knows_cached = any(each.cached_bytes is not None for each in overview.devices)
    known = {"other": knows_total, "base": knows_processes, "unexplained": knows_processes, "cached": knows_cached}
    sums = {name: sum(int(getattr(bands, name)[-1]) for bands in shown) for name in BAND_NAMES}
    sums["live"] = sum(each.live_bytes for each in overview.devices)
    labels = dict(BAND_LABELS)
    if knows_total and not knows_processes:
        labels["other"] = "other processes, context"
    found = [(name, labels[name], sums[name], BAND_HINTS[name]) for name in BAND_NAMES if known.get(name, True)]
    free = [each.free_bytes for each in overview.devices if each.free_bytes is not None]
    if free:
        found.append(("free", "free", sum(free), "what the driver can still hand out"))
    return found


def device_facts(each: DeviceOverview) -> list[str]:
    """Numbers of one device in words, those that matter most first."""
    total = each.device.total_bytes
    capacity = f" of {format_size(total)}" if total else ""
    facts = [f"{format_size(each.used_bytes)}{capacity} used"] if each.used_bytes is not None else []
    facts.append(f"{format_size(each.live_bytes)}{'' if facts else capacity} live")
    if each.cached_bytes:
        facts.append(f"{format_size(each.cached_bytes)} cached")
    if each.utilization is not None:
        facts.insert(1, f"{each.utilization:.0f} % busy")
    if each.peak_bytes:
        facts.append(f"allocated at most {format_size(each.peak_bytes)}")
    return facts


def is_spiky(overview: Overview) -> bool:
    """Whether memory went higher between two samples than at either, somewhere in the pictures."""
    shown = [each.bands for each in overview.devices if each.bands is not None]
    return any((bands.high > bands.live + bands.cached).any() for bands in shown)


def hidden_sites(overview: Overview) -> str:
    """What the table leaves out; "" when nothing."""
    if not overview.hidden_sites:
        return ""
    rows = "row" if overview.hidden_sites == 1 else "rows"
    return f"… and {format_count(overview.hidden_sites)} more {rows} with {format_size(overview.hidden_bytes)}"


def notes(overview: Overview) -> list[tuple[str, str]]:
    """What a reader must know, the gravest first: sentence and severity."""
    found = _failure_notes(overview)
    if overview.process.degraded:
        found.append((f"Not every call was seen: {overview.process.degraded}.", "warning"))
    elif overview.paused:
        found.append((f"Calls are not seen at the moment: {overview.paused}.", "warning"))
    found += [(text, "warning") for text in overview.warnings[:MOST_NOTES]]
    found += [(_sentence(gap(mark, overview, mark.reason)), "warning") for mark in overview.gaps[-MOST_NOTES:]]
    if overview.process.simulated:
        found.append(("A simulated GPU: nothing here was allocated on real hardware.", "info"))
    unknown = [str(each.device.ordinal) for each in overview.devices if _is_blind(each)]
    if unknown:
        what = f"How full GPU {', '.join(unknown)} is was not recorded: the picture shows what was allocated."
        found.append((what, "info"))
    return sorted(found, key=lambda each: ("error", "warning", "info").index(each[1]))


def _is_blind(each: DeviceOverview) -> bool:
    return each.bands is not None and not each.bands.knows_total


def _failure_notes(overview: Overview) -> list[tuple[str, str]]:
    marks = [mark for each in overview.devices for mark in each.failures]
    placed = sum(mark.count for mark in marks)
    found = [(_sentence(f"GPU {mark.device}: {failure(mark, overview)}"), "error") for mark in marks[-MOST_NOTES:]]
    if overview.failures > placed:
        where = "in the whole recording" if placed or not overview.failures_placed else "outside of what is shown"
        calls = "call was" if overview.failures == 1 else "calls were"
        found.append((f"{format_count(overview.failures)} {calls} refused {where}.", "error" if not placed else "info"))
    return found


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
