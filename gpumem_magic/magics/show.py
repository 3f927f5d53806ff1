"""Puts an answer under the cell that is running."""

from __future__ import annotations

from typing import Any

from IPython.display import display


def show(answer: Any) -> None:
    """Display an answer in the forms it has: rich where there is a page, text in a terminal."""
    display(answer._repr_mimebundle_(), raw=True)
