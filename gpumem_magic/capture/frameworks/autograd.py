"""What PyTorch's autograd graph keeps alive: its nodes are C++ objects, which the garbage collector does not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.framework import HiddenReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Ranges = Callable[[Any], Iterable[tuple[int, int, int]]]

MOST_NODES = 200_000
MOST_REFERENCES = 200_000
_RAW = "_raw_saved_"


class Kept(NamedTuple):
    """Memory that a node keeps."""

    address: int
    label: str


class Node(NamedTuple):
    """One node of the graph, read once however many tensors lead to it."""

    itself: Any  # kept for the time of the call, so that its id stays its own
    kept: list[Kept]
    following: list[int]  # ids of the nodes that it leads to


def problem(torch: Any) -> str:
    """Why the graph cannot be read, as a sentence; empty when it can."""
    if _tells_saved(torch):
        return ""
    return (
        "This release of PyTorch does not tell which tensors the autograd graph saved without running hooks of the "
        "program: they are shown without a holder."
    )


def is_node(torch: Any, kind: type) -> bool:
    """Whether it is a type of nodes, which a program gets hold of as ``grad_fn`` or as the context of a function."""
    known = vars(torch._C._functions).get(reading.type_name(kind))  # noqa: SLF001
    return kind is known or issubclass(kind, torch.autograd.function.BackwardCFunction)


def references(torch: Any, starts: Iterable[tuple[int, Any]], ranges: Ranges) -> Iterator[HiddenReference]:
    """What graphs keep, each memory once for every tensor or node that leads to it, and the gradients of tensors.

    Past ``MOST_REFERENCES`` only what the first node of a tensor saved is told.
    """
    graph = Graph(torch, ranges)
    told = 0
    for index, each in starts:
        node = each
        if issubclass(type(each), torch.Tensor):
            node = torch.Tensor.__mro__[1].grad_fn.__get__(each)
            gradient = _gradient(torch, each)
            yield from (HiddenReference(index, found[0], "grad") for found in _of(ranges, gradient))
        if node is not None:
            kept = graph.kept_by(node) if told < MOST_REFERENCES else graph.kept_at(node)
            told += len(kept)
            yield from (HiddenReference(index, *found) for found in kept)


def _gradient(torch: Any, tensor: Any) -> Any:
    """Of a tensor that may have one: PyTorch warns when it is asked of any other."""
    base = torch.Tensor.__mro__[1]
    may_have = base.is_leaf.__get__(tensor) or base.retains_grad.__get__(tensor)
    return base.grad.__get__(tensor) if may_have else None


class Graph:
    """The autograd graph as far as it was walked. Lives for one call, and keeps the graph alive for as long.

    A saved tensor that no program has looked at gets a Python object by being looked at here. PyTorch drops that object
    together with the tensor; nothing refers to it meanwhile.
    """

    def __init__(self, torch: Any, ranges: Ranges) -> None:
        self._torch = torch
        self._ranges = ranges
        self._nodes: dict[int, Node] = {}
        self._fields: dict[int, list[tuple[str, Any]]] = {}
        self._tells_saved = _tells_saved(torch)

    def kept_by(self, start: Any) -> list[Kept]:
        """What the node and all nodes behind it keep, each address with the label that was met first."""
        self._walk(start)
        kept: dict[int, Kept] = {}
        seen = {id(start)}
        waiting = [id(start)]
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:  # beyond MOST_NODES
                continue
            for each in node.kept:
                kept.setdefault(each.address, each)
            fresh = [key for key in node.following if key not in seen]
            seen.update(fresh)
            waiting += fresh
        return list(kept.values())

    def kept_at(self, start: Any) -> list[Kept]:
        """What this one node keeps."""
        known = self._nodes.get(id(start))
        return known.kept if known is not None else self._kept(start)

    def _walk(self, start: Any) -> None:
        """Read all nodes behind ``start`` that were not read yet."""
        waiting = [start]
        while waiting and len(self._nodes) < MOST_NODES:
            node = waiting.pop()
            if id(node) in self._nodes:
                continue
            following = self._following(node)
            self._nodes[id(node)] = Node(node, self._kept(node), [id(each) for each in following])
            waiting += (each for each in following if id(each) not in self._nodes)

    def _following(self, node: Any) -> list[Any]:
        found = reading.descriptor(type(node), "next_functions")
        return [each for each, _ in found.__get__(node) if each is not None] if found is not None else []

    def _kept(self, node: Any) -> list[Kept]:
        title = f"grad_fn {reading.type_name(type(node))}"
        return [
            Kept(address, f"{title}: {label}")
            for label, value in self._saved(node)
            for address, _, _ in _of(self._ranges, value)
        ]

    def _saved(self, node: Any) -> Iterator[tuple[str, Any]]:
        """(label, tensor) of what a node holds."""
        for name, field in self._fields_of(type(node)):
            try:
                value = field.__get__(node)
            except RuntimeError:  # freed by a backward pass
                continue
            if name == "variable":
                yield name, value
            elif self._tells_saved:
                yield from _unpacked(f"saved {name}", value)
        yield from _attributes(self._torch, node)

    def _fields_of(self, kind: type) -> list[tuple[str, Any]]:
        """(name, descriptor) of where nodes of this type keep tensors."""
        known = self._fields.get(id(kind))
        if known is None:
            found = {
                name: field for base in reversed(reading.mro(kind)) for name, field in reading.namespace(base).items()
            }
            known = [(name.removeprefix(_RAW), field) for name, field in found.items() if name.startswith(_RAW)]
            known += [(name, found[name]) for name in ("variable",) if name in found]
            self._fields[id(kind)] = known
        return known


def _tells_saved(torch: Any) -> bool:
    """Whether a saved tensor can be looked at as it is stored, without a hook that unpacks it."""
    return hasattr(torch._C._autograd.SavedTensor, "data")  # noqa: SLF001


def _unpacked(label: str, saved: Any) -> Iterator[tuple[str, Any]]:
    """(label, object) of a saved tensor or several, as they are stored: what hooks packed may be anything."""
    several = saved if type(saved) is tuple else (saved,)
    for number, each in enumerate(several):
        title = f"{label}[{number}]" if type(saved) is tuple else label
        data: Any = each.data if each is not None else None
        several_parts = type(data) in (tuple, list)  # of a subclass, code of the program might run
        yield from ((title, part) for part in (data if several_parts else (data,)))


def _attributes(torch: Any, node: Any) -> Iterator[tuple[str, Any]]:
    """(name, object) of what a function written in Python put on its context."""
    if issubclass(type(node), torch.autograd.function.BackwardCFunction):
        values = object.__getattribute__(node, "__dict__")
        yield from ((name, value) for name, value in values.items() if type(name) is str)


def _of(ranges: Ranges, value: Any) -> Iterable[tuple[int, int, int]]:
    return ranges(value) if value is not None else ()
