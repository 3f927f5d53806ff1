"""The command ``gpumem``: the same verbs outside a notebook.

Every verb is a module here with two functions: ``parser()`` says what may be written, ``execute(options)`` does it
and returns the exit status: 0 for fine, 1 for a problem found, 2 for a wrong command line. A verb's module is
imported when the verb is used: ``gpumem doctor`` must run where the native core cannot even be loaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from gpumem_magic import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "doctor": "check this machine and this installation, and say what to do about what is missing",
    "report": "show a recording: the last one, or the one in a directory",
    "run": "run a Python script and record every GPU allocation it makes",
}


def parser() -> argparse.ArgumentParser:
    """The command itself; what follows the verb is left to the verb's own parser."""
    made = argparse.ArgumentParser(
        prog="gpumem",
        description="See every allocation of GPU memory, and who made it.",
        epilog="verbs:\n"
        + "".join(f"  {verb:<8} {text}\n" for verb, text in VERBS.items())
        + "\n`gpumem VERB --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"gpumem_magic {__version__}")
    made.add_argument("verb", choices=tuple(VERBS), metavar="VERB", help=", ".join(VERBS))
    made.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the verb takes")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the command line without the program's name; ``sys.argv[1:]`` when None.

    Returns:
        The exit status.

    Raises:
        SystemExit: with status 2 for a wrong command line, 0 after ``--help``; and whatever a script raises that
            ``gpumem run`` runs.
    """
    command = parser().parse_args(argv)
    verb = importlib.import_module(f"gpumem_magic.cli.{command.verb}")
    options = verb.parser().parse_args(command.arguments)
    return int(verb.execute(options))


def say(text: str, status: int = 0) -> int:
    """Print an answer and return the exit status: ``status``, or 1 when the reader has gone away."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `gpumem report | head`; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def complain(problem: object) -> int:
    """Say on stderr what went wrong, in a sentence. Returns the exit status for it."""
    print(f"gpumem: {problem}", file=sys.stderr)
    return 1
