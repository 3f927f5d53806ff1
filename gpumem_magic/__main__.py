"""``python -m gpumem_magic`` is the command ``gpumem``."""

from __future__ import annotations

from gpumem_magic.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
