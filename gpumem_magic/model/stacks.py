"""Python stacks: interned nodes, code objects, and lines decoded when they are read."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What is kept of a code object: names, first line and CPython's location table (PEP 657)."""

    filename: str
    function: str
    first_line: int
    line_table: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One line of a stack."""

    filename: str
    function: str
    line: int  # 0 when the instruction belongs to no line


def line_of(code: Code, lasti: int) -> int:
    """The source line of the instruction at index ``lasti`` (in code units); 0 when it has none.

    A frame that has not run anything yet has a negative ``lasti`` and is on the first line, as in CPython.
    """
    ends, lines = _lines(code)
    place = bisect.bisect_right(ends, lasti)
    return lines[place] if lasti >= 0 and place < len(lines) else max(code.first_line, 0)


@functools.lru_cache(maxsize=1024)
def _lines(code: Code) -> tuple[list[int], list[int]]:
    """Per stretch of instructions the index after its last one, ascending, and its line.

    Source: CPython's ``Objects/locations.md``. Each entry is a byte ``1 cccc lll`` (kind, length - 1) and
    more bytes by kind; a damaged table ends the search instead of failing.
    """
    ends: list[int] = []
    lines: list[int] = []
    line, position, table = code.first_line, 0, code.line_table
    index = 0
    while index < len(table):
        kind, length = (table[index] >> 3) & 15, (table[index] & 7) + 1
        index += 1
        if kind in (13, 14):  # line delta as a signed variable-length integer, columns follow for 14
            delta, index = _signed_varint(table, index)
            line += delta
            for _ in range(3 if kind == 14 else 0):
                _, index = _varint(table, index)
        elif 10 <= kind <= 12:
            line += kind - 10
            index += 2
        elif kind < 10:
            index += 1
        position += length
        ends.append(position)
        lines.append(0 if kind == 15 else max(line, 0))
    return ends, lines


_LONGEST_VARINT_BITS = 36  # CPython writes 32-bit integers, 6 bits to the byte


def _varint(table: bytes, index: int) -> tuple[int, int]:
    value = shift = 0
    while index < len(table):
        byte = table[index]
        index += 1
        if shift < _LONGEST_VARINT_BITS:  # what a damaged table adds beyond is read over
            value |= (byte & 63) << shift
            shift += 6
        if not byte & 64:
            break
    return value, index


def _signed_varint(table: bytes, index: int) -> tuple[int, int]:
    value, index = _varint(table, index)
    return (-(value >> 1) if value & 1 else value >> 1), index


class StackTable:
    """Resolves stack ids to frames. Immutable: nodes only ever refer to earlier nodes."""

    def __init__(self, nodes: np.ndarray, codes: Mapping[int, Code]) -> None:
        """``nodes``: NODE_DTYPE, row i is node i + 1. ``codes``: by id."""
        self._nodes = nodes
        self._codes = codes
        self.frames = functools.lru_cache(maxsize=65536)(self._frames)
        self._frame = functools.lru_cache(maxsize=65536)(self._decode_frame)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[tuple[Frame, ...]]:
        return (self.frames(node) for node in range(1, len(self._nodes) + 1))

    def _frames(self, stack: int) -> tuple[Frame, ...]:
        """Frames of ``stack``, innermost first; empty for 0 and for an id that is not in the table."""
        frames = []
        node = int(stack)
        while 0 < node <= len(self._nodes):
            row = self._nodes[node - 1]
            frames.append(self._frame(int(row["code"]), int(row["lasti"])))
            parent = int(row["parent"])
            if parent >= node:  # a damaged table must not send us round in circles
                break
            node = parent
        return tuple(frames)

    def _decode_frame(self, code_id: int, lasti: int) -> Frame:
        code = self._codes.get(code_id)
        if code is None:
            return Frame(filename="?", function="?", line=0)
        return Frame(filename=code.filename, function=code.function, line=line_of(code, lasti))
