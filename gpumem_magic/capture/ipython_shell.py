"""The IPython shell that runs the notebook: found without importing IPython, and read into plain objects."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gpumem_magic.capture.forget import outputs
from gpumem_magic.capture.roots import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping


def running_shell() -> Any:
    """IPython's shell in this process; None outside of IPython."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def shell_of(shell: Any, cell_labels: Mapping[str, str]) -> Shell:
    """The shell's own names, for a search. Refers to the user's objects: not to be kept."""
    debugger = getattr(shell.InteractiveTB, "pdb", None)
    frames: tuple[tuple[str, Any], ...] = ()
    if debugger is not None and getattr(debugger, "curframe", None) is not None:
        frames = (("%debug", debugger.curframe),)
    return Shell(
        shell=shell,
        user_ns=shell.user_ns,
        out=outputs(shell),
        last_result=shell.last_execution_result,
        tracebacks=frames,
        cell_labels=cell_labels,
    )
