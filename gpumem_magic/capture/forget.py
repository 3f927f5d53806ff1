"""Letting go of what keeps device memory alive, one kind of thing at a time.

Every target knows the names that go with it, so that a search can predict what that would free, and how to let go of
them. Nothing goes that was not named: what other names keep stays.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any, Protocol

from gpumem_magic.capture import driver
from gpumem_magic.capture.frameworks.imported import imported_frameworks
from gpumem_magic.capture.roots import SHELL_PREFIX
from gpumem_magic.model.holders import HeldBy

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNDERS = ("_", "__", "___")
_LAST = ("last_exc", "last_value", "last_traceback", "last_type")
_SHELL_S_OWN = frozenset({"In", "Out", "_ih", "_oh", "_dh", "_sh", "get_ipython", "exit", "quit", "open"})


class FreedError(RuntimeError):
    """Stands where a shell keeps the last error, after the error itself was let go of."""


class Target(Protocol):
    """Something to let go of. Keeps no object of the user's."""

    name: str

    def keeps(self, label: str, held_by: HeldBy) -> bool:
        """Whether a name, of a class, goes with it."""

    def let_go(self) -> list[str]:
        """Do it. Returns sentences about what was lost with it."""


class Variable:
    """One variable of the notebook, or of the script where there is no shell."""

    def __init__(self, name: str, shell: Any) -> None:
        self.name = name
        self._shell = shell

    def keeps(self, label: str, held_by: HeldBy) -> bool:
        return held_by is HeldBy.NOTEBOOK and label in (self.name, _hidden(self.name))

    def let_go(self) -> list[str]:
        for names in _namespaces(self._shell):
            names.pop(self.name, None)
        return []


class Outputs:
    """Results of cells: ``Out[n]``, ``_n``, and ``_``, ``__``, ``___`` and the last result where they are the same."""

    def __init__(self, name: str, numbers: Sequence[int], shell: Any) -> None:
        self.name = name
        self._numbers = tuple(numbers)
        self._shell = shell
        self._labels = frozenset(self._find_labels())

    def _find_labels(self) -> list[str]:
        out = outputs(self._shell)
        same = {id(out[number]) for number in self._numbers}
        labels = [f"Out[{number}]" for number in self._numbers]
        for number in self._numbers:  # a user may have a variable of their own that is called _7
            if self._shell.user_ns.get(f"_{number}") is out[number]:
                labels.append(f"_{number}")
            if self._shell.user_ns_hidden.get(f"_{number}") is out[number]:
                labels.append(_hidden(f"_{number}"))
        for name in _UNDERS:
            if id(self._shell.user_ns.get(name)) in same:
                labels += [name, _hidden(name)]
            if id(getattr(self._shell.displayhook, name, None)) in same:
                labels.append(f"{SHELL_PREFIX}.displayhook")
        last = getattr(self._shell.last_execution_result, "result", None)
        return [*labels, f"{SHELL_PREFIX}.last_execution_result.result"] if id(last) in same else labels

    def keeps(self, label: str, held_by: HeldBy) -> bool:
        return held_by is HeldBy.NOTEBOOK and label in self._labels

    def let_go(self) -> list[str]:
        out = outputs(self._shell)
        for number in self._numbers:
            value = out.pop(number, None)
            for names in _namespaces(self._shell):
                if names.get(f"_{number}", self) is value:
                    del names[f"_{number}"]
            self._forget(value)
        return []

    def _forget(self, value: object) -> None:
        """Put what a fresh shell has there in the place of a value that has more names."""
        if value is None:
            return
        hook, last = self._shell.displayhook, self._shell.last_execution_result
        for name in _UNDERS:
            for names in _namespaces(self._shell):
                if names.get(name) is value:
                    names[name] = ""
            if getattr(hook, name, None) is value:
                setattr(hook, name, "")
        if last is not None and last.result is value:
            last.result = None


class LastTraceback:
    """The last exception, wherever Python, the shell and its debugger keep it."""

    name = "traceback"

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def keeps(self, label: str, held_by: HeldBy) -> bool:  # noqa: ARG002  (all names of that class)
        return held_by is HeldBy.EXCEPTION

    def let_go(self) -> list[str]:
        found = False
        for name in _LAST:
            found |= sys.__dict__.pop(name, None) is not None
        if self._shell is not None:
            found |= self._forget_in_shell()
        if not found:
            return ["There is no traceback."]
        return ["Its text stays under the cell; %debug and %tb have nothing left to look into."]

    def _forget_in_shell(self) -> bool:
        """Leaves the shell able to report the next exception; returns whether there was one."""
        found = False
        handler, syntax = self._shell.InteractiveTB, self._shell.SyntaxTB
        for owner, name in ((handler, "tb"), (handler, "pdb"), (syntax, "tb"), (syntax, "last_syntax_error")):
            if getattr(owner, name, None) is not None:
                setattr(owner, name, None)  # both make a debugger anew when they need one
                found = True
        last = self._shell.last_execution_result
        for name in ("error_before_exec", "error_in_exec"):
            error = getattr(last, name, None)
            if error is not None and type(error) is not FreedError:
                setattr(last, name, FreedError(f"{type(error).__name__}, freed by %gpumem free traceback"))
                found = True
        return found


class Cycles:
    """Objects that refer to each other and that no name reaches."""

    name = "cycles"

    def keeps(self, label: str, held_by: HeldBy) -> bool:  # noqa: ARG002  (no name leads to them)
        return False

    def let_go(self) -> list[str]:
        gc.collect()
        return []


class Caches:
    """What frameworks, and the driver itself, keep for their next allocations."""

    name = "cache"

    def keeps(self, label: str, held_by: HeldBy) -> bool:  # noqa: ARG002  (no name leads to it)
        return False

    def let_go(self) -> list[str]:
        remarks = [problem for framework in imported_frameworks() if (problem := framework.give_back())]
        problem = driver.trim_pools() if driver.is_driver_loaded() else ""
        return [*remarks, problem] if problem else remarks


def outputs(shell: Any) -> dict[int, Any]:
    """Results of cells by the number of the cell; empty outside of IPython."""
    found = {} if shell is None else shell.user_ns.get("_oh")
    return found if type(found) is dict else {}


def variables(shell: Any) -> dict[str, Any]:
    """The notebook's variables; those of the script outside of IPython."""
    found: dict[str, Any] = vars(sys.modules["__main__"]) if shell is None else shell.user_ns
    return found


def is_the_shell_s_own(name: str) -> bool:
    """Whether a shell cannot do without a variable of its namespace."""
    return name in _SHELL_S_OWN or (name.startswith("__") and name.endswith("__") and len(name) > len("____"))


def _namespaces(shell: Any) -> list[dict[str, Any]]:
    """Where a variable may be. IPython keeps those that it made itself in a second dictionary too."""
    if shell is None:
        return [variables(None)]
    return [shell.user_ns, shell.user_ns_hidden]


def _hidden(name: str) -> str:
    return f"{SHELL_PREFIX}.user_ns_hidden['{name}']"
