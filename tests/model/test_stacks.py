"""Lines against the running interpreter's own answer, and stack tables that were damaged."""

from __future__ import annotations

import argparse
import asyncio.base_events
import collections
import dataclasses
import gc
import inspect
import itertools
import json.decoder
import time
import traceback
import types
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic.model.stacks import Code, Frame, StackTable, line_of
from gpumem_magic.model.tables import NODE_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (argparse, asyncio.base_events, collections, dataclasses, inspect, json.decoder)


def code_of(code: types.CodeType) -> Code:
    return Code(
        filename=code.co_filename,
        function=code.co_qualname,
        first_line=code.co_firstlineno,
        line_table=code.co_linetable,
    )


def every_code_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from every_code_in(constant)


def assert_lines_are_the_interpreters(code: types.CodeType) -> None:
    kept = code_of(code)
    decoded = [line_of(kept, index) for index in range(len(code.co_code) // 2)]
    assert decoded == [line or 0 for line, *_ in code.co_positions()], code
    ranges = [(start, end, line or 0) for start, end, line in code.co_lines()]
    assert decoded == [line for start, end, line in ranges for _ in range(start, end, 2)], code


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_lines_of_every_function_of_a_module(module: types.ModuleType) -> None:
    body = compile(inspect.getsource(module), str(module.__file__), "exec", dont_inherit=True)
    functions = [code for code in every_code_in(body) if code is not body]
    assert len(functions) > 5
    for code in functions:
        assert_lines_are_the_interpreters(code)


def test_lines_of_a_module_body() -> None:
    assert_lines_are_the_interpreters(compile(inspect.getsource(json.decoder), "decoder.py", "exec"))


FAR_APART = "def f(x):\n    a = x" + "\n" * 70000 + "    return (a +" + "\n" * 300 + " x)\n"
BACKWARDS = "def f(x):\n    return g(" + "\n" * 40 + "x,\n1 if x else h(\n2))\n"
WIDE = "def f(x):\n    return " + " + ".join(["x"] * 300) + "\n"
CLOSURE = """
def f(x):
    def g():
        yield from (x for _ in x)
    try:
        return g
    finally:
        del x
"""
ASYNC = "async def f(x):\n    async with x as y:\n        async for z in y:\n            await z\n"


@pytest.mark.parametrize("source", [FAR_APART, BACKWARDS, WIDE, CLOSURE, ASYNC, "", "lambda: (yield)", "\n\n\nx = 1"])
def test_lines_of_unusual_layouts(source: str) -> None:
    for code in every_code_in(compile(source, "layout.py", "exec")):
        assert_lines_are_the_interpreters(code)


def test_lines_of_the_frames_that_run_now() -> None:
    frame = inspect.currentframe()
    for _ in range(5):
        assert frame is not None
        assert line_of(code_of(frame.f_code), frame.f_lasti // 2) == frame.f_lineno
        frame = frame.f_back


def test_a_frame_that_has_not_run_yet_is_on_the_first_line() -> None:
    def generator() -> Iterator[int]:
        yield from itertools.count(len(modules))

    modules = MODULES
    frame = generator().gi_frame  # type: ignore[attr-defined]
    code = code_of(frame.f_code)
    assert line_of(code, -1) == frame.f_code.co_firstlineno
    assert line_of(code, -(2**31)) == frame.f_code.co_firstlineno


def code_with(table: bytes, first_line: int = 10) -> Code:
    return Code(filename="f.py", function="f", first_line=first_line, line_table=table)


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        (b"", [10, 10]),  # nothing known: the first line
        (b"\xf8", [0, 10]),  # one unit without a line, then the end
        (bytes([0x80 | 13 << 3 | 1, 2]), [11, 11, 10]),  # two units, one line on
        (bytes([0x80 | 13 << 3, 3]), [9, 10]),  # a line back
        (bytes([0x80 | 13 << 3, 41]), [0, 10]),  # before line 0
        (bytes([0x80 | 13 << 3]), [10]),  # cut off before the delta
        (bytes([0x80 | 14 << 3, 2]), [11]),  # cut off before the columns
        (bytes([0x80 | 12 << 3]), [12]),  # cut off before the columns
        (bytes([0x80 | 13 << 3, 0x42]), [11]),  # a delta that never ends
    ],
)
def test_lines_of_damaged_tables(table: bytes, lines: list[int]) -> None:
    assert [line_of(code_with(table), index) for index in range(len(lines))] == lines


@given(st.binary(max_size=200), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_any_table_gives_a_line(table: bytes, first_line: int, lasti: int) -> None:
    assert line_of(code_with(table, first_line), lasti) >= 0


def test_a_number_of_a_million_bytes_is_read_over_quickly() -> None:
    table = bytes([0x80 | 13 << 3]) + b"\x7f" * 1_000_000
    begin = time.perf_counter()
    assert line_of(code_with(table), 0) < 2**36
    assert time.perf_counter() - begin < 5  # quadratic time would be minutes


LINE_1, LINE_2 = bytes([0x80 | 13 << 3 | 7, 0]), bytes([0x80 | 13 << 3 | 7, 2])
CODES = {
    1: Code(filename="a.py", function="outer", first_line=5, line_table=LINE_1),
    2: Code(filename="b.py", function="inner", first_line=6, line_table=LINE_2),
}
OUTER, INNER, UNKNOWN = (
    Frame(filename="a.py", function="outer", line=5),
    Frame(filename="b.py", function="inner", line=7),
    Frame(filename="?", function="?", line=0),
)


def table_of(*nodes: tuple[int, int, int]) -> StackTable:
    return StackTable(np.array(list(nodes), NODE_DTYPE), CODES)


def test_frames_are_innermost_first() -> None:
    table = table_of((0, 1, 0), (1, 2, 3))
    assert (table.frames(1), table.frames(2)) == ((OUTER,), (INNER, OUTER))
    assert (len(table), list(table)) == (2, [(OUTER,), (INNER, OUTER)])


@pytest.mark.parametrize("stack", [0, -1, 3, 2**32 - 1, 2**64 - 1])
def test_a_stack_that_is_not_in_the_table_is_empty(stack: int) -> None:
    assert table_of((0, 1, 0), (1, 2, 3)).frames(stack) == ()


def test_an_empty_table_has_no_stacks() -> None:
    assert (len(table_of()), list(table_of()), table_of().frames(1)) == (0, [], ())


def test_a_code_that_is_missing_is_shown_as_unknown() -> None:
    assert table_of((0, 1, 0), (1, 99, 3)).frames(2) == (UNKNOWN, OUTER)


@pytest.mark.parametrize(
    "nodes",
    [
        ((1, 1, 0),),  # its own parent
        ((2, 1, 0), (1, 2, 0)),  # two that are each other's parent
        ((9, 1, 0),),  # a parent beyond the table
        ((2**32 - 1, 1, -(2**31)),),
    ],
)
def test_a_parent_that_is_not_earlier_ends_the_stack(nodes: tuple[tuple[int, int, int], ...]) -> None:
    assert table_of(*nodes).frames(1) == (OUTER,)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(-(2**31), 2**31 - 1)), max_size=10))
@settings(deadline=None)
def test_any_table_gives_stacks_that_end(nodes: list[tuple[int, int, int]]) -> None:
    table = table_of(*nodes)
    for depth, frames in enumerate(table, start=1):
        assert 1 <= len(frames) <= depth


def test_ids_may_be_numpy_scalars() -> None:
    assert table_of((0, 1, 0)).frames(np.uint32(1)) == (OUTER,)


def test_a_table_that_nobody_holds_is_freed() -> None:
    table = table_of((0, 1, 0))
    assert table.frames(1) == (OUTER,)
    gone = weakref.ref(table)
    del table
    gc.collect()
    assert gone() is None


def test_the_table_of_a_real_stack_reads_like_the_stack() -> None:
    stack = [(frame.f_code, frame.f_lasti // 2, frame.f_lineno) for frame, _ in traceback.walk_stack(None)]
    codes = {number: code_of(code) for number, (code, _, _) in enumerate(reversed(stack), start=1)}
    nodes = [(number - 1, number, lasti) for number, (_, lasti, _) in enumerate(reversed(stack), start=1)]
    read = StackTable(np.array(nodes, NODE_DTYPE), codes).frames(len(nodes))
    expected = [Frame(filename=c.co_filename, function=c.co_qualname, line=line) for c, _, line in stack]
    assert len(read) > 10
    assert list(read) == expected
