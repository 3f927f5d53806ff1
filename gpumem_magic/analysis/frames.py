"""Which frames of a stack a reader wants to see, and how to name the one that matters."""

from __future__ import annotations

import functools
import pathlib
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpumem_magic.model.snapshot import Cell, Snapshot
    from gpumem_magic.model.stacks import Frame

NO_FRAME = "(no Python frame)"
OUTSIDE = "(outside user code)"

_OURS = str(pathlib.PurePath(__file__).parents[1]).replace("\\", "/") + "/"
_INSTALLED = re.compile(r"/(?:site|dist)-packages/(.+)$")
_STANDARD_LIBRARY = re.compile(r"/lib(?:64)?/python3\.\d+t?/(?!(?:site|dist)-packages/)(.+)$")
_MACHINERY_PACKAGES = frozenset(
    {"gpumem_magic", "IPython", "ipykernel", "ipykernel_launcher.py", "traitlets", "tornado", "zmq"},
)
_MACHINERY_MODULES = re.compile(r"(?:runpy|threading|importlib/.*|asyncio/.*|concurrent/futures/.*)(?:\.py)?$")
_FROZEN_MACHINERY = re.compile(r"<frozen (?:runpy|importlib\.[\w.]+|zipimport)>")
_NOTEBOOK = re.compile(r"(?:^|/)ipykernel_\d+/\d+\.py$|(?:^<|/)ipython-input-(\d+)-[0-9a-f]+(?:>|\.py)$")


def shown_frames(frames: Sequence[Frame], depth: int | None = None) -> tuple[Frame, ...]:
    """``frames`` (innermost first) without our own, IPython's and the interpreter's start-up frames.

    Args:
        frames: a stack, innermost frame first.
        depth: keep at most this many innermost frames; all when None.
    """
    shown = tuple(frame for frame in frames if not is_machinery(frame.filename))
    return shown if depth is None else shown[:depth]


@functools.lru_cache(maxsize=16384)
def is_machinery(filename: str) -> bool:
    """Whether a file belongs to what runs the user's code: this package, IPython, runpy, importlib, asyncio."""
    path = filename.replace("\\", "/")
    if path.startswith(_OURS) or _FROZEN_MACHINERY.match(path):
        return True
    if installed := _INSTALLED.search(path):
        return installed[1].split("/")[0] in _MACHINERY_PACKAGES
    standard = _STANDARD_LIBRARY.search(path)
    return standard is not None and _MACHINERY_MODULES.match(standard[1]) is not None


@functools.lru_cache(maxsize=16384)
def is_shell(filename: str) -> bool:
    """Whether a file belongs to IPython or its kernel."""
    installed = _INSTALLED.search(filename.replace("\\", "/"))
    return installed is not None and installed[1].split("/")[0] in ("IPython", "ipykernel")


@functools.lru_cache(maxsize=16384)
def is_user(filename: str) -> bool:
    """Whether a file is the user's own: neither installed, nor of the standard library, nor machinery."""
    path = filename.replace("\\", "/")
    if path.startswith("<frozen ") or is_machinery(filename):
        return False
    return not _INSTALLED.search(path) and not _STANDARD_LIBRARY.search(path)


def distinct_names(names: Sequence[str], stacks: Sequence[Sequence[str]]) -> list[str]:
    """``names`` with callers added where they would otherwise read alike: ``make ← train.py:40 train``.

    Args:
        names: of rows; equal ones are told apart.
        stacks: per row the labels of its frames, innermost first.

    Of a group that reads alike each row gets its label at the innermost depth at which they are not all the same, and
    what still reads alike then gets more. Rows whose stacks are the same keep the same name.
    """
    told = list(names)
    groups = _alike(told, range(len(told)))
    while groups:
        rows = groups.pop()
        callers = _differing_callers([stacks[row] for row in rows])
        if not any(callers):
            continue
        for row, caller in zip(rows, callers, strict=True):
            told[row] = f"{told[row]} ← {caller}" if caller else told[row]
        groups += _alike(told, rows)
    return told


def _alike(names: Sequence[str], rows: Iterable[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(names[row], []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _differing_callers(stacks: Sequence[Sequence[str]]) -> list[str]:
    """Per stack its label at the innermost depth at which they are not all the same."""
    for depth in range(max(map(len, stacks))):
        labels = [stack[depth] if depth < len(stack) else "" for stack in stacks]
        if len(set(labels)) > 1:
            return labels
    return [""] * len(stacks)


def short_path(filename: str) -> str:
    """A file's path; of one that is installed, from its package on, as where that lies is nobody's business."""
    path = filename.replace("\\", "/")
    module = _INSTALLED.search(path) or _STANDARD_LIBRARY.search(path)
    return module[1] if module else filename


def is_notebook(filename: str) -> bool:
    """Whether a file name is one that IPython gives to the source of a cell."""
    return _NOTEBOOK.search(filename.replace("\\", "/")) is not None


def where(frames: Sequence[Frame], labels: Mapping[str, str]) -> str:
    """One short line for a stack: the innermost line of the user's, and the library call below it.

    ``In [7]:3``, ``train.py:12 forward``, ``In [7]:3 via torch.nn.functional.linear``.

    Args:
        frames: shown frames, innermost first.
        labels: cell labels by file name, see ``notebook_labels``.
    """
    if not frames:
        return NO_FRAME
    user = next((frame for frame in frames if is_user(frame.filename)), None)
    innermost = frames[0]
    if user is None:
        return dotted_name(innermost)
    place = frame_place(user, labels)
    return place if innermost is user else f"{place} via {dotted_name(innermost)}"


def frame_place(frame: Frame, labels: Mapping[str, str]) -> str:
    """``In [7]:3 train_step`` for a cell's frame, ``train.py:12 Net.forward`` for a file's."""
    name = labels.get(frame.filename) or _file_label(frame.filename)
    line = f":{frame.line}" if frame.line else ""
    function = _function(frame)
    return f"{name}{line} {function}".rstrip()


def dotted_name(frame: Frame) -> str:
    """``torch.nn.functional.linear`` for a library's frame, ``file.py:12 name`` when it is in no package."""
    path = frame.filename.replace("\\", "/")
    module = _INSTALLED.search(path) or _STANDARD_LIBRARY.search(path)
    if module is None:
        return frame_place(frame, {})
    parts = module[1].removesuffix(".py").removesuffix("/__init__").split("/")
    function = _function(frame)
    return ".".join([*parts, function] if function else parts)


def _function(frame: Frame) -> str:
    """The qualified name without enclosing functions; "" for the top level of a file."""
    name = frame.function.rpartition("<locals>.")[2]
    return "" if name == "<module>" else name


def _file_label(filename: str) -> str:
    path = filename.replace("\\", "/")
    notebook = _NOTEBOOK.search(path)
    if notebook is None:
        return path.rsplit("/", 1)[-1] or "?"
    # IPython up to 8 counts in the name; larger numbers are Colab's, which are hashes.
    return f"In [{notebook[1]}]" if notebook[1] and len(notebook[1]) < 6 else "cell"  # noqa: PLR2004


def notebook_labels(snapshot: Snapshot, *, until: Cell | None = None) -> dict[str, str]:
    """Labels of cell runs by the file name that IPython gave to their source.

    A cell says so itself when its recording has ``source_file``. Otherwise the stacks tell: the outermost
    frame of a cell's own code is its file's ``<module>``. The same source run twice has the same name;
    the latest run up to ``until`` (all runs when None) gives the label.
    """
    cells = {cell.id: cell for cell in snapshot.cells}
    found: dict[str, Cell] = {}
    for filename, cell in [*_declared(cells), *_observed(snapshot, cells)]:
        present = found.get(filename)
        if until is not None and cell.begin_ns > until.begin_ns:
            continue
        if present is None or cell.begin_ns > present.begin_ns:
            found[filename] = cell
    return {filename: cell.label for filename, cell in found.items()}


def _declared(cells: Mapping[int, Cell]) -> list[tuple[str, Cell]]:
    return [(cell.source_file, cell) for cell in cells.values() if cell.source_file]


def _observed(snapshot: Snapshot, cells: Mapping[int, Cell]) -> list[tuple[str, Cell]]:
    found = []
    for stack, cell_id in np.unique(snapshot.sites[["stack", "cell"]]).tolist():
        shown = shown_frames(snapshot.stacks.frames(stack))
        run = _notebook_run(cells, cell_id)
        if shown and run and shown[-1].function == "<module>" and is_notebook(shown[-1].filename):
            found.append((shown[-1].filename, run))
    return found


def _notebook_run(cells: Mapping[int, Cell], cell_id: int) -> Cell | None:
    """The run of a notebook cell that span ``cell_id`` is, or is nested in."""
    cell = cells.get(cell_id)
    while cell is not None and cell.execution_count is None:
        cell = cells.get(cell.parent)
    return cell
