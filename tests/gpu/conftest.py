"""Tests that mean something on a real GPU only. Each runs in a process of its own: one driver, one tracker."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.capture import driver

if TYPE_CHECKING:
    from collections.abc import Callable

PRELUDE = """
import json, sys
import gpumem_magic as gpumem
from gpumem_magic.model.events import Kind, Layer
from cuda.bindings import driver as cuda

def check(result):
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else values

def used():
    free, total = check(cuda.cuMemGetInfo())
    return total - free

def live(snapshot=None):
    return (snapshot or gpumem.snapshot()).live_bytes

def use_device(ordinal=0):
    check(cuda.cuInit(0))
    device = check(cuda.cuDeviceGet(ordinal))
    check(cuda.cuCtxSetCurrent(check(cuda.cuDevicePrimaryCtxRetain(device))))
    return device

def answer(**values):
    gpumem.snapshot().self_check()
    print("ANSWER " + json.dumps(values))
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = pathlib.Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if not driver.is_driver_present():
            item.add_marker(pytest.mark.skip(reason="needs a real NVIDIA driver (libcuda.so.1 cannot be loaded)"))


@pytest.fixture
def on_gpu(tmp_path: pathlib.Path) -> Callable[..., dict[str, Any]]:
    """Runs a script after PRELUDE in a new process and returns what it passed to ``answer()``."""

    def run(script: str, *, timeout: int = 120, **environment: str) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603  (our own script)
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env={**os.environ, "GPUMEM_HOME": str(tmp_path), **environment},
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

    return run
