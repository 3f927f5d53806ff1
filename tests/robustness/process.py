"""Runs a program with a tracker and a simulated GPU in a process of its own, under a watchdog."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

PRELUDE = """
import ctypes, json, os, sys, threading
import gpumem_magic as gpumem
from gpumem_magic import _core, simulator
from gpumem_magic.model.events import Kind

simulator.activate(devices=1, memory="64GiB")
cuda = ctypes.CDLL("libcuda.so.1")  # every call gives the GIL up, as those of real libraries do
context = ctypes.c_void_p()

def use_device():
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    use_context()

def use_context():
    assert cuda.cuCtxSetCurrent(context) == 0

def alloc(size):
    pointer = ctypes.c_uint64()
    status = cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size))
    assert status == 0, status
    return pointer.value

def free(pointer):
    status = cuda.cuMemFree_v2(ctypes.c_uint64(pointer))
    assert status == 0, status

def native_threads(holding_the_gil=False):
    return (ctypes.PyDLL if holding_the_gil else ctypes.CDLL)(os.environ["NATIVE_THREADS"])

def totals(library):
    counted = (ctypes.c_uint64 * 4)()
    library.totals(counted)
    return list(counted)

def frames(snapshot, stack):
    return [(frame.filename, frame.function, frame.line) for frame in snapshot.stacks.frames(stack)]

def answer(**values):
    print("ANSWER " + json.dumps(values), flush=True)

use_device()
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a program."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        """What it passed to ``answer()`` last; the program has to have ended well."""
        assert self.returncode == 0, f"exit {self.returncode}\n{self.stdout[-3000:]}\n{self.stderr[-6000:]}"
        answers = [line for line in self.stdout.splitlines() if line.startswith("ANSWER ")]
        assert answers, self.stdout
        values: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
        return values


@contextlib.contextmanager
def running(
    script: str, home: pathlib.Path, *, close_fds: bool = True, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """PRELUDE and ``script`` under way. Whatever is left of it and its children is killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(script)],
        env={**os.environ, "GPUMEM_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        close_fds=close_fds,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def run_program(script: str, home: pathlib.Path, *, timeout: float = 60, **environment: str) -> Ended:
    """Run PRELUDE and ``script`` to the end. Raises subprocess.TimeoutExpired when it hangs."""
    with running(script, home, **environment) as child:
        stdout, stderr = child.communicate(timeout=timeout)
        return Ended(returncode=child.returncode, stdout=stdout, stderr=stderr)
