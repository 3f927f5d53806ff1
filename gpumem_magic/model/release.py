"""What letting go of memory gave back: predicted before, measured after. Plain data."""

from __future__ import annotations

import dataclasses

WORDS = ("out", "traceback", "cycles", "cache", "all-safe")
"""What can be let go of beside variables and single outputs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One thing that was let go of, or would be. All sizes in bytes, over all devices."""

    target: str  # "Out[7]", "traceback", "cycles", "cache" or a variable
    predicted_bytes: int  # that are in use and would be free; of caches, that the GPU would have back
    freed_bytes: int | None = None  # that were in use; None when nothing was done
    returned_bytes: int | None = None  # that the GPU has back, also of what was freed earlier and kept for later
    is_cache: bool = False  # it gives back what is in no use
    remarks: tuple[str, ...] = ()  # sentences: what else holds it, what is lost with it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The answer of ``%gpumem free``."""

    rows: tuple[Released, ...]
    cached_bytes: int  # what caches can give back afterwards; in a dry run now
    is_dry_run: bool = False

    @property
    def predicted_bytes(self) -> int:
        """Of what is in use."""
        return sum(row.predicted_bytes for row in self.rows if not row.is_cache)

    @property
    def returnable_bytes(self) -> int:
        """Of what is in use by nobody, predicted."""
        return sum(row.predicted_bytes for row in self.rows if row.is_cache)

    @property
    def freed_bytes(self) -> int:
        """Of what was in use."""
        return sum(row.freed_bytes or 0 for row in self.rows)

    @property
    def returned_bytes(self) -> int:
        return sum(row.returned_bytes or 0 for row in self.rows)

    def self_check(self) -> None:
        """Assert that something was measured exactly when something was done."""
        for row in self.rows:
            assert (row.freed_bytes is None) is self.is_dry_run, f"{row.target}: measured without being freed"
            assert row.predicted_bytes >= 0, f"{row.target}: a negative prediction"
