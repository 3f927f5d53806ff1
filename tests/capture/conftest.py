"""Scripts in processes of their own: a process has one driver, one CUPTI and one tracker."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import gpumem_magic
from tests.driver_calls import DRIVER_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

    Script = Callable[..., dict[str, Any]]

FLAGS = ("-X", "faulthandler", "-W", "ignore::DeprecationWarning")
PRELUDE = (
    DRIVER_CALLS
    + """
import ctypes, json, os, sys, threading, time
from gpumem_magic import simulator
from gpumem_magic.session import Session
from gpumem_magic.capture import cupti, heartbeat
from gpumem_magic.model.events import Kind

MIB = 1 << 20

def answer(**values):
    print("ANSWER " + json.dumps(values))

def simulate(devices=1):
    simulator.activate(devices=devices, memory="16GiB")
    from cuda.bindings import driver
    globals()["cuda"] = driver
    use_device()

def allocate(mib):
    return alloc(mib * MIB)

def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()

def quick(session, interval_s=0.05):
    session._heartbeat = heartbeat.Heartbeat(session._beat, interval_s=interval_s)
    return session

def our_threads():
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("gpumem"))

def native_threads():
    names = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    return sorted(name for name in names if name.startswith("gpumem"))

class Params(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("old", ctypes.c_char_p),
                ("old_size", ctypes.c_size_t), ("multiple", ctypes.c_uint8), ("padding", ctypes.c_uint8 * 7)]

class Other:
    '''Another tool that uses CUPTI: what it is told is in `heard`.'''

    def __init__(self):
        self.library = ctypes.CDLL(str(simulator.library_paths()["libcupti.so.13"]))
        self.handle = ctypes.c_void_p()
        self.heard = []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
        self.callback = kind(lambda user, domain, id, data: self.heard.append(id))

    def subscribe(self):
        result = self.library.cuptiSubscribe(ctypes.byref(self.handle), self.callback, None)
        return result or self.library.cuptiEnableDomain(1, self.handle, 1)

    def subscribe_sharing(self):
        params = Params(size=ctypes.sizeof(Params), name=b"other", multiple=1)
        result = self.library.cuptiSubscribe_v2(
            ctypes.byref(self.handle), self.callback, None, ctypes.byref(params))
        return result or self.library.cuptiEnableDomain(1, self.handle, 1)

    def unsubscribe(self):
        return self.library.cuptiUnsubscribe(self.handle)

    def finalize(self):
        return self.library.cuptiFinalize()
"""
)


@pytest.fixture
def script() -> Script:
    """Runs a script after PRELUDE in a new process and returns what it passed to ``answer()``."""

    def run(text: str, *, timeout: int = 120, silent: bool = True, **environment: str) -> dict[str, Any]:
        # The package under test, also where it is found through a path that only this process knows.
        package = str(pathlib.Path(gpumem_magic.__file__).parents[1])
        search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package]))
        done = subprocess.run(
            [sys.executable, *FLAGS, "-c", PRELUDE + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": search, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        assert not silent or done.stderr == "", done.stderr
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert answers, done.stdout
        result: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
        return result

    return run
