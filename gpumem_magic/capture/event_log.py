"""Events of a recording, mapped from its segments when they are asked for."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from gpumem_magic.model.events import EVENT_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_BYTES = 4096


class SegmentedEventLog:
    """Events in the files that made up the recording when the log was taken. Safe on any thread.

    The files are opened here, so that a segment which the recorder gives up later can still be read.
    """

    def __init__(self, segments: list[tuple[str, int, int]], maps: dict[str, np.ndarray] | None = None) -> None:
        """Map every segment.

        Args:
            segments: (path, index of the first event, number of events), oldest first.
            maps: segments that are mapped already, by path. New ones are added, those not in ``segments`` taken out. To
                open files takes a turn of the GIL for each, which a program that computes makes long.
        """
        maps = {} if maps is None else maps
        for gone in maps.keys() - {path for path, _, _ in segments}:
            del maps[gone]
        self.first_index = segments[0][1] if segments else 0
        self._parts: list[np.ndarray] = []
        self._length = 0
        for path, first, count in segments:
            self._length = first + count
            if count == 0:
                continue
            with contextlib.suppress(OSError, ValueError):
                if path not in maps or len(maps[path]) < count:
                    maps[path] = _map(path)
            if len(maps.get(path, ())) >= count:
                self._parts.append(maps[path][:count])
            else:
                # Folded since it was listed, or taken away: what came before it is gone as well.
                self._parts.clear()
                self.first_index = self._length

    def __len__(self) -> int:
        return self._length

    def count_between(self, begin_ns: int, end_ns: int) -> int:
        """How many events ``between`` would return."""
        return sum(end - begin for _, begin, end in self._ranges(begin_ns, end_ns))

    def between(self, begin_ns: int, end_ns: int) -> np.ndarray:
        """A copy of the events with ``begin_ns <= time_ns <= end_ns``. Times never run backwards in a recording."""
        chosen = [np.array(part[begin:end]) for part, begin, end in self._ranges(begin_ns, end_ns)]
        return np.concatenate(chosen) if chosen else np.empty(0, EVENT_DTYPE)

    def _ranges(self, begin_ns: int, end_ns: int) -> Iterator[tuple[np.ndarray, int, int]]:
        for part in self._parts:
            times = part["time_ns"]
            begin = int(np.searchsorted(times, np.uint64(max(begin_ns, 0)), side="left"))
            end = int(np.searchsorted(times, np.uint64(max(end_ns, 0)), side="right"))
            if end > begin:
                yield part, begin, end


def _map(path: str) -> np.ndarray:
    """All that has a place in the file, be it written yet or not."""
    events = (pathlib.Path(path).stat().st_size - HEADER_BYTES) // EVENT_DTYPE.itemsize
    return np.memmap(path, dtype=EVENT_DTYPE, mode="r", offset=HEADER_BYTES, shape=(events,))
