"""Imports go downwards only, siblings on one floor do not import each other, and importing costs nothing."""

from __future__ import annotations

import ast
import json
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = pathlib.Path(__file__).parents[2] / "gpumem_magic"

# The house of DESIGN, from the ground up. A room may import from the floors below its own.
FLOORS = (
    ("model", "_core", "simulator"),
    ("analysis",),
    ("capture", "views", "export"),
    ("session",),
    ("verbs",),
    ("api",),
    ("magics", "cli"),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# These two rooms are kept free of I/O and of the tracker, so they see less than lies below them.
ONLY = {"model": set(), "analysis": {"model"}, "simulator": set(), "views": {"analysis", "model"}}
# Seen from everywhere, because it imports nothing: the package itself, for `__version__`.
PUBLIC = "__init__"


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(source: str, path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from our package, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "gpumem_magic":
                    yield node.lineno, parts[1] if parts[1:] else PUBLIC
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:
                base = ("gpumem_magic", *path.relative_to(PACKAGE).parts)[: -node.level]
                parts = [*base, *(part for part in parts if part)]
            if parts == ["gpumem_magic"]:
                names = (alias.name for alias in node.names)
                yield from ((node.lineno, name if name in FLOOR_OF else PUBLIC) for name in names)
            elif parts[0] == "gpumem_magic":
                yield node.lineno, parts[1]


def complaints(source: str, path: pathlib.Path) -> list[str]:
    """Imports that the house forbids, as ``file:line``."""
    here = room(path)
    found = []
    for line, there in imported_rooms(source, path):
        if there in (here, PUBLIC):
            continue
        allowed = FLOOR_OF[there] < FLOOR_OF[here] and there in ONLY.get(here, FLOOR_OF)
        if not allowed:
            found.append(f"{path.relative_to(PACKAGE)}:{line} imports {there}")
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: pathlib.Path) -> None:
    assert room(path) in FLOOR_OF, f"{path} is in no room of the house: give it a floor above"
    assert complaints(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("file", "statement", "forbidden"),
    [
        ("model/units.py", "from gpumem_magic.analysis import frames", True),
        ("model/units.py", "import gpumem_magic.session", True),
        ("analysis/frames.py", "from gpumem_magic.model import units", False),
        ("analysis/frames.py", "from gpumem_magic import _core", True),
        ("views/text.py", "def f():\n    from gpumem_magic.capture import driver", True),
        ("views/text.py", "from ..export import html", True),
        ("views/text.py", "from .theme import LIGHT", False),
        ("capture/driver.py", "from gpumem_magic.model.snapshot import Device", False),
        ("session.py", "from gpumem_magic.capture import driver", False),
        ("session.py", "from gpumem_magic import api", True),
        ("magics/magic.py", "from gpumem_magic.cli import main", True),
        ("cli/run.py", "from gpumem_magic import __version__", False),
    ],
)
def test_the_rule_itself(file: str, statement: str, forbidden: bool) -> None:
    assert bool(complaints(statement, PACKAGE / file)) is forbidden


def modules_after(statement: str) -> set[str]:
    """Names in ``sys.modules`` of a fresh interpreter after ``statement``."""
    code = f"import json, sys; old = set(sys.modules); {statement}; print(json.dumps([*set(sys.modules) - old]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_importing_the_package_costs_nothing() -> None:
    tops = {name.partition(".")[0] for name in modules_after("import gpumem_magic")}
    assert not tops & {
        "IPython",
        "bokeh",
        "cuda",
        "ctypes",
        "ipywidgets",
        "numpy",
        "pandas",
        "psutil",
        "pynvml",
        "torch",
    }
    assert "gpumem_magic._core" not in modules_after("import gpumem_magic")


def test_the_tracker_needs_neither_bokeh_nor_a_notebook() -> None:
    tops = {name.partition(".")[0] for name in modules_after("import gpumem_magic.api")}
    assert not tops & {"IPython", "bokeh", "cuda", "ipywidgets", "pandas", "torch"}


def test_the_command_line_starts_without_the_tracker() -> None:
    names = modules_after("import gpumem_magic.cli.doctor")
    assert not {"numpy", "gpumem_magic._core", "gpumem_magic.api"} & names
