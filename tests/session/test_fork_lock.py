"""A lock of ours that another thread held at the moment of a fork must not hang the child."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.gpu_process import run_script

if TYPE_CHECKING:
    import pathlib


def test_child_of_a_fork_gets_a_lock_of_its_own(tmp_path: pathlib.Path) -> None:
    found = run_script(
        """
import os, signal
from gpumem_magic import api
with api._lock:  # as a thread that is forked away from would
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if gpumem.status().state == "off" else 1)
use_gpu_or_simulate()
gpumem.start()
answer(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        tmp_path,
    )
    assert found == {"code": 0}
