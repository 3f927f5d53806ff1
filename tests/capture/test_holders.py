"""Every way to hold device memory that we know of is found, in the expected words, and nobody else is named."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpumem_magic.analysis.retention import MEMORY_DTYPE
from gpumem_magic.capture.holders import find_holders
from gpumem_magic.capture.roots import Shell, collect_roots
from gpumem_magic.model.holders import HeldBy, Holder, Holders, Name
from tests.capture import planted
from tests.capture.planted import SIZE, Buffer, Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'c' was never awaited:RuntimeWarning")


class Notebook:
    """What stands for a shell: a namespace and its results."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"gpu": Buffer}
        self.out: dict[int, Any] = {}
        self.result: object = None
        self.tracebacks: tuple[tuple[str, object], ...] = ()

    def run(self, code: str) -> None:
        exec(compile(code, "/home/someone/case.py", "exec"), self.names)

    def holders(self, **options: Any) -> Holders:
        shell = Shell(
            shell=object(),
            user_ns=self.names,
            out=self.out,
            last_result=self.result,
            tracebacks=self.tracebacks,
        )
        found = find_holders([Buffers()], lambda: collect_roots(shell), **options)
        found.self_check()
        return found

    def only(self) -> Holder:
        (holder,) = self.holders().holders
        return holder


@pytest.fixture
def nb() -> Iterator[Notebook]:
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Buffer], "a test before left a buffer behind"
    notebook = Notebook()
    yield notebook
    notebook.names.clear()
    notebook.out.clear()
    gc.collect()


def paths(holder: Holder) -> dict[str, str]:
    assert holder.name_count == len(holder.names)
    return {name.name: name.path for name in holder.names}


@pytest.mark.parametrize("case", planted.EVERYTHING, ids=lambda case: case.kind)
def test_every_kind_of_holder_is_found(nb: Notebook, case: planted.Planted) -> None:
    nb.run(case.code)
    holder = nb.only()
    assert paths(holder) == case.names
    assert holder.held_by is case.held_by
    assert (holder.bytes, holder.type_name, holder.frameworks, holder.device) == (SIZE, "Buffer", ("buffers",), 0)
