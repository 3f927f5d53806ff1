"""``gpumem doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap

from gpumem_magic.cli import say
from gpumem_magic.cli.checks import Check, all_checks

_WIDTH = 100


def parser() -> argparse.ArgumentParser:
    """What may be written after ``gpumem doctor``."""
    made = argparse.ArgumentParser(
        prog="gpumem doctor",
        description="Check this machine and this installation. Changes nothing and disturbs no running notebook. "
        "The exit status is 1 when something that is needed does not work; having no GPU is not that.",
    )
    made.add_argument("--json", action="store_true", help="write JSON instead")
    return made


def execute(options: argparse.Namespace) -> int:
    """Make all checks and show them."""
    checks = list(all_checks())
    failed = any(check.grade == "fail" for check in checks)
    if options.json:
        return say(json.dumps([dataclasses.asdict(check) for check in checks], indent=1), int(failed))
    return say(doctor_text(checks), int(failed))


def doctor_text(checks: list[Check]) -> str:
    """A line per check with its grade, what to do below it, and the sum of it all."""
    column = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(_wrapped(f"{check.grade:<4}  {check.name:<{column}}  ", check.finding))
        if check.advice:
            lines.append(_wrapped(" " * (column + 8), f"-> {check.advice}"))
    return "\n".join([*lines, "", _verdict(checks)])


def _wrapped(margin: str, text: str) -> str:
    # Paths and commands are copied by hand: never cut one.
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=margin,
        subsequent_indent=" " * len(margin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(checks: list[Check]) -> str:
    grades = [check.grade for check in checks]
    if "fail" in grades:
        return f"{grades.count('fail')} of {len(checks)} checks failed: see the lines that begin with `fail`."
    found = ["It works"]
    found += ["there is no GPU here: use the simulated one"] if "info" in grades else []
    found += ["the lines that begin with `warn` say what could be better"] if "warn" in grades else []
    return "; ".join(found) + "."
