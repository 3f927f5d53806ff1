"""What may be written after ``%gpumem`` and ``%%gpumem``. These parsers also make the help and the reference."""

from __future__ import annotations

import argparse
from typing import NoReturn

from IPython.core.error import UsageError

from gpumem_magic.model.units import parse_size


class MagicParser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence in the notebook and never end the kernel."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. Run `{self.prog} --help` for what can be written here.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        raise MagicHelpShown(message or "")


class MagicHelpShown(Exception):  # noqa: N818  (the request for help was fulfilled; nothing went wrong)
    """``--help`` was asked for and has been printed."""


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


_MOST = 10_000


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MOST}")
    return int(text)


def cell_parser() -> argparse.ArgumentParser:
    """``%%gpumem`` on the first line of a cell."""
    parser = MagicParser(
        prog="%%gpumem",
        description="Run this cell and show what it did to GPU memory: how much more is live after it, the exact "
        "peak, who allocated, and what stays.",
    )
    parser.add_argument("--depth", type=_positive, metavar="N", help="show at most N lines of each stack")
    parser.add_argument("--min", type=_size, default=0, metavar="SIZE", help="leave out rows below this, e.g. 1MiB")
    parser.add_argument("--save", metavar="NAME", help="also keep the report in the variable NAME")
    parser.add_argument("--quiet", action="store_true", help="show nothing unless an assertion fails")
    parser.add_argument(
        "--assert-peak",
        type=_size,
        metavar="SIZE",
        help="fail the cell when its peak over what was live before is larger than this",
    )
    parser.add_argument(
        "--assert-no-leak",
        action="store_true",
        help="fail the cell when device memory allocated in it is still live",
    )
    return parser


def line_parser() -> argparse.ArgumentParser:
    """``%gpumem VERB``."""
    parser = MagicParser(prog="%gpumem", description="GPU memory of this notebook. Without a verb: where things stand.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=MagicParser)
    verbs.add_parser("status", help="what is tracked, by which library, at what cost, and what is wrong")
    verbs.add_parser("on", help="track again after off, pause or a profiler")
    verbs.add_parser("off", help="stop tracking and give CUPTI back; the recording ends")
    verbs.add_parser("pause", help="stop recording for a while; the recording notes a gap")
    verbs.add_parser("cells", help="every cell run: delta, peak, held")
    last = verbs.add_parser("last", help="the recording of the kernel before this one, also when it was killed")
    last.add_argument("directory", nargs="?", help="another recording, by its directory")
    simulate = verbs.add_parser("simulate", help="a simulated GPU, on a machine that has none")
    simulate.add_argument("--devices", type=_positive, default=1, metavar="N", help="how many GPUs, 1 to 8 (1)")
    simulate.add_argument("--memory", type=_size, default=16 << 30, metavar="SIZE", help="capacity of each (16GiB)")
    return parser
