"""Who holds device memory: from Python objects that know it to the names that keep them alive.

``find_holders`` looks at every object that the garbage collector knows, in slices, so that other threads run in between
and a KeyboardInterrupt is served. It never runs the collector, keeps nothing, and its answer is plain data.
"""

from __future__ import annotations

import dataclasses
import gc
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpumem_magic import _core
from gpumem_magic.analysis.retention import MEMORY_DTYPE, classify, memory_at, memory_within
from gpumem_magic.capture.known_memory import known_memory
from gpumem_magic.capture.retention_words import path_words, type_name
from gpumem_magic.capture.roots import SHELL_PREFIX, is_ours
from gpumem_magic.model.holders import Freed, HeldBy, Holder, Holders, Keeper, Name, NameTotal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from gpumem_magic.capture.frameworks.framework import Framework
    from gpumem_magic.capture.known_memory import KnownMemory
    from gpumem_magic.capture.roots import Namespace, Roots

_SLICE = 20_000
"""Objects that are looked at in one go: a few milliseconds."""

_MOST_KEEPERS = 30

_ANCHORED, _NAMESPACE = 1, 2  # NodeFlag of retention.h


Choice = Callable[[str, HeldBy], bool]
"""Whether a name, of a class, is chosen."""


class Progress(NamedTuple):
    """How far the search is."""

    done: int
    total: int


def find_holders(
    frameworks: Sequence[Framework],
    roots: Callable[[], Roots],
    *,
    allocations: np.ndarray | None = None,
    addresses: Collection[int] | np.ndarray | None = None,
    within: np.ndarray | None = None,
    named: int = 50,
    names_each: int = 8,
    freed_if: Sequence[Choice] = (),
    apart_from: Choice | None = None,
    device: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Holders:
    """Who holds the device memory that Python objects know now.

    Args:
        frameworks: who tells which objects keep device memory.
        roots: makes the roots; called once, after the objects were listed.
        allocations: driver memory that is in no framework's pool (MEMORY_DTYPE): raw pointers are searched for it.
        addresses: only memory that contains one of these; all when None. An array, for numbers that are objects would
            be found as pointers that somebody keeps.
        within: only memory of which a byte lies in one of these ranges, which are ordered and do not overlap; all when
            None.
        named: for how many memories, largest first, names are looked for.
        names_each: names of each class shown per memory.
        freed_if: choices of names; ``Holders.freed`` says what each would free if all its names went together.
        apart_from: names that count as gone already when ``Holders.keepers`` tells what each other name frees.
        device: count only memory of this one in ``Holders.freed`` and ``keepers``; all when None.
        progress: told after each slice; what it raises ends the search. Told once more when the search is over,
            however it ended, with ``done`` equal to ``total``.
    """
    was_enabled = gc.isenabled()
    search: _Search | None = None
    try:
        gc.disable()  # our own objects must not make the collector run: it would run finalisers of the user's
        search = _Search(frameworks, allocations)
        search.scan(roots, progress)
        return search.answer(_Question(addresses, within, named, names_each, freed_if, apart_from, device))
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # what is raised must not keep what we looked at
        raise
    finally:
        try:
            objects = 0 if search is None else len(search.objects)
            if search is not None:
                search.close()
        finally:
            search = None  # an interrupt may come at any time: what is raised must not keep it
            if was_enabled:
                gc.enable()
        if progress is not None:
            progress(Progress(objects, objects))


class _Question(NamedTuple):
    """What ``find_holders`` was asked for."""

    addresses: Collection[int] | np.ndarray | None
    within: np.ndarray | None
    named: int
    names_each: int
    freed_if: Sequence[Choice]
    apart_from: Choice | None
    device: int | None


@dataclasses.dataclass(slots=True)
class _Entries:
    """Every name, and the node that it refers to. Labels are made for those that are shown."""

    nodes: np.ndarray
    classes: np.ndarray
    sources: np.ndarray  # index into ``owners``
    owners: list[Any]  # Root or Namespace
    keys: list[Any]  # of a namespace's entry

    def label(self, entry: int) -> str:
        owner = self.owners[self.sources[entry]]
        return str(owner.label(self.keys[entry])) if hasattr(owner, "names") else str(owner.label)


class _Search:
    """One search. Refers to every object there is until it is closed."""

    def __init__(self, frameworks: Sequence[Framework], allocations: np.ndarray | None) -> None:
        self._frameworks = [framework for framework in frameworks if framework.is_imported()]
        self._allocations = np.empty(0, MEMORY_DTYPE) if allocations is None else np.sort(allocations, order="address")
        self.objects: list[Any] = gc.get_objects()
        begins = np.ascontiguousarray(self._allocations["address"])
        self._graph = _core.ObjectGraph(self.objects, begins, begins + self._allocations["bytes"])
        self._listed = len(self.objects)
        self._roots: Roots | None = None

    def close(self) -> None:
        """Let go of every object, a slice at a time."""
        self._roots = None
        del self._graph
        try:
            while self.objects:
                del self.objects[-_SLICE:]
        except KeyboardInterrupt:
            self.objects.clear()  # else what was raised would keep it
            raise

    def scan(self, roots: Callable[[], Roots], progress: Callable[[Progress], None] | None) -> None:
        while self._graph.index(_SLICE):
            pass  # other threads have their turn between slices
        self._roots = roots()
        self._graph.add([root.object for root in self._roots.roots])
        self._graph.add(_dictionaries(self._roots))
        done = 0
        while self._graph.scan(_SLICE):
            done += _SLICE
            if progress is not None:
                progress(Progress(done, len(self.objects)))

    def answer(self, question: _Question) -> Holders:
        assert self._roots is not None
        offsets, targets, counts = self._columns()
        flags = np.zeros(len(counts), np.uint8)
        entries = self._entries(self._roots, flags)
        known = known_memory(self._frameworks, self._allocations, self.objects, self._listed)
        retention = _core.Retention(
            offsets,
            targets,
            counts,
            flags,
            entries.nodes,
            entries.classes,
            np.ascontiguousarray(known.holds["node"]),
            np.ascontiguousarray(known.holds["memory"]),
            np.ascontiguousarray(known.holds["hidden"]),
            np.where(known.is_owned(), known.memory["bytes"], np.uint64(0)),
        )
        return _Telling(self, self._roots, entries, known, retention).answer(question)

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offsets, targets, counts = self._graph.columns()
        return np.frombuffer(offsets, np.int64), np.frombuffer(targets, np.int32), np.frombuffer(counts, np.int64)

    def _find(self, objects: list[Any]) -> np.ndarray:
        return np.frombuffer(self._graph.find(objects), np.int32)

    def _entries(self, roots: Roots, flags: np.ndarray) -> _Entries:
        """Every name that refers to a node, and in ``flags`` what must not be followed."""
        namespaces = self._find([self, *_dictionaries(roots)])  # what only this search refers to, it does not hold
        flags[namespaces[namespaces >= 0]] = _NAMESPACE | _ANCHORED
        owners: list[Any] = [*roots.roots, *(each for each in roots.namespaces if not is_ours(each.prefix))]
        keys: list[Any] = [None] * len(roots.roots)
        values: list[Any] = [root.object for root in roots.roots]
        counts = [1] * len(roots.roots)
        for namespace in owners[len(roots.roots) :]:
            counts.append(_extend(keys, values, namespace))
        nodes = self._find(values)
        anchors = np.array([root.is_anchor for root in roots.roots], bool)
        is_anchor = np.zeros(len(nodes), bool)
        is_anchor[: len(anchors)] = anchors
        flags[nodes[is_anchor & (nodes >= 0)]] |= _ANCHORED
        kept = np.flatnonzero((nodes >= 0) & (is_anchor | (flags[nodes] == 0)))
        sources = np.repeat(np.arange(len(owners)), counts)[kept]
        classes = np.array([owner.held_by for owner in owners], np.uint8)
        return _Entries(nodes[kept], classes[sources], sources, owners, [keys[index] for index in kept.tolist()])


class _Telling:
    """Puts what the native core found into words."""

    def __init__(self, search: _Search, roots: Roots, entries: _Entries, known: KnownMemory, retention: Any) -> None:
        self._objects = search.objects
        self._cell_labels = roots.cell_labels
        self._entries = entries
        self._known = known
        self._retention = retention
        self._exclusive = np.frombuffer(retention.exclusive_bytes(), np.uint64)
        self._sizes = known.memory["bytes"]
        self._labels: list[str] | None = None
        self._paths: dict[int, str] = {}  # of each name that was told, to the largest memory that it leads to

    def answer(self, question: _Question) -> Holders:
        if question.device is not None:
            mine = self._known.memory["device"] == question.device
            self._sizes = np.where(mine, self._sizes, np.uint64(0))
        reaching = np.frombuffer(self._retention.reaching_classes(), np.uint32).tolist()
        fates = np.frombuffer(self._retention.fates(), np.uint8).tolist()
        order = np.argsort(-self._known.memory["bytes"].astype(np.int64), kind="stable")
        if question.addresses is not None:
            order = order[np.isin(order, memory_at(self._known.memory, question.addresses))]
        if question.within is not None:
            order = order[np.isin(order, memory_within(self._known.memory, question.within))]
        holders = []
        for place, memory in enumerate(order.tolist()):
            held_by = self._held_by(memory, reaching[memory], fates[memory])
            holders.append(self._holder(memory, held_by, question.names_each if place < question.named else 0))
        return Holders(
            holders=tuple(holders),
            totals=self._totals(),
            bytes=int(self._known.memory["bytes"].sum()),
            freed=tuple(self._freed(self._chosen(choice)) for choice in question.freed_if),
            keepers=tuple(self._keepers(question.apart_from)) if question.apart_from else (),
            objects=len(self._objects),
        )

    def _held_by(self, memory: int, reaching: int, fate: int) -> HeldBy:
        held_by = classify(reaching, fate)
        # A block that a framework handed out and that no object of its own knows is in the hands of native code.
        is_block = bool(self._known.frameworks(memory))
        return HeldBy.OPAQUE if held_by is HeldBy.LOST and is_block else held_by

    def _holder(self, memory: int, held_by: HeldBy, names_each: int) -> Holder:
        row = self._known.memory[memory]
        paths: list[tuple[int, list[int]]] = []
        total = 0
        if names_each:
            paths, total = self._retention.paths(memory, names_each)
        names = sorted((self._name(memory, *path) for path in paths), key=lambda each: each[:3])
        nodes = paths[0][1] if paths else self._known.holders(memory)[:1]
        return Holder(
            address=int(row["address"]),
            bytes=int(row["bytes"]),
            device=int(row["device"]),
            frameworks=self._known.frameworks(memory),
            type_name=type_name(type(self._objects[nodes[-1]])) if nodes else "",
            held_by=held_by,
            names=tuple(name for *_, name in names),
            name_count=total,
            path="" if paths or not names_each else self._unreached_words(memory),
        )

    def _name(self, memory: int, entry: int, nodes: list[int]) -> tuple[int, bool, int, Name]:
        """A name, and what it is ordered by: what a person typed comes before what the shell keeps on its own."""
        label = self._entries.label(entry)
        held_by = HeldBy(int(self._entries.classes[entry]))
        exclusive = int(self._exclusive[entry])
        path = self._words(label, memory, nodes)
        self._paths.setdefault(entry, path)
        is_the_shell_s = label.startswith(SHELL_PREFIX)
        return (
            held_by,
            is_the_shell_s,
            len(nodes),
            Name(name=label, path=path, held_by=held_by, exclusive_bytes=exclusive),
        )

    def _words(self, label: str, memory: int, nodes: list[int]) -> str:
        words = path_words(label, [self._objects[node] for node in nodes], self._cell_labels)
        hidden = self._known.hidden_label(memory, nodes[-1])
        return f"{words} → {hidden}" if hidden else words

    def _unreached_words(self, memory: int) -> str:
        nodes = self._retention.unreached_path(memory)
        if not nodes:
            return ""
        return self._words(f"<{type_name(type(self._objects[nodes[0]]))}>", memory, nodes)

    def _chosen(self, choice: Choice) -> list[int]:
        classes = [HeldBy(each) for each in self._entries.classes.tolist()]
        if self._labels is None:
            self._labels = [self._entries.label(entry) for entry in range(len(classes))]
        return [entry for entry, held_by in enumerate(classes) if choice(self._labels[entry], held_by)]

    def _freed(self, entries: list[int]) -> Freed:
        memories = self._retention.freed(entries)
        sizes = self._sizes[memories]
        owned = self._known.is_owned()[memories]
        return Freed(bytes=int(sizes[owned].sum()), lost_bytes=int(sizes[~owned].sum()), names=len(entries))

    def _keepers(self, apart_from: Choice) -> Iterator[Keeper]:
        gone = self._chosen(apart_from)
        before = self._freed(gone).bytes
        alike: dict[tuple[int, ...], list[int]] = {}  # names by the memories that they lead to
        for entry in self._paths:
            alike.setdefault(tuple(self._retention.held([entry])), []).append(entry)
        sizes = {memories: int(self._sizes[list(memories)].sum()) for memories in alike}
        largest = sorted((each for each in alike if sizes[each]), key=lambda each: -sizes[each])
        for memories in largest[:_MOST_KEEPERS]:
            entries = sorted(alike[memories], key=self._rank)
            yield Keeper(
                names=tuple(map(self._entries.label, entries)),
                path=self._paths[entries[0]],
                held_by=HeldBy(int(self._entries.classes[entries[0]])),
                pieces=len(memories),
                held_bytes=sizes[memories],
                freed_bytes=self._freed([*gone, *entries]).bytes - (0 if set(entries) <= set(gone) else before),
            )

    def _rank(self, entry: int) -> tuple[int, bool, bool]:
        """What a person typed comes before what the shell keeps on its own."""
        label = self._entries.label(entry)
        return int(self._entries.classes[entry]), label.startswith(SHELL_PREFIX), label.startswith("_")

    def _totals(self) -> tuple[NameTotal, ...]:
        totals = [
            NameTotal(
                name=self._entries.label(entry),
                held_by=HeldBy(int(self._entries.classes[entry])),
                exclusive_bytes=int(self._exclusive[entry]),
            )
            for entry in np.flatnonzero(self._exclusive).tolist()
        ]
        return tuple(sorted(totals, key=lambda total: (-total.exclusive_bytes, total.name)))


def _dictionaries(roots: Roots) -> list[Any]:
    """What refers to the values of namespaces, and is a step on no path."""
    owners = [namespace.owner for namespace in roots.namespaces if namespace.owner is not None]
    return [namespace.names for namespace in roots.namespaces] + owners


def _extend(keys: list[Any], values: list[Any], namespace: Namespace) -> int:
    """Add a namespace's entries; returns how many."""
    before = len(keys)
    items = list(dict.items(namespace.names))  # at once: other threads add and delete names
    if namespace.leave_out:
        items = [item for item in items if not (type(item[0]) is str and item[0] in namespace.leave_out)]
    keys.extend(key for key, _ in items)
    values.extend(value for _, value in items)
    return len(keys) - before
