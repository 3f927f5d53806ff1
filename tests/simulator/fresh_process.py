"""Runs a test's body in a process of its own.

A simulated driver is loaded for the life of a process and remembers all that was
done to it, so every test that activates one gets a fresh process.
"""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 120

# What the child runs: the undecorated test, found by module and name. The checkout
# comes last on its path, so that an installed package is tested, not the sources.
_CHILD = """
import sys
root, module, name = sys.argv[1:]
sys.path.append(root)
from tests.simulator import fresh_process
fresh_process.run(module, name)
"""


def in_fresh_process(
    **environment: str,
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Make a test run in a new interpreter with the environment variables added.

    The test fails, with the child's output, if the child exits with anything but 0.
    """

    def decorate(test: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(test)
        def wrapper() -> None:
            child = subprocess.run(
                [sys.executable, "-P", "-c", _CHILD, str(_ROOT), test.__module__, test.__name__],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"

        return wrapper

    return decorate


def run(module: str, name: str) -> None:
    """In the child: call the test itself."""
    getattr(importlib.import_module(module), name).__wrapped__()
