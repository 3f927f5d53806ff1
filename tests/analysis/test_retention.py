"""The native core's answers on random graphs, against a slow reference that follows the definitions."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic import _core
from gpumem_magic.analysis.retention import MEMORY_DTYPE, classify, memory_at, merge_ranges
from gpumem_magic.model.holders import HeldBy

ANCHORED, NAMESPACE = 1, 3  # a namespace is anchored too


@dataclasses.dataclass
class Graph:
    nodes: int
    edges: list[tuple[int, int]]  # with repetitions: each is one reference
    flags: list[int]
    outside: list[int]  # references to each node that the graph does not show
    entries: list[tuple[int, int]]  # (node, class)
    holds: list[tuple[int, int, int]]  # (node, memory, hidden)
    bytes: list[int]

    def native(self) -> _core.Retention:
        edges = sorted(self.edges, key=lambda edge: edge[0])
        sources = np.array([source for source, _ in edges], np.int64)
        offsets = np.searchsorted(sources, np.arange(self.nodes + 1)).astype(np.int64)
        targets = np.array([target for _, target in edges], np.int32)
        counts = np.array(self.outside, np.int64) + np.bincount(targets, minlength=self.nodes)
        column = np.array
        return _core.Retention(
            offsets,
            targets,
            counts,
            column(self.flags, np.uint8),
            column([node for node, _ in self.entries], np.int32),
            column([each for _, each in self.entries], np.uint8),
            column([node for node, _, _ in self.holds], np.int32),
            column([memory for _, memory, _ in self.holds], np.int32),
            column([hidden for _, _, hidden in self.holds], np.uint8),
            column(self.bytes, np.uint64),
        )

    # The reference

    def followed(self) -> list[tuple[int, int]]:
        """References that may be on a path."""
        return [
            (source, target)
            for source, target in self.edges
            if self.flags[source] != NAMESPACE and not self.flags[target] & ANCHORED
        ]

    def reachable(self, begin: set[int]) -> set[int]:
        seen = set(begin)
        while True:
            more = {target for source, target in self.followed() if source in seen} - seen
            if not more:
                return seen
            seen |= more

    def reached_memory(self, entries: list[int], *, hidden: bool = True) -> set[int]:
        """Memories that these entries keep."""
        nodes = self.reachable({self.entries[entry][0] for entry in entries})
        return {memory for node, memory, unseen in self.holds if node in nodes and (hidden or not unseen)}

    def opaque_memory(self) -> set[int]:
        """Memories that something keeps which is no object: through objects that no name reaches."""
        named = self.reachable({node for node, _ in self.entries})
        nodes = self.reachable({each for each in range(self.nodes) if self.outside[each] and each not in named})
        return {memory for node, memory, _ in self.holds if node in nodes}

    def freed(self, entries: set[int]) -> list[int]:
        """Memories that go when these entries go."""
        every = set(range(len(self.entries)))
        kept = self.reached_memory(sorted(every - entries)) | self.opaque_memory()
        return sorted(self.reached_memory(sorted(every)) - kept)

    def distance(self, entry: int, memory: int) -> int | None:
        """Nodes on the shortest path."""
        layer, seen = {self.entries[entry][0]}, set()
        for length in range(1, self.nodes + 1):
            if any(node in layer and each == memory for node, each, _ in self.holds):
                return length
            seen |= layer
            layer = {target for source, target in self.followed() if source in layer} - seen
        return None


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    nodes = draw(st.integers(1, 12))
    node = st.integers(0, nodes - 1)
    memories = draw(st.integers(1, 4))
    flags = [0] + [draw(st.sampled_from((0, 0, 0, 0, ANCHORED, NAMESPACE))) for _ in range(1, nodes)]
    usable = [each for each in range(nodes) if flags[each] != NAMESPACE]
    entry = st.tuples(st.sampled_from(usable), st.integers(0, 3))
    hold = st.tuples(st.sampled_from(usable), st.integers(0, memories - 1), st.integers(0, 1))
    return Graph(
        nodes,
        draw(st.lists(st.tuples(node, node), max_size=30)),
        flags,
        draw(st.lists(st.integers(0, 3).map(lambda n: max(n - 2, 0)), min_size=nodes, max_size=nodes)),
        draw(st.lists(entry, max_size=5)),
        draw(st.lists(hold, max_size=6)),
        draw(st.lists(st.integers(1, 1000), min_size=memories, max_size=memories)),
    )


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_classes_that_reach_memory(graph: Graph) -> None:
    expected = np.zeros(len(graph.bytes), np.uint32)
    for entry, (_, held_by) in enumerate(graph.entries):
        nodes = graph.reachable({graph.entries[entry][0]})
        for node, memory, hidden in graph.holds:
            if node in nodes:
                expected[memory] |= np.uint32(1 << (held_by + 16 * hidden))
    assert np.frombuffer(graph.native().reaching_classes(), np.uint32).tolist() == expected.tolist()


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_what_each_name_alone_would_free(graph: Graph) -> None:
    expected = [sum(graph.bytes[memory] for memory in graph.freed({entry})) for entry in range(len(graph.entries))]
    assert np.frombuffer(graph.native().exclusive_bytes(), np.uint64).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(graphs(), st.sets(st.integers(0, 4)))
def test_what_names_free_together(graph: Graph, together: set[int]) -> None:
    chosen = together & set(range(len(graph.entries)))
    assert graph.native().freed(sorted(chosen)) == graph.freed(chosen)
    assert graph.native().held(sorted(chosen)) == sorted(graph.reached_memory(sorted(chosen)))


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_shortest_paths_from_every_name(graph: Graph) -> None:
    retention = graph.native()
    followed = set(graph.followed())
    for memory in range(len(graph.bytes)):
        found, total = retention.paths(memory, 100)
        lengths = {entry: graph.distance(entry, memory) for entry in range(len(graph.entries))}
        assert {entry: len(nodes) for entry, nodes in found} == {e: n for e, n in lengths.items() if n is not None}
        assert total == len(found)
        for entry, nodes in found:
            assert nodes[0] == graph.entries[entry][0]
            assert all(step in followed for step in itertools.pairwise(nodes))
            assert any(node == nodes[-1] and each == memory for node, each, _ in graph.holds)


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_the_fate_of_what_no_name_reaches(graph: Graph) -> None:
    reached = graph.reached_memory(list(range(len(graph.entries))))
    fates = np.frombuffer(graph.native().fates(), np.uint8).tolist()
    for memory, fate in enumerate(fates):
        holders = {node for node, each, _ in graph.holds if each == memory}
        opaque = graph.reachable({node for node in range(graph.nodes) if graph.outside[node]} - namespaces(graph))
        if memory in reached:
            assert fate == 0
        elif not holders:
            assert fate == 3
        else:
            assert fate == (2 if holders & opaque else 1)


def namespaces(graph: Graph) -> set[int]:
    return {node for node in range(graph.nodes) if graph.flags[node] == NAMESPACE}


def test_a_chain_of_a_million_is_no_deeper_than_a_short_one() -> None:
    count = 1_000_000
    offsets = np.minimum(np.arange(count + 1), count - 1).astype(np.int64)
    targets = np.arange(1, count, dtype=np.int32)
    retention = _core.Retention(
        offsets,
        targets,
        np.ones(count, np.int64),
        np.zeros(count, np.uint8),
        np.zeros(1, np.int32),
        np.zeros(1, np.uint8),
        np.array([count - 1], np.int32),
        np.zeros(1, np.int32),
        np.zeros(1, np.uint8),
        np.array([7], np.uint64),
    )
    ((_, nodes),), total = retention.paths(0, 1)
    assert (len(nodes), total) == (count, 1)
    assert np.frombuffer(retention.exclusive_bytes(), np.uint64).tolist() == [7]


def test_columns_that_do_not_fit_are_refused() -> None:
    graph = Graph(2, [(0, 1)], [0, 0], [0, 0], [(5, 0)], [(1, 0, 0)], [1])
    with pytest.raises(ValueError, match="do not fit together"):
        graph.native()
    graph.entries = [(0, 16)]
    with pytest.raises(ValueError, match="a class is below 16"):
        graph.native()


# Pure steps


def ranges(*rows: tuple[int, int]) -> np.ndarray:
    return np.array([(address, size, 0) for address, size in rows], MEMORY_DTYPE)


def test_views_of_one_buffer_are_one_memory() -> None:
    memory, index = merge_ranges(ranges((100, 50), (1000, 8), (120, 10), (140, 20), (160, 4), (1000, 0)))
    assert memory[["address", "bytes"]].tolist() == [(100, 60), (160, 4), (1000, 8)]
    assert index.tolist() == [0, 2, 0, 0, 1, 2]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=12))
def test_merged_ranges_cover_the_same_bytes(rows: list[tuple[int, int]]) -> None:
    memory, index = merge_ranges(ranges(*rows))
    covered = {byte for address, size in rows for byte in range(address, address + max(size, 1))}
    spans = [range(int(each["address"]), int(each["address"] + each["bytes"])) for each in memory]
    assert sorted(byte for span in spans for byte in span) == sorted(covered)
    assert all(address in spans[place] for (address, _), place in zip(rows, index.tolist(), strict=True))


def test_memory_is_found_by_any_address_in_it() -> None:
    memory = ranges((100, 50), (200, 10))
    assert memory_at(memory, [149, 205]).tolist() == [0, 1]
    assert memory_at(memory, [99, 150, 210, 0, -5, 1 << 70]).tolist() == []
    assert memory_at(memory[:0], [100]).tolist() == []


@pytest.mark.parametrize(
    ("reaching", "fate", "held_by"),
    [
        (0b1011, 0, HeldBy.NOTEBOOK),
        (0b1010, 0, HeldBy.EXCEPTION),
        (0b1000 | 1 << 16, 0, HeldBy.LIBRARY),
        (1 << 16, 0, HeldBy.AUTOGRAD),
        (0, 1, HeldBy.GARBAGE),
        (0, 2, HeldBy.OPAQUE),
        (0, 3, HeldBy.LOST),
    ],
)
def test_the_first_reason_counts(reaching: int, fate: int, held_by: HeldBy) -> None:
    assert classify(reaching, fate) is held_by
