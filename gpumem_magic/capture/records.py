"""The records that events refer to: decoded once, kept, and added to as a recording grows."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from typing import Any

import numpy as np

from gpumem_magic.model.stacks import Code, StackTable
from gpumem_magic.model.tables import NODE_DTYPE

_HEADER = struct.Struct("<IHHI")
_CODE = struct.Struct("<IiIII")
_NODE = struct.Struct("<IIIi")
_ROW = struct.Struct("<IIi")
_ID = struct.Struct("<I")
_TIME = struct.Struct("<Q")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something the recording wants remembered, with the time of the monotonic clock."""

    time_ns: int
    text: dict[str, Any]


class RecordTable:
    """Decoded table records. Not thread-safe; the owner serialises ``feed``."""

    def __init__(self) -> None:
        self.codes: dict[int, Code] = {}
        self.libraries: list[str] = [""]
        self.spans: dict[int, dict[str, Any]] = {}
        self.notes: list[Note] = []
        self._nodes = bytearray()
        self._stacks: StackTable | None = None

    def feed(self, data: bytes) -> str:
        """Decode whole records. Returns "" or, for damage, a sentence; everything before the damage is kept."""
        position = 0
        while position + _HEADER.size <= len(data):
            length, kind, _, crc = _HEADER.unpack_from(data, position)
            begin = position + _HEADER.size
            payload = data[begin : begin + length]
            if len(payload) < length or zlib.crc32(payload) != crc:
                return f"a record at byte {position} is damaged, and what follows it there is left out"
            problem = self._add(kind, payload)
            if problem:
                return f"a record at byte {position} {problem}, and what follows it there is left out"
            position = begin + length + (-length % 4)
        return ""

    def stacks(self) -> StackTable:
        """The stacks known so far; the table stays valid when more are added."""
        if self._stacks is None or len(self._stacks) * NODE_DTYPE.itemsize != len(self._nodes):
            self._stacks = StackTable(np.frombuffer(bytes(self._nodes), NODE_DTYPE), dict(self.codes))
        return self._stacks

    def _add(self, kind: int, payload: bytes) -> str:
        decode = {1: self._code, 2: self._node, 3: self._library, 5: self._span, 6: self._note}.get(kind)
        if decode is None:  # streams, contexts, and what later releases may add
            return ""
        try:
            decode(payload)
        except (struct.error, UnicodeDecodeError, ValueError, RecursionError) as error:
            return f"cannot be understood ({error})"
        return ""

    def _code(self, payload: bytes) -> None:
        code, first_line, filename, function, table = _CODE.unpack_from(payload)
        names = payload[_CODE.size :]
        self.codes[code] = Code(
            filename=names[:filename].decode(errors="replace"),
            function=names[filename : filename + function].decode(errors="replace"),
            first_line=first_line,
            line_table=names[filename + function : filename + function + table],
        )

    def _node(self, payload: bytes) -> None:
        node, parent, code, lasti = _NODE.unpack(payload)
        if node != len(self._nodes) // _ROW.size + 1 or parent >= node:
            raise ValueError(f"stack node {node} is out of order")
        self._nodes += _ROW.pack(parent, code, lasti)

    def _library(self, payload: bytes) -> None:
        (library,) = _ID.unpack_from(payload)
        if library != len(self.libraries):
            raise ValueError(f"library {library} is out of order")
        self.libraries.append(payload[_ID.size :].decode(errors="replace"))

    def _span(self, payload: bytes) -> None:
        (span,) = _ID.unpack_from(payload)
        self.spans[span] = _json_object(payload[_ID.size :])

    def _note(self, payload: bytes) -> None:
        (time_ns,) = _TIME.unpack_from(payload)
        self.notes.append(Note(time_ns=time_ns, text=_json_object(payload[_TIME.size :])))


def _json_object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  (damage, not a caller's mistake)
    return value
