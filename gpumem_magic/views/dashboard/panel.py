"""What a panel of the dashboard is: a table that a function makes of a moment."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpumem_magic.model.snapshot import Snapshot

SPARK_POINTS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. ``kind`` says how the page writes a value.

    ``text``; ``bytes`` and ``signed`` sizes; ``count``; ``seconds`` a duration; ``age`` the time since a birth and
    ``clock`` the time of day, both given in milliseconds of the kernel's wall clock (``Moment.clock``); ``spark`` the
    latest values of column ``of``, ``growth`` what they rose by.
    """

    key: str
    title: str
    kind: str = "text"
    hint: str = ""
    of: str = ""  # for a spark: the column whose values it shows
    bar: str = ""  # colour of a bar beside the number; none when empty
    wide: bool = False  # takes what room there is
    minor: bool = False  # left out where the page is narrow
    spare: bool = False  # left out already where it is not wide
    adds: bool = False  # values of several rows may be added up


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    ``cells`` are by column key; besides these there may be ``title`` (a hint), ``parent`` (key of the row it is part
    of), ``badges`` (text, severity, hint), ``link`` (to a filtered panel) and any attribute to group or filter by.
    """

    key: str
    cells: Mapping[str, Any]
    detail: Sequence[tuple[str, str]] = ()  # what unfolds below it: a label and a line of source each


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What panels are made from."""

    snapshot: Snapshot
    labels: Mapping[str, str]  # of cells, by file name
    clock: Callable[[int], float]  # from the clock of the events to what the page shows, in ms
    thread_name: Callable[[int], str]
    source_line: Callable[[str, int], str]  # "" when it cannot be had
    since_ns: int = 0  # cells that ended before are not shown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A table with a name. ``make`` is called once per dashboard; what it returns makes the rows of a moment."""

    name: str
    title: str
    hint: str  # what it shows, in a sentence
    empty: str  # what stands there without rows
    columns: tuple[Column, ...]
    make: Callable[[], Callable[[Moment], Sequence[Row]]]
    rank: str = ""  # column by which groups are ranked
    groups: tuple[tuple[str, str], ...] = ()  # attributes to group by, and what they are called
    counts: bool = False  # the tab shows the number of rows
    place: int = 100  # from left to right

    def definition(self) -> dict[str, Any]:
        """What the page has to know of it before any row comes."""
        columns = [
            dataclasses.asdict(column) | ({"points": SPARK_POINTS} if column.kind == "spark" else {})
            for column in self.columns
        ]
        known = ("name", "title", "hint", "empty", "rank", "groups", "counts")
        return {name: getattr(self, name) for name in known} | {"columns": columns}


def all_panels() -> tuple[Panel, ...]:
    """Every panel there is: each module of ``panels/`` has one in ``PANEL``."""
    folder = importlib.import_module(f"{__package__}.panels")
    names = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    found = [importlib.import_module(f"{folder.__name__}.{name}").PANEL for name in names]
    return tuple(sorted(found, key=lambda panel: (panel.place, panel.name)))
