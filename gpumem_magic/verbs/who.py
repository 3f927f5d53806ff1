"""``%gpumem who``: finds what was asked for, and who holds it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.capture.forget import variables
from gpumem_magic.capture.frameworks.imported import holdings_of
from gpumem_magic.model.units import format_size
from gpumem_magic.verbs.names import NameNotFoundError, look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.holders import Holder, Holders
    from gpumem_magic.session import Session

TOP = 10
_MOST_PIECES = 20
_NAMED = 200  # memories, of one name, for which the ways are looked for


def who(session: Session, target: object, *, shell: Any = None, top: int = TOP) -> tuple[str, Holders]:
    """What was asked for, in words, and the answer.

    Args:
        session: that tracks.
        target: a name such as ``model`` or ``Out[7]``; an address, as a number or as text such as ``0x7f12a0000000``;
            an array or tensor, or what a variable refers to; "" for the largest pieces of memory.
        shell: IPython's, whose variables and outputs count; None for a script.
        top: how many of the largest.

    Raises:
        RuntimeError: tracking is off.
        NameNotFoundError: there is no such name, or the object has none.
    """
    if type(target) is str and not target:
        found = session.holders(shell, named=top)
        return _largest(found, top), dataclasses.replace(found, holders=found.holders[:top])
    addresses, name = _meant(target, variables(shell))
    if len(addresses):
        found = session.holders(shell, addresses=addresses, named=_NAMED)
        shared = any(holder.name_count > 1 for holder in found.holders)
        told = _only(found, found.holders)
        return f"Who holds {name}", dataclasses.replace(told, totals=()) if shared else told
    found = session.holders(shell, named=_NAMED, names_each=50)
    root = name.partition(".")[0]
    mine = [each for each in found.holders if any(_is_below(way.path, way.name, name, root) for way in each.names)]
    shown = max(top, _MOST_PIECES) if top == TOP else top
    title = f"What {name} holds" + (f": the {shown} largest of {len(mine)} pieces" if len(mine) > shown else "")
    return title, _only(found, mine[:shown])


def _largest(found: Holders, top: int) -> str:
    pieces = len(found.holders)
    if pieces <= top:
        return "All device memory that Python objects know"
    return f"The {top} largest of {pieces:,} pieces of device memory, {format_size(found.bytes)} in all"


def _only(found: Holders, holders: Sequence[Holder]) -> Holders:
    """These pieces, and the names that are among theirs."""
    names = {name.name for holder in holders for name in holder.names}
    totals = tuple(total for total in found.totals if total.name in names)
    return dataclasses.replace(found, holders=tuple(holders), totals=totals)


def _meant(target: object, names: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Where the memory lies that was named, nowhere for what is no memory itself; and what to call it."""
    if type(target) is int:
        return _address(target), f"{target:#x}"
    if type(target) is not str:
        return _addresses(target), _name_of(target, names)
    try:
        number = int(target, 0)
    except ValueError:
        number = None
    return (_addresses(look_up(target, names)) if number is None else _address(number)), target


def _address(value: int) -> np.ndarray:
    try:
        return np.array([value], np.uint64)
    except OverflowError:
        return np.zeros(1, np.uint64)  # no address is as large: nothing lies there


def _addresses(value: object) -> np.ndarray:
    return np.array([holding.address for _, holding in holdings_of([value])], np.uint64)


def _name_of(value: object, names: dict[str, Any]) -> str:
    found = next((name for name, each in names.items() if each is value and not name.startswith("_")), None)
    if found is not None:
        return found
    if len(_addresses(value)):
        return "this object"
    raise NameNotFoundError("This object is no device memory, and no variable of the notebook: ask for one of these.")


def _is_below(path: str, name: str, target: str, root: str) -> bool:
    return name == root and (path == target or path.startswith((f"{target}.", f"{target}[", f"{target} ")))
