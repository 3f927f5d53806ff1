"""Variables of frames, on every version of Python that we run on, are those that ``f_locals`` would show."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic import _core

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NAMES: dict[str, Any] = {"_core": _core, "sys": sys}
CODE = """
def plain(a, b=2, *rest, c, **more):
    local = 5
    unbound = 1
    del unbound
    return sys._getframe(), "kept on the stack"

def outer(argument):
    inside = [1]
    late = 2
    def inner(own):
        return sys._getframe(), argument, inside
    return inner(3), sys._getframe(), late

def generator(x):
    y = [x]
    yield sys._getframe()
    z = lambda: y
    yield sys._getframe()

class Body:
    attribute = 1
    frame = sys._getframe()

def comprehension(n):
    return [sys._getframe() for _ in range(n)]
"""
exec(CODE, NAMES)


def frames() -> Iterator[FrameType]:
    yield NAMES["plain"](1, 3, 4, c=5, d=6)[0]
    (inner, *_), outer, _ = NAMES["outer"](7)
    yield from (inner, outer)
    suspended = NAMES["generator"](1)
    yield next(suspended)
    yield next(suspended)
    yield from NAMES["comprehension"](1)


@pytest.mark.parametrize("index", range(6))
def test_they_are_those_of_f_locals(index: int) -> None:
    frame = list(frames())[index]
    variables = _core.frame_variables(frame)
    expected = dict(frame.f_locals)
    assert len(variables) > 0
    assert dict(variables) == expected
    assert len(dict(variables)) == len(variables)


def test_of_a_running_frame() -> None:
    cell = [1]
    free = lambda: cell  # noqa: E731
    variables = dict(_core.frame_variables(sys._getframe()))
    assert variables["cell"] is cell
    assert variables["free"] is free
    assert "variables" not in variables, "it is not bound yet"


def test_code_without_fast_variables_has_none() -> None:
    assert _core.frame_variables(NAMES["Body"].frame) == []


def test_only_frames_have_variables() -> None:
    with pytest.raises(TypeError, match="takes a frame"):
        _core.frame_variables(object())
