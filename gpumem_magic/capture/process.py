"""What tells this process from others."""

from __future__ import annotations

import os
import platform
import socket
import time

from gpumem_magic.model.snapshot import Process


def this_process() -> Process:
    """Host, rank and clocks of the process that runs this, now."""
    rank = os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "-1"))
    return Process(
        host=socket.gethostname(),
        pid=os.getpid(),
        rank=int(rank) if rank.lstrip("-").isdigit() else -1,
        started_unix_ns=time.time_ns(),
        started_ns=time.monotonic_ns(),
        python=platform.python_version(),
    )
