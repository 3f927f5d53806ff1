"""Every byte of GPU memory in a notebook has an owner: a line, a cell, a library.

In a notebook: ``%load_ext gpumem_magic``, then ``%%gpumem`` on top of a cell. In Python::

    import gpumem_magic as gpumem

    gpumem.start()
    with gpumem.track("epoch") as epoch:
        train()
    print(epoch.peak_bytes)

Importing this package loads neither CUDA nor NumPy nor Bokeh; the first use of a name below does what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from gpumem_magic.api import free, ledger, load, simulate, snapshot, start, status, stop, track, who

__all__ = ["__version__", "free", "ledger", "load", "simulate", "snapshot", "start", "status", "stop", "track", "who"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpumem_magic import api  # noqa: PLC0415  (see above: importing the package must cost nothing)

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext gpumem_magic``: start tracking and say so in one line."""
    from gpumem_magic.magics import load  # noqa: PLC0415

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext gpumem_magic``: stop tracking and leave nothing behind."""
    from gpumem_magic.magics import unload  # noqa: PLC0415

    unload(shell)
