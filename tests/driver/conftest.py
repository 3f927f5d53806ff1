"""The same numbers on the simulated driver as on a real one: these tests run on whichever is there."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests.gpu_process import run_script

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable


@pytest.fixture
def on_gpu(tmp_path: pathlib.Path) -> Callable[..., dict[str, Any]]:
    """``run_script`` on the real GPU, or on two simulated ones where there is none."""

    def run(script: str, **options: Any) -> dict[str, Any]:
        return run_script("use_gpu_or_simulate()\n" + textwrap.dedent(script), tmp_path, **options)

    return run
