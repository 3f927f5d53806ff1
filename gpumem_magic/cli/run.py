"""``gpumem run``: a script as Python would run it, with every GPU allocation recorded."""

from __future__ import annotations

import argparse
import atexit
import importlib.machinery
import os
import pathlib
import runpy
import sys
import threading
import types
import zipfile
from typing import TYPE_CHECKING

from gpumem_magic import api, simulator
from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.cli import complain
from gpumem_magic.cli.report import report_page
from gpumem_magic.model.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_MEMORY_BYTES = 16 << 30


def parser() -> argparse.ArgumentParser:
    """What may be written after ``gpumem run``."""
    made = argparse.ArgumentParser(
        prog="gpumem run",
        usage="%(prog)s [options] (SCRIPT | -m MODULE) [ARGS ...]",
        description="Run a Python script, a directory or zip file with a __main__.py, or a module, and record every "
        "GPU allocation it makes. Its output, its exit status and its exceptions are its own; the report goes to "
        "stderr.",
    )
    made.add_argument("--simulate", action="store_true", help="give it simulated GPUs, on a machine that has none")
    made.add_argument("--devices", type=_devices, metavar="N", help="how many simulated GPUs, 1 to 8 (1)")
    made.add_argument("--memory", type=_size, metavar="SIZE", help="capacity of each simulated GPU (16GiB)")
    made.add_argument(
        "--report", action=argparse.BooleanOptionalAction, default=True, help="print the report at the end (yes)"
    )
    made.add_argument("-m", action="store_true", dest="is_module", help="SCRIPT is a module's name, as in python -m")
    made.add_argument("script", metavar="SCRIPT", help="what to run")
    made.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="what it finds in sys.argv")
    return made


def execute(options: argparse.Namespace) -> int:
    """Run the script under tracking.

    Returns:
        0 when the script ran to its end, 1 when it could not be started.

    Raises:
        BaseException: whatever the script raises, SystemExit among them.
    """
    if not options.simulate and (options.devices, options.memory) != (None, None):
        parser().error("--devices and --memory describe simulated GPUs: they need --simulate")
    if not options.is_module and not os.path.exists(options.script):  # noqa: PTH110  (a Path would change "./x" to "x")
        return complain(f"There is no script {options.script}. For a module, write `gpumem run -m MODULE`.")
    if options.simulate:
        try:
            memory = _DEFAULT_MEMORY_BYTES if options.memory is None else options.memory
            simulator.activate(devices=options.devices or 1, memory=memory)
        except (RuntimeError, ValueError) as error:
            return complain(error)
    status = api.start()
    if status.state == "no GPU":
        complain("no GPU to track; `gpumem doctor` says why. With `gpumem run --simulate` the script gets one.")
    elif status.state != "on":
        complain(f"not every allocation will be seen. {status.reason}")
    _run_tracked(options)
    return 0


def _run_tracked(options: argparse.Namespace) -> None:
    """The whole script is one span. What it leaves in its globals is still live when the report is made."""
    left: object = None
    exited: SystemExit | None = None
    try:
        with api.track(pathlib.PurePath(options.script).name or options.script):
            try:
                left = run_as_main(options.script, options.arguments, is_module=options.is_module)
            except SystemExit as raised:
                exited = raised  # a way to end, not an error of the span
    finally:
        _finish_when_threads_have(report=options.report)
    if exited is not None:
        raise exited
    del left


def run_as_main(script: str, arguments: Sequence[str], *, is_module: bool = False) -> dict[str, object]:
    """Run it as ``python SCRIPT ARGS`` or ``python -m MODULE ARGS`` would. Returns its globals.

    ``sys.argv``, ``sys.path`` and ``__main__`` stay as the script left them: its threads and exit handlers may
    need them.
    """
    sys.argv[:] = [script, *arguments]
    if is_module:
        _put_first(os.getcwd())  # noqa: PTH109  (a string, as Python itself puts there)
        return runpy.run_module(script, run_name="__main__", alter_sys=True)
    if os.path.isdir(script) or zipfile.is_zipfile(script) or script.endswith(".pyc"):  # noqa: PTH112
        return runpy.run_path(script, run_name="__main__")
    _put_first(os.path.dirname(os.path.realpath(script)))  # noqa: PTH120
    return _run_source(os.path.abspath(script))  # noqa: PTH100


def _run_source(path: str) -> dict[str, object]:
    """A plain script. runpy would make ``sys.argv[0]`` and ``__file__`` the same, which Python does not."""
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    main = types.ModuleType("__main__")
    main.__loader__ = loader
    main.__file__ = path
    sys.modules["__main__"] = main
    exec(loader.source_to_code(loader.get_data(path), path), vars(main))  # noqa: S102  (what the user asked for)
    return vars(main)


def _put_first(directory: str) -> None:
    """In the place of this program's own directory; nowhere under ``python -P``, as Python does it."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _finish_when_threads_have(*, report: bool) -> None:
    """Finish now, or at exit while other threads of the script still run: they are part of it."""
    owner = os.getpid()

    def finish() -> None:
        if os.getpid() == owner:  # a forked child that comes by here leaves the recording to its parent
            _finish(report=report)

    others = [each for each in threading.enumerate() if each is not threading.current_thread() and not each.daemon]
    if others:
        atexit.register(finish)
    else:
        finish()


def _finish(*, report: bool) -> None:
    """End the recording; report on stderr, which leaves stdout to the script."""
    status = api.status()
    if status.state == "off":  # the script ended the recording itself
        return
    snapshot = api.snapshot(pathlib.PurePath(status.recording).name)
    api.stop()
    sys.stdout.flush()
    if report:
        print(report_page(recording_report(snapshot), status.recording, sys.stderr), file=sys.stderr)
    else:
        print(f"gpumem: the recording is in {status.recording}", file=sys.stderr)


def _devices(text: str) -> int:
    if text not in tuple("12345678"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 8")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
