"""``%%gpumem`` as the first line of a cell, without touching the rest of it.

A cell magic would be handed the cell as text and would have to run it itself: ``await``, tracebacks, the last
expression's value and the cell's success would all become imitations. Instead the line is taken out while IPython
translates the cell, and the cell runs as any other.
"""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from gpumem_magic.magics.arguments import cell_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

MARK = "%%gpumem"
LINE_MARK = "%gpumem"


def cell_options(raw_cell: str) -> argparse.Namespace | None:
    """Options of a cell that begins with ``%%gpumem``; None for any other cell.

    Raises:
        UsageError: the options make no sense.
    """
    line = raw_cell.lstrip().partition("\n")[0]
    if line.split(maxsplit=1)[:1] != [MARK]:
        return None
    return parse(line[len(MARK) :])


def parse(text: str) -> argparse.Namespace:
    """The options in ``text``.

    Raises:
        UsageError: the options make no sense.
        MagicHelpShown: ``--help`` was among them, and was printed.
    """
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise UsageError(f"{MARK}{text}: {error}.") from None
    return cell_parser().parse_args(words)


class MarkHider:
    """Input transformer that makes a comment of the first line, so that line numbers stay what they are.

    Where another cell magic follows, the line goes altogether: that magic must be the first line itself.
    Text that is translated while a cell runs is somebody else's (``%%time`` translates its own body, for one): there
    the line stays, and IPython calls the cell magic. Bad options raise UsageError, which keeps a cell from running.
    """

    # IPython asks this way before it lets a transformer look at code that is only being typed.
    has_side_effects = True

    def __init__(self, is_cell_running: Callable[[], bool]) -> None:
        self._is_cell_running = is_cell_running
        self._invited = False

    @contextlib.contextmanager
    def invited(self) -> Iterator[None]:
        """Inside, the next translation is of a cell of ours although a cell is running."""
        self._invited = True
        try:
            yield
        finally:
            self._invited = False

    def __call__(self, lines: list[str]) -> list[str]:
        first = next((index for index, line in enumerate(lines) if line.strip()), None)
        if first is None or lines[first].split(maxsplit=1)[:1] != [MARK]:
            return lines
        if self._is_cell_running() and not self._invited:
            return lines
        words = lines[first].split()
        if "--help" in words or "-h" in words:
            return ["pass\n"]  # the help itself is printed once, by the hook that runs before the cell
        parse(lines[first].strip()[len(MARK) :])
        rest = lines[first + 1 :]
        following = next((line for line in rest if line.strip()), "")
        if following.startswith("%%"):
            return rest
        return [*lines[:first], f"# {lines[first].lstrip()}", *rest]
