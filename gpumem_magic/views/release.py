"""The answer of ``%gpumem free``: what was let go of, and what that gave back, in text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.model.units import format_size
from gpumem_magic.views.html import Html, answer, data_table, joined, measure, next_steps, spaced, tag
from gpumem_magic.views.text import WIDTH, Column, bar, paragraph, table

if TYPE_CHECKING:
    from gpumem_magic.model.release import Release, Released

_UNKNOWN = "–"  # noqa: RUF001  (nothing was done, so nothing was measured)


def render_release(release: Release, *, width: int = WIDTH) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``."""
    return {"text/plain": release_text(release, width=width), "text/html": release_html(release)}


def _headline(release: Release) -> str:
    if release.is_dry_run:
        return f"Nothing was freed. {_would(release)}"
    freed, returned = release.freed_bytes, release.returned_bytes
    if not freed:
        return f"{format_size(returned)} given back to the GPU." if returned else "No device memory was freed."
    if returned == freed:
        return f"{format_size(freed)} freed, and given back to the GPU."
    rest = "; the rest is kept for later" if returned < freed else ""
    return f"{format_size(freed)} freed, {format_size(returned)} given back to the GPU{rest}."


def _would(release: Release) -> str:
    parts = []
    if any(not row.is_cache for row in release.rows):
        parts.append(f"free {format_size(release.predicted_bytes)} that are in use")
    if any(row.is_cache for row in release.rows):
        parts.append(f"give {format_size(release.returnable_bytes)} that are in no use back to the GPU")
    return f"This would {', and '.join(parts)}."


def _next(release: Release) -> list[tuple[str, str]]:
    steps = [("%gpumem ledger", "every byte, in use or not"), ("%gpumem who", "who holds what is left")]
    if release.cached_bytes and not any(row.is_cache for row in release.rows):
        steps.insert(0, ("%gpumem free cache", f"gives {format_size(release.cached_bytes)} back to the GPU"))
    return steps


def _measured(size: int | None) -> str:
    return _UNKNOWN if size is None else format_size(size)


def _freed(row: Released) -> str:
    return _UNKNOWN if row.is_cache else _measured(row.freed_bytes)


def _largest(release: Release) -> int:
    return max((max(row.predicted_bytes, _shown(row)) for row in release.rows), default=0)


def _shown(row: Released) -> int:
    """What the bar stands for."""
    done = row.returned_bytes if row.is_cache else row.freed_bytes
    return row.predicted_bytes if done is None else done


# Text


def release_text(release: Release, *, width: int = WIDTH) -> str:
    """A table with a row for each thing that was named, and what is to be said of it."""
    columns = [
        Column(title="What", gives=True, middle=True, least=16),
        Column(title="Predicted", right=True),
        Column(title="Freed", right=True),
        Column(title=""),
        Column(title="To the GPU", right=True),
    ]
    largest = _largest(release)
    rows = [
        [
            row.target,
            format_size(row.predicted_bytes),
            _freed(row),
            bar(_shown(row), largest),
            _measured(row.returned_bytes),
        ]
        for row in release.rows
    ]
    remarks = [
        paragraph(f"{row.target}: {remark}", width=width, first="i ", rest="  ")
        for row in release.rows
        for remark in row.remarks
    ]
    steps = " · ".join(command for command, _ in _next(release))
    parts = [_headline(release), table(columns, rows, width=width), *remarks, f"Next: {steps}"]
    return "\n\n".join(parts) + "\n"


# HTML


def release_html(release: Release) -> Html:
    """The same as a fragment that needs nothing else."""
    titles = [("What", "wide"), ("Predicted", "num"), ("Freed", "num bars"), ("To the GPU", "num")]
    largest = _largest(release)
    rows = [_row(row, largest) for row in release.rows]
    label = "Freed" if not release.is_dry_run else "Dry run"
    return answer(
        tag("div", spaced(tag("span", label, class_="gm-label"), tag("span", _headline(release))), class_="gm-head"),
        data_table(titles, rows, caption="What was freed"),
        next_steps(_next(release)),
        label="GPU memory: what was freed",
    )


def _row(row: Released, largest: int) -> list[str]:
    remarks = [tag("div", remark, class_="gm-quiet") for remark in row.remarks]
    freed = measure(_freed(row), _shown(row), largest)
    return [
        joined([tag("div", row.target, class_="gm-code"), *remarks]),
        _exact(format_size(row.predicted_bytes), row.predicted_bytes),
        _exact(freed, row.freed_bytes),
        _exact(_measured(row.returned_bytes), row.returned_bytes),
    ]


def _exact(shown: str, size: int | None) -> Html:
    return tag("span", shown, title=None if size is None else f"{size:,} bytes")
