"""The command as a user starts it: in a process of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import gpumem_magic

if TYPE_CHECKING:
    from collections.abc import Callable

    Gpumem = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = """\
import sys
from cuda.bindings import driver as cuda

def check(result):
    status, *values = result
    assert int(status) == 0, status
    return values[0] if values else None

def keep():
    return check(cuda.cuMemAlloc(64 << 20))

check(cuda.cuInit(0))
check(cuda.cuCtxSetCurrent(check(cuda.cuDevicePrimaryCtxRetain(check(cuda.cuDeviceGet(0))))))
kept = keep()
check(cuda.cuMemFree(check(cuda.cuMemAlloc(128 << 20))))
"""


@pytest.fixture
def gpumem(tmp_path: pathlib.Path) -> Gpumem:
    """Runs ``python -m gpumem_magic ARGUMENTS`` in ``tmp_path``; keyword arguments are environment variables."""

    def run(*arguments: str | pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
        # The package under test, also where it is found through a path that only this process knows.
        package = str(pathlib.Path(gpumem_magic.__file__).parents[1])
        search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package]))
        return subprocess.run(
            [sys.executable, "-m", "gpumem_magic", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": search, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def script(tmp_path: pathlib.Path) -> Callable[[str], str]:
    """Writes ``app.py``: 64 MiB stay, 128 MiB come and go, then ``ending`` runs. Returns its name."""

    def write(ending: str = "") -> str:
        (tmp_path / "app.py").write_text(SCRIPT + ending, encoding="utf-8")
        return "app.py"

    return write
