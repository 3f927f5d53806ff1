"""The rows of the panels: made anew now and then, and told to the page as what changed."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

from gpumem_magic.views.dashboard.panel import SPARK_POINTS, Moment, Panel, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class PanelRows:
    """The rows of one panel as the page has them. Its methods are called with the dashboard's lock held."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self._make: Callable[[Moment], Sequence[Row]] = panel.make()
        self._spark_of = next((column.of for column in panel.columns if column.kind == "spark"), "")
        self._rows: dict[str, dict[str, Any]] = {}
        self._details: dict[str, Sequence[tuple[str, str]]] = {}
        self._sparks: dict[str, collections.deque[int]] = {}

    def make(self, moment: Moment) -> Sequence[Row]:
        """Rows of a moment. Takes its time; needs no lock."""
        return self._make(moment)

    def update(self, rows: Sequence[Row]) -> dict[str, Any] | None:
        """Take the new rows; returns what the page has to be told, None when nothing changed."""
        new = {row.key: dict(row.cells) for row in rows}
        changed = {key: cells for key, cells in new.items() if self._rows.get(key) != cells}
        details = {row.key: row.detail for row in rows if row.detail and row.key not in self._details}
        reordered = list(new) != list(self._rows)
        self._rows = new
        self._details = {key: detail for key, detail in self._details.items() if key in new} | details
        for key in self._sparks.keys() - new.keys():
            del self._sparks[key]
        for key, cells in new.items() if self._spark_of else ():
            self._sparks.setdefault(key, collections.deque(maxlen=SPARK_POINTS)).append(cells[self._spark_of])
        if not (changed or reordered or self._spark_of):
            return None
        change: dict[str, Any] = {}
        if changed:
            change["set"] = changed
        if details:
            change["details"] = details
        if reordered:
            change["order"] = list(new)
        return change

    def whole(self) -> dict[str, Any]:
        """Definition and rows, for a page that comes now."""
        return {
            **self.panel.definition(),
            "rows": self._rows,
            "order": list(self._rows),
            "details": self._details,
            "sparks": {key: list(values) for key, values in self._sparks.items()},
        }


@dataclasses.dataclass(slots=True)
class Keyed:
    """A list of things with a key each, of which the page is told those that changed. Keeps the latest ``most``."""

    most: int
    items: dict[Any, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def update(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """``items`` by time, each with a ``key``; returns those that are new or changed."""
        kept = {item["key"]: item for item in items[-self.most :]}
        changed = [item for key, item in kept.items() if self.items.get(key) != item]
        self.items = kept
        return changed
