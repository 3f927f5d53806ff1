"""Who holds it, on a million Python objects: time, memory beside what was there, longest wait.

A million objects lie in nested lists, dictionaries and instances, a thousand of them arrays of a made-up framework.
Another thread notes when it had its turn, as the kernel's own threads would. Run: ``python -m benchmarks.holders``.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.harness import prepare_device, print_environment
from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.capture.holders import find_holders
from gpumem_magic.capture.roots import Shell, collect_roots
from gpumem_magic.model.frameworks import FrameworkMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.holders import Holders

OBJECTS = 1_000_000
ARRAYS = 1_000
MAX_SECONDS = 1.5
MAX_BYTES = 200 << 20


class Array:
    """Stands for an array in device memory."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address


class Node:
    """An object with a few attributes."""

    def __init__(self, key: int) -> None:
        self.key = str(key)
        self.parts = [key, {"key": key, "self": self}]


class Arrays:
    """A framework of ``Array`` objects."""

    name = "arrays"

    def is_imported(self) -> bool:
        return True

    def may_hold(self, kind: type) -> bool:
        return kind is Array

    def memory(self) -> FrameworkMemory:
        return FrameworkMemory(name=self.name, version="1")

    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        return [
            Holding(index, objects[index].address, 1 << 20, 0)  # type: ignore[attr-defined]
            for index, kind in enumerate(map(type, objects))
            if kind is Array
        ]

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:  # noqa: ARG002
        return []

    def give_back(self) -> str:
        return ""


@dataclasses.dataclass
class Watch:
    """A thread that wants a turn every millisecond, and the most memory that it saw."""

    longest_s: float = 0.0
    peak_bytes: int = 0
    stopping: bool = False

    def run(self) -> None:
        process = psutil.Process()
        last = time.perf_counter()
        while not self.stopping:
            time.sleep(0.001)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last)
            last = now
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)


def plant() -> dict[str, Any]:
    """A namespace with a million objects that the collector tracks."""
    nodes = [Node(key) for key in range(OBJECTS // 3)]
    for index in range(ARRAYS):
        nodes[index * (len(nodes) // ARRAYS)].parts.append(Array((index + 1) << 32))
    return {"nodes": nodes, "same": {"again": nodes[: len(nodes) // 2]}}


def measure(names: dict[str, Any]) -> tuple[Holders, float, Watch, int]:
    """One search with a watch beside it: the answer, seconds, the watch, bytes before."""
    watch = Watch()
    thread = threading.Thread(target=watch.run)
    before = psutil.Process().memory_info().rss
    thread.start()
    time.sleep(0.05)
    watch.longest_s = 0.0
    shell = Shell(shell=object(), user_ns=names, out={})
    begin = time.perf_counter()
    found = find_holders([Arrays()], lambda: collect_roots(shell))
    seconds = time.perf_counter() - begin
    watch.stopping = True
    thread.join()
    return found, seconds, watch, before


def main() -> None:
    print_environment(prepare_device())
    names = plant()
    gc.collect()
    gc.disable()
    print(f"{len(gc.get_objects()):,} objects, {ARRAYS} of them arrays")
    for _ in range(3):
        found, seconds, watch, before = measure(names)
        used = watch.peak_bytes - before
        good = seconds <= MAX_SECONDS and used <= MAX_BYTES and len(found.holders) == ARRAYS
        print(
            f"{seconds:.2f} s, {used / (1 << 20):.0f} MiB above, longest wait for a turn {watch.longest_s * 1e3:.0f} ms"
            f"{'' if good else '  OVER BUDGET'}"
        )


if __name__ == "__main__":
    main()
