"""IPython: parse, call, display. ``%load_ext gpumem_magic`` and ``%unload_ext gpumem_magic`` end up here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.magics.magic import GpuMemoryMagics
from gpumem_magic.magics.status_rows import status_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_LOADED = "_gpumem_magics"


def load(shell: InteractiveShell) -> None:
    """Install the magics into ``shell``, start tracking, and print one line. Loading twice is loading once."""
    if getattr(shell, _LOADED, None) is not None:
        return
    magics = GpuMemoryMagics(shell)
    magics.install()
    setattr(shell, _LOADED, magics)
    print(status_line(magics.session.status()))  # noqa: T201  (the one line that loading says)


def unload(shell: InteractiveShell) -> None:
    """Undo ``load`` exactly."""
    magics: GpuMemoryMagics | None = getattr(shell, _LOADED, None)
    if magics is None:
        return
    magics.remove()
    delattr(shell, _LOADED)
