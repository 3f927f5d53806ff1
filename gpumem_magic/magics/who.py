"""``%gpumem who``: finds what was asked for, and hands the shell's own names to the search."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.capture.frameworks.imported import holdings_of
from gpumem_magic.capture.roots import Shell
from gpumem_magic.magics.names import look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from gpumem_magic.model.holders import Holder, Holders
    from gpumem_magic.session import Session

TOP = 10
_MOST_PIECES = 20
_NAMED = 200  # memories, of one name, for which the ways are looked for


def who(session: Session, shell: InteractiveShell, target: str, top: int) -> tuple[str, Holders]:
    """What was asked for, in words, and the answer.

    Args:
        session: that tracks.
        shell: whose variables and outputs count.
        target: a name such as ``model`` or ``Out[7]``, an address such as ``0x7f12a0000000``; "" for the largest.
        top: how many of the largest.

    Raises:
        RuntimeError: tracking is off.
        NameNotFoundError: there is no such name.
    """
    if not target:
        found = session.holders(shell_of(session, shell), named=top)
        return f"The {top} largest pieces of device memory", dataclasses.replace(found, holders=found.holders[:top])
    addresses = _addresses(target, shell)
    if len(addresses):
        found = session.holders(shell_of(session, shell), addresses=addresses, named=_NAMED)
        return f"Who holds {target}", _only(found, found.holders)
    found = session.holders(shell_of(session, shell), named=_NAMED, names_each=50)
    root = target.partition(".")[0]
    mine = [each for each in found.holders if any(_is_below(name.path, name.name, target, root) for name in each.names)]
    return f"What {target} holds", _only(found, mine[:_MOST_PIECES])


def _only(found: Holders, holders: Sequence[Holder]) -> Holders:
    """These pieces, and the names that are among theirs."""
    names = {name.name for holder in holders for name in holder.names}
    totals = tuple(total for total in found.totals if total.name in names)
    return dataclasses.replace(found, holders=tuple(holders), totals=totals)


def _addresses(target: str, shell: InteractiveShell) -> np.ndarray:
    """Where the memory lies that was named; nothing for a name that stands for something else than memory."""
    try:
        return np.array([int(target, 0)], np.uint64)
    except OverflowError:
        return np.zeros(1, np.uint64)  # no address is as large: nothing lies there
    except ValueError:
        named = [look_up(target, shell.user_ns)]
        return np.array([holding.address for _, holding in holdings_of(named)], np.uint64)


def _is_below(path: str, name: str, target: str, root: str) -> bool:
    return name == root and (path == target or path.startswith((f"{target}.", f"{target}[", f"{target} ")))


def shell_of(session: Session, shell: InteractiveShell) -> Shell:
    """The shell's own names, for a search. Refers to the user's objects: not to be kept."""
    debugger = getattr(shell.InteractiveTB, "pdb", None)
    frames: tuple[tuple[str, Any], ...] = ()
    if debugger is not None and getattr(debugger, "curframe", None) is not None:
        frames = (("%debug", debugger.curframe),)
    return Shell(
        shell=shell,
        user_ns=shell.user_ns,
        out=shell.user_ns.get("_oh", {}),
        last_result=shell.last_execution_result,
        tracebacks=frames,
        cell_labels=notebook_labels(session.snapshot(allocations=False)),
    )
