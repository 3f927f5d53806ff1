"""What every framework's file needs: choosing objects by type, putting tables in order, telling what went wrong."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from gpumem_magic.model.frameworks import BLOCK_DTYPE, SEGMENT_DTYPE, FrameworkMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gpumem_magic.model.frameworks import BlockState

P = ParamSpec("P")
T = TypeVar("T")

_mro = type.__dict__["__mro__"].__get__  # a metaclass of the user may have a property of this name
_name = type.__dict__["__name__"].__get__
_module = type.__dict__["__module__"].__get__
_namespace = type.__dict__["__dict__"].__get__


class Segment(NamedTuple):
    """One record of ``SEGMENT_DTYPE``."""

    address: int
    bytes: int
    pool: int
    flags: int = 0


class Block(NamedTuple):
    """One record of ``BLOCK_DTYPE``, before the segments are put in order."""

    address: int
    bytes: int
    asked: int
    segment: int
    state: BlockState


def module(name: str) -> Any:
    """An imported module; None also while it is being imported, perhaps by another thread."""
    found = sys.modules.get(name)
    return None if getattr(getattr(found, "__spec__", None), "_initializing", False) else found


def answering(nothing: Callable[[], Any]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A method that answers ``nothing()`` where an older or newer framework throws. ``memory()`` tells the reason."""

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(method)
        def ask(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return method(*args, **kwargs)
            except Exception:  # noqa: BLE001  (whatever it throws)
                found: T = nothing()
                return found

        return ask

    return decorate


def version_of(framework: Any) -> str:
    """What a module says of its version, as plain text."""
    return str(getattr(framework, "__version__", "") or "")


def mro(kind: type) -> tuple[type, ...]:
    """The bases of a type, itself first, without running code of its metaclass."""
    found: tuple[type, ...] = _mro(kind)
    return found


def type_name(kind: type) -> str:
    """The name of a type, without running code of its metaclass."""
    return str(_name(kind))


def module_name(kind: type) -> object:
    """What a type says of the module that it is from, without running code of its metaclass."""
    return _module(kind)


def namespace(kind: type) -> Mapping[str, Any]:
    """What a type itself defines, without running code of its metaclass."""
    found: Mapping[str, Any] = _namespace(kind)
    return found


def descriptor(kind: type, name: str) -> Any:
    """What a type or its bases define under a name, as it stands there; None when they do not."""
    return next((namespace(base)[name] for base in mro(kind) if name in namespace(base)), None)


def of_types(objects: Sequence[object], wanted: Callable[[type], bool]) -> Iterator[tuple[int, Any]]:
    """(index, object) of those whose type is wanted, asking once per type.

    Types are told apart by ``id``, because a metaclass may define ``__hash__``. They live as long as their objects.
    """
    known: dict[int, bool] = {}
    for index, each in enumerate(objects):
        kind = type(each)
        answer = known.get(id(kind))
        if answer is None:
            answer = known[id(kind)] = wanted(kind)
        if answer:
            yield index, each


def in_order(segments: list[Segment], blocks: list[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Both as tables ordered by address, the blocks' ``segment`` following the segments to their new places."""
    rows = np.array(segments, SEGMENT_DTYPE) if segments else np.empty(0, SEGMENT_DTYPE)
    pieces = np.array(blocks, BLOCK_DTYPE) if blocks else np.empty(0, BLOCK_DTYPE)
    order = np.argsort(rows["address"], kind="stable")
    places = np.empty(len(order), "<u4")
    places[order] = np.arange(len(order))
    pieces["segment"] = places[pieces["segment"]]
    return rows[order], pieces[np.argsort(pieces["address"], kind="stable")]


def problem_of(name: str, call: Callable[[], object]) -> str:
    """What went wrong in a call to a framework, as a sentence; "" when nothing did."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  (an older or newer framework may throw anything)
        return f"{name} could not give back what it caches ({type_name(type(error))}: {error})."
    return ""


def told(name: str, version: str, read: Callable[[], FrameworkMemory]) -> FrameworkMemory:
    """What ``read`` returns, or the reason why there is nothing, as ``problem``."""
    try:
        memory = read()
        memory.self_check()
    except Exception as error:  # noqa: BLE001  (an older or newer framework may throw anything)
        problem = f"The memory of {name} {version} could not be read ({type_name(type(error))}: {error})."
        return FrameworkMemory(name=name, version=version, problem=problem)
    return memory
