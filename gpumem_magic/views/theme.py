"""Colours and style of the answers, light and dark.

Colours of data are those of Okabe and Ito (2008), which stay apart for colour-blind readers, darkened or lightened
to keep 3:1 against the page. Text takes the colours of the page it is in: JupyterLab's theme variables where
they exist. Dark is chosen by, in this order, what JupyterLab or VS Code say of their theme, then by the browser.
"""

from __future__ import annotations

import functools
import importlib.resources
import re

LIGHT = {
    "fg": "#1b1f24",
    "muted": "#57606a",
    "line": "#d8dee4",
    "soft": "#f3f5f7",
    "live": "#0072b2",
    "live-soft": "#cfe4f1",
    "peak": "#b84a00",
    "held": "#00785a",
    "held-soft": "#bfe6da",
    "info-bg": "#e8f2f9",
    "info-fg": "#0b4f79",
    "warning-bg": "#fdf1d8",
    "warning-fg": "#6f4b00",
    "error-bg": "#fde7e1",
    "error-fg": "#8e2d06",
    # What fills a device: areas, and the edges that part them. What rarely moves is grey.
    "band-other": "#e6e9ec",
    "edge-other": "#7d8590",
    "band-base": "#7c8691",
    "edge-base": "#424a53",
    "band-unexplained": "#f5d78f",
    "edge-unexplained": "#a86400",
    "band-live": "#4a9ccb",
    "edge-live": "#0072b2",
    "band-cached": "#dfa9c7",
    "edge-cached": "#a8477f",
    "band-high": "#dcebf5",  # how far up tracked memory went for less than a row's time
    "edge-high": "#4a97c4",
}
DARK = {
    "fg": "#e8eaed",
    "muted": "#a6afb9",
    "line": "#3a414a",
    "soft": "#22272e",
    "live": "#56b4e9",
    "live-soft": "#1d4560",
    "peak": "#f2a03d",
    "held": "#2fc49a",
    "held-soft": "#12503f",
    "info-bg": "#15303f",
    "info-fg": "#a9d9f5",
    "warning-bg": "#3d3010",
    "warning-fg": "#f6d58a",
    "error-bg": "#46210f",
    "error-fg": "#ffc0a6",
    "band-other": "#2d333a",
    "edge-other": "#79828d",
    "band-base": "#929ba6",
    "edge-base": "#d3d9e0",
    "band-unexplained": "#694e0e",
    "edge-unexplained": "#f2a03d",
    "band-live": "#0d5a87",
    "edge-live": "#56b4e9",
    "band-cached": "#b0668f",
    "edge-cached": "#eeb3d3",
    "band-high": "#173348",
    "edge-high": "#3c86b5",
}
_PAGE_VARIABLES = {
    "fg": "--jp-content-font-color1",
    "muted": "--jp-content-font-color2",
}
"""Colours that the page decides where it has an opinion."""


def _variables(palette: dict[str, str]) -> str:
    written = []
    for name, colour in palette.items():
        page = _PAGE_VARIABLES.get(name)
        written.append(f"--gm-{name}:{f'var({page},{colour})' if page else colour};")
    return "".join(written)


def _palettes() -> str:
    light, dark = _variables(LIGHT), _variables(DARK)
    return (
        f".gpumem{{{light}}}"
        f"@media(prefers-color-scheme:dark){{.gpumem{{{dark}}}}}"
        f"{_themed('true', 'light')}{{{light}}}"
        f"{_themed('false', 'dark')}{{{dark}}}"
    )


def _themed(jupyter_light: str, vscode: str) -> str:
    """Selects an answer in a page whose application says which theme it shows."""
    return f'[data-jp-theme-light="{jupyter_light}"] .gpumem,[data-vscode-theme-kind*="{vscode}"] .gpumem'


@functools.cache
def style() -> str:
    """The whole style sheet: the palettes and ``answer.css``. Holds nothing of a user's."""
    layout = importlib.resources.files(__package__).joinpath("answer.css").read_text("utf-8")
    return _palettes() + re.sub(r"\s*([{};])\s*", r"\1", re.sub(r"/\*.*?\*/|\n", " ", layout)).strip()
