"""Each test is a process of its own: what it breaks dies with it, and a hang is a failure."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from .process import Ended, run_program

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = pathlib.Path(__file__).with_name("native_threads.c")


@pytest.fixture(scope="session")
def native_threads(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of ``native_threads.c``, compiled."""
    library = tmp_path_factory.mktemp("native") / "native_threads.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-pthread", str(SOURCE), "-o", str(library), "-ldl"],
        check=True,
    )
    return str(library)


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """``GPUMEM_HOME`` of the programs of this test."""
    return tmp_path / "recordings"


@pytest.fixture
def program(home: pathlib.Path, native_threads: str) -> Callable[..., Ended]:
    """``run_program`` with recordings in ``home`` and the native threads at hand."""

    def run(script: str, **options: Any) -> Ended:
        return run_program(script, options.pop("home", home), NATIVE_THREADS=native_threads, **options)

    return run
