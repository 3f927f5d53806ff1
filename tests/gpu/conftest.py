"""Tests of frameworks that need the CUDA runtime, and so a real GPU."""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.capture import driver
from tests.gpu_process import run_script

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = pathlib.Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if not driver.is_driver_present():
            item.add_marker(pytest.mark.skip(reason="needs a real NVIDIA driver (libcuda.so.1 cannot be loaded)"))


@pytest.fixture
def on_gpu(tmp_path: pathlib.Path) -> Callable[..., dict[str, Any]]:
    """``run_script`` with recordings in a directory of the test."""
    return functools.partial(run_script, home=tmp_path)
