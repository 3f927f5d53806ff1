"""Runs a script with a tracker and a GPU in a process of its own: one driver, one tracker, one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from tests.driver_calls import DRIVER_CALLS

if TYPE_CHECKING:
    import pathlib

PRELUDE = (
    """
import json, sys
import gpumem_magic as gpumem
from gpumem_magic.model.events import Kind, Layer
from cuda.bindings import driver as cuda
"""
    + DRIVER_CALLS
    + """
def used():
    free, total = check(cuda.cuMemGetInfo())
    return total - free

def live(snapshot=None):
    return (snapshot or gpumem.snapshot()).live_bytes

def use_gpu_or_simulate(devices=2):
    from gpumem_magic import simulator
    from gpumem_magic.capture import driver
    if not driver.is_driver_present():
        simulator.activate(devices=devices, memory="16GiB")

def answer(**values):
    gpumem.snapshot().self_check()
    print("ANSWER " + json.dumps(values))
"""
)


def run_script(script: str, home: pathlib.Path, *, timeout: int = 120, **environment: str) -> dict[str, Any]:
    """Run PRELUDE and ``script``; returns what it passed to ``answer()``. Recordings go to ``home``."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        env={**os.environ, "GPUMEM_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stdout
    result: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
    return result
