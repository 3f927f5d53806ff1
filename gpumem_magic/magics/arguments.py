"""What may be written after ``%gpumem`` and ``%%gpumem``. These parsers also make the help and the reference."""

from __future__ import annotations

import argparse
import math
from typing import Any, NoReturn

from IPython.core.error import UsageError

from gpumem_magic.model.units import parse_duration, parse_size


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
    parser.add_argument("--live", action="store_true", help="show the report's picture while the cell runs, too")
    parser.add_argument(
        "--tensors", action="store_true", help="also show which lines made PyTorch's tensors, and what is live of them"
    )
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


def _durations(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def _ordinals(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of GPU numbers such as 0,1")
    return tuple(int(part) for part in parts)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 1 <= rate <= 100:  # noqa: PLR2004  (what the sampler takes)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples a second from 1 to 100")
    return rate


def _add_watching(verbs: Any) -> None:
    """The verbs that are about memory over time."""
    watch = verbs.add_parser("watch", help="the live dashboard; options set what it shows")
    watch.add_argument("--window", type=_durations, metavar="TIME", help="how much time is shown: 30s, 5min, 2h, all")
    watch.add_argument("--devices", type=_ordinals, metavar="N,N", help="unfold the pictures of these GPUs only")
    watch.add_argument("--rate", type=_rate, metavar="HZ", help="samples a second, 1 to 100 (10)")
    watch.add_argument("--pause", action="store_true", help="stop drawing; recording goes on")
    watch.add_argument("--resume", action="store_true", help="draw again")
    watch.add_argument("--clear-cells", action="store_true", help="take finished cells off its table")
    verbs.add_parser("close", help="close the dashboard; a still picture stays")
    timeline = verbs.add_parser("timeline", help="memory over time as a still picture")
    timeline.add_argument("--window", type=_durations, metavar="TIME", help="the latest 30s, 5min, 2h; all by default")
    timeline.add_argument("--devices", type=_ordinals, metavar="N,N", help="these GPUs only")
    mark = verbs.add_parser("mark", help="give this moment a name, in every picture")
    mark.add_argument("name", nargs="+", help="the name")


def _add_freeing(verbs: Any) -> None:
    free = verbs.add_parser(
        "free",
        help="let go of what keeps device memory alive, and measure what that gives back",
        description="Let go of outputs, the last traceback, garbage, caches or variables, and say what that was "
        "predicted to free, what it freed, and what the GPU got back. What other names keep stays, and is told.",
    )
    free.add_argument(
        "targets",
        nargs="*",
        metavar="WHAT",
        help="Out[7], out (all outputs), traceback (the last exception; %%debug is lost), cycles (garbage), cache "
        "(what frameworks keep for later), all-safe (traceback, cycles and cache), or a variable",
    )
    free.add_argument(
        "--variable", action="append", dest="variables", metavar="NAME", help="one called like a word above"
    )
    free.add_argument("--dry-run", action="store_true", help="only say what it would free")


def line_parser() -> argparse.ArgumentParser:
    """``%gpumem VERB``."""
    parser = MagicParser(
        prog="%gpumem",
        description="GPU memory of this notebook. Without a verb: the live dashboard; in a terminal, a panel of text.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=MagicParser)
    _add_watching(verbs)
    verbs.add_parser("status", help="what is tracked, by which library, at what cost, and what is wrong")
    on = verbs.add_parser("on", help="track again after off, pause or a profiler")
    on.add_argument(
        "--tensors",
        action=argparse.BooleanOptionalAction,
        help="from the next cell on, record which lines make PyTorch's tensors, until --no-tensors or off",
    )
    verbs.add_parser("tensors", help="the tensors of the last recorded cell that made any")
    verbs.add_parser("off", help="stop tracking and give CUPTI back; the recording ends")
    verbs.add_parser("pause", help="stop recording for a while; the recording notes a gap")
    verbs.add_parser("cells", help="every cell run: delta, peak, held")
    ledger = verbs.add_parser("ledger", help="every byte of a GPU, in rows that add up to what it reports")
    ledger.add_argument("--devices", type=_ordinals, metavar="N,N", help="these GPUs only")
    who = verbs.add_parser("who", help="what keeps device memory alive: variables, outputs, exceptions, modules")
    who.add_argument("target", nargs="?", default="", help="a name such as model or Out[7], or an address")
    who.add_argument("--top", type=_positive, default=10, metavar="N", help="the N largest pieces of memory (10)")
    _add_freeing(verbs)
    last = verbs.add_parser("last", help="the recording of the kernel before this one, also when it was killed")
    last.add_argument("directory", nargs="?", help="another recording, by its directory")
    simulate = verbs.add_parser("simulate", help="a simulated GPU, on a machine that has none")
    simulate.add_argument("--devices", type=_positive, default=1, metavar="N", help="how many GPUs, 1 to 8 (1)")
    simulate.add_argument("--memory", type=_size, default=16 << 30, metavar="SIZE", help="capacity of each (16GiB)")
    return parser
