"""An answer that shows itself: as a table in a notebook, as text in a terminal, as columns for analysis."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gpumem_magic.views.byte_ledger import render_byte_ledger
from gpumem_magic.views.cell_report import render_cell_report
from gpumem_magic.views.holders import render_holders
from gpumem_magic.views.release import render_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from gpumem_magic.analysis.byte_ledger import ByteLedger
    from gpumem_magic.analysis.cell_report import CellReport
    from gpumem_magic.model.holders import Holders
    from gpumem_magic.model.release import Release

Answer = TypeVar("Answer")


class Shown(Generic[Answer]):
    """Wraps an answer; its attributes are the answer's own. Rendering happens once, when it is made."""

    def __init__(self, answer: Answer, bundle: dict[str, str], rows: Callable[[Answer], Iterable[Any]]) -> None:
        self.answer = answer
        self._bundle = bundle
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.answer, name)

    def __repr__(self) -> str:
        return self._bundle["text/plain"]

    def _repr_mimebundle_(self, **_options: object) -> dict[str, str]:
        return self._bundle

    def to_dataframe(self) -> pd.DataFrame:
        """The answer's rows as a pandas DataFrame. Raises ImportError when pandas is not installed."""
        import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

        return pd.DataFrame([_columns(row) for row in self._rows(self.answer)])


def _columns(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def shown_cell_report(report: CellReport) -> Shown[CellReport]:
    """A cell report with its allocators as rows."""
    return Shown(report, render_cell_report(report), lambda each: each.allocators)


def shown_byte_ledger(ledger: ByteLedger) -> Shown[ByteLedger]:
    """A ledger with all its rows."""
    return Shown(ledger, render_byte_ledger(ledger), lambda each: each.rows())


def shown_holders(found: Holders, title: str) -> Shown[Holders]:
    """Who holds what, with the pieces of memory as rows."""
    return Shown(found, render_holders(found, title=title), lambda each: each.holders)


def shown_release(release: Release) -> Shown[Release]:
    """What was freed, with a row for each thing that was named."""
    return Shown(release, render_release(release), lambda each: each.rows)
