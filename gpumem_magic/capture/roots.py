"""Names that a person knows and that keep objects alive: the roots of every path to device memory.

Nothing here runs code of the user's: modules, frames and exceptions are read through the descriptors of their own
built-in types. What is returned refers to the user's objects, so it is to be dropped as soon as it was used.
"""

from __future__ import annotations

import contextvars
import dataclasses
import pathlib
import sys
import types
from typing import TYPE_CHECKING, Any

from gpumem_magic import _core
from gpumem_magic.analysis.frames import frame_place, is_shell
from gpumem_magic.model.holders import HeldBy
from gpumem_magic.model.stacks import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PACKAGE = __name__.partition(".")[0]
_OURS = str(pathlib.Path(__file__).parents[1]) + "/"
SHELL_PREFIX = "get_ipython()"
"""What the names of things begin with that a shell keeps on its own."""
_LAST = ("last_exc", "last_value", "last_traceback")
_MODULE_DICT: Any = vars(types.ModuleType)["__dict__"]


@dataclasses.dataclass(frozen=True, slots=True)
class Root:
    """One name and what it refers to."""

    label: str
    held_by: HeldBy
    object: object
    is_anchor: bool = False  # references to it from elsewhere are not followed: this is its one name


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """A dictionary each of whose values has a name: ``prefix + key + suffix``."""

    prefix: str
    held_by: HeldBy
    names: dict[Any, Any]
    suffix: str = ""
    leave_out: frozenset[str] = frozenset()
    owner: object = None  # whose attributes these are: from Python 3.13 on it refers to them past its dictionary

    def label(self, key: object) -> str:
        name = key if type(key) is str else repr(key) if type(key) is int else "<key>"
        return f"{self.prefix}{name}{self.suffix}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What an IPython shell keeps, handed in as plain objects by who may import IPython."""

    shell: object
    user_ns: dict[str, Any]
    out: dict[Any, Any]
    last_result: object = None  # shell.last_execution_result
    tracebacks: tuple[
        tuple[str, object], ...
    ] = ()  # (label, traceback or frame) of debuggers; the shell's own is found
    cell_labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # "In [3]" by the file name of its code


@dataclasses.dataclass(frozen=True, slots=True)
class Roots:
    """Where every search begins."""

    roots: tuple[Root, ...]
    namespaces: tuple[Namespace, ...]
    cell_labels: Mapping[str, str]

    def self_check(self) -> None:
        """Assert that no dictionary is two namespaces."""
        known = {id(namespace.names) for namespace in self.namespaces}
        assert len(known) == len(self.namespaces), "a dictionary is two namespaces"


def collect_roots(shell: Shell | None = None) -> Roots:
    """All roots there are now. Refers to the user's objects: to be dropped after use."""
    labels = {} if shell is None else shell.cell_labels
    roots = [*_exception_roots(), *_context_roots()]
    namespaces: dict[int, Namespace] = {}
    if shell is not None:
        roots += _shell_roots(shell)
        for namespace in _shell_namespaces(shell):
            _add(namespaces, namespace)
    for namespace in _module_namespaces():
        _add(namespaces, namespace)
    roots += _frame_roots(labels, namespaces)
    return Roots(tuple(roots), tuple(namespaces.values()), labels)


def _add(namespaces: dict[int, Namespace], namespace: Namespace) -> None:
    namespaces.setdefault(id(namespace.names), namespace)


def _exception_roots() -> Iterator[Root]:
    for name in _LAST:
        value = sys.__dict__.get(name)
        if value is not None:
            yield Root(f"sys.{name}", HeldBy.EXCEPTION, value)


def _context_roots() -> Iterator[Root]:
    """Context variables of this thread. Its context itself is known to native code alone."""
    for variable, value in contextvars.copy_context().items():
        yield Root(f"context variable {variable.name}", HeldBy.LIBRARY, value)


# The parts of a shell that keep values of the user's, beside its namespaces.
_SHELL_PARTS = (
    ("displayhook", HeldBy.NOTEBOOK),
    ("InteractiveTB", HeldBy.EXCEPTION),
    ("SyntaxTB", HeldBy.EXCEPTION),
)
_LAST_RESULT = f"{SHELL_PREFIX}.last_execution_result."
_RESULT_VALUE = "result"


def _shell_roots(shell: Shell) -> Iterator[Root]:
    """What the shell keeps, each with its one name: a way to it through the frames that run the cell is none."""
    yield Root(SHELL_PREFIX, HeldBy.LIBRARY, shell.shell, is_anchor=True)
    parts = _attributes(shell.shell)
    for name, held_by in _SHELL_PARTS:
        if name in parts:
            yield Root(f"{SHELL_PREFIX}.{name}", held_by, parts[name], is_anchor=True)
    yield Root(f"{_LAST_RESULT}{_RESULT_VALUE}", HeldBy.NOTEBOOK, _attributes(shell.last_result).get(_RESULT_VALUE))
    for label, value in shell.tracebacks:
        yield Root(label, HeldBy.EXCEPTION, value)


def _shell_namespaces(shell: Shell) -> Iterator[Namespace]:
    yield Namespace("Out[", HeldBy.NOTEBOOK, shell.out, "]")
    yield Namespace("", HeldBy.NOTEBOOK, shell.user_ns)
    result = _attributes(shell.last_result)
    left_out = frozenset({_RESULT_VALUE})
    yield Namespace(_LAST_RESULT, HeldBy.EXCEPTION, result, leave_out=left_out, owner=shell.last_result)
    hidden = _attributes(shell.shell).get("user_ns_hidden")
    if type(hidden) is dict:  # IPython puts `_`, `__` and `___` there too, and leaves them
        yield Namespace(f"{SHELL_PREFIX}.user_ns_hidden['", HeldBy.NOTEBOOK, hidden, "']")


def _attributes(value: object) -> dict[Any, Any]:
    names: dict[Any, Any] | None = _core.instance_dict(value)
    return {} if names is None else names


def _module_namespaces() -> Iterator[Namespace]:
    """One namespace per module. The script's own variables have the names that its author gave them."""
    for name, module in list(sys.modules.items()):
        if not issubclass(type(module), types.ModuleType):
            continue
        names = _MODULE_DICT.__get__(module)
        if type(names) is not dict:
            continue
        if name == "__main__":
            yield Namespace("", HeldBy.NOTEBOOK, names)
        elif name == "sys":
            yield Namespace("sys.", HeldBy.LIBRARY, names, leave_out=frozenset(_LAST))
        else:
            yield Namespace(f"{name}.", HeldBy.LIBRARY, names)
    yield Namespace("sys.modules['", HeldBy.LIBRARY, sys.modules, "']")


def is_ours(module_prefix: str) -> bool:
    """Whether a namespace's prefix is one of this package's modules."""
    return module_prefix.rstrip(".").partition(".")[0] == _PACKAGE


# Running code


def _frame_roots(labels: Mapping[str, str], namespaces: dict[int, Namespace]) -> Iterator[Root]:
    """What the frames of all threads refer to, but our own frames and the shell's.

    What the frames that run a cell have of its result and its error, the shell keeps by better names.
    """
    for code, line, global_names, names, variables in _core.running_code():
        if code.co_filename.startswith(_OURS) or is_shell(code.co_filename):
            continue
        place = code_label(code, line, labels)
        for name, value in variables:
            yield Root(f"{place}, local {name}", HeldBy.RUNNING, value)
        suffix = f" of {place}"
        if type(global_names) is dict:
            _add(namespaces, Namespace("global ", HeldBy.RUNNING, global_names, suffix))
        if type(names) is dict:
            _add(namespaces, Namespace("local ", HeldBy.RUNNING, names, suffix))


def code_label(code: types.CodeType, line: int, labels: Mapping[str, str]) -> str:
    """``train_step() in In [3]:4``; only the place for code that is in no function."""
    place = frame_place(Frame(filename=code.co_filename, function="", line=line), labels)
    function = code.co_qualname.rpartition("<locals>.")[2]
    return place if function == "<module>" else f"{function}() in {place}"
