"""``gpumem report``: what a recording holds, as text, as a page, or as JSON."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING

from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.capture.recording import RecordingError, last_recording, open_recording
from gpumem_magic.cli import complain, say
from gpumem_magic.cli.report_json import report_json
from gpumem_magic.views.html import Html, document
from gpumem_magic.views.recording_report import recording_report_html, recording_report_text
from gpumem_magic.views.text import WIDTH

if TYPE_CHECKING:
    from typing import TextIO

    from gpumem_magic.analysis.recording_report import RecordingReport

_WIDEST = 160
_NARROWEST = 60


def parser() -> argparse.ArgumentParser:
    """What may be written after ``gpumem report``."""
    made = argparse.ArgumentParser(
        prog="gpumem report",
        description="Show a recording: of a notebook or a script, finished, still running, or killed.",
    )
    made.add_argument(
        "directory", nargs="?", metavar="DIR", type=pathlib.Path, help="the recording; the last one when left out"
    )
    form = made.add_mutually_exclusive_group()
    form.add_argument("--html", metavar="FILE", type=pathlib.Path, help="write a page for a browser instead")
    form.add_argument("--json", action="store_true", help="write JSON instead; sizes are in bytes")
    return made


def execute(options: argparse.Namespace) -> int:
    """Read the recording and show it in the form asked for."""
    try:
        directory = options.directory or last_recording()
        report = recording_report(open_recording(directory))
    except RecordingError as error:
        return complain(error)
    if options.html is not None:
        return _write_page(report, options.html)
    if options.json:
        return say(json.dumps(report_json(report, directory), indent=1))
    return say(report_page(report, directory, sys.stdout))


def report_page(report: RecordingReport, directory: pathlib.Path | str, file: TextIO) -> str:
    """The report as text, as wide as the terminal that ``file`` is, and where the recording lies."""
    width = WIDTH
    if file.isatty():
        width = min(max(shutil.get_terminal_size((WIDTH, 24)).columns, _NARROWEST), _WIDEST)
    return f"{recording_report_text(report, width=width)}The recording is in {directory}"


def _write_page(report: RecordingReport, path: pathlib.Path) -> int:
    page = document(Html(recording_report_html(report)), f"GPU memory: {report.name}")
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        return complain(f"The page cannot be written to {path} ({error.strerror}). Name another file.")
    return say(f"Wrote {path}")
