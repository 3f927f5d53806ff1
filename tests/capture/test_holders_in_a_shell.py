"""Who holds it in a real IPython shell: its results, its exceptions, and none of the frames that run a cell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from gpumem_magic import simulator
from gpumem_magic.analysis.retention import MEMORY_DTYPE
from gpumem_magic.capture import driver
from gpumem_magic.capture.holders import find_holders
from gpumem_magic.capture.roots import Shell, collect_roots
from gpumem_magic.model.holders import HeldBy
from tests.capture.planted import Buffer, Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumem_magic.model.holders import Holder, Holders


class Cells:
    """Runs cells in a shell; ``who()`` in a cell asks who holds what."""

    def __init__(self) -> None:
        self.shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        self.shell.user_ns.update(gpu=Buffer, who=self.who)
        self.buffers = Buffers()
        self.allocations: np.ndarray | None = None
        self.found: Holders

    def who(self) -> None:
        shell = self.shell
        told = Shell(
            shell=shell, user_ns=shell.user_ns, out=shell.user_ns["Out"], last_result=shell.last_execution_result
        )
        self.found = find_holders([self.buffers], lambda: collect_roots(told), allocations=self.allocations)
        self.found.self_check()

    def run(self, *cells: str) -> None:
        for cell in cells:
            with capture_output():
                self.shell.run_cell(cell, store_history=True)

    def holder(self) -> Holder:
        (holder,) = self.found.holders
        assert holder.name_count == len(holder.names)
        return holder

    def paths(self) -> list[str]:
        return [name.path for name in self.holder().names]


@pytest.fixture
def cells() -> Iterator[Cells]:
    made = Cells()
    yield made
    made.shell.reset()
    made.shell.InteractiveTB.tb = None
    for name in ("last_type", "last_exc", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)


def test_a_variable_and_nothing_else(cells: Cells) -> None:
    cells.run("model = [gpu()]", "who()")
    assert cells.paths() == ["model[0]"]


def test_a_result_is_in_many_places(cells: Cells) -> None:
    cells.run("1", "{'loss': gpu()}", "who()")
    paths = cells.paths()
    assert paths[:3] == ["Out[2]['loss']", "_['loss']", "_2['loss']"]
    assert set(paths[3:]) == {
        "get_ipython().displayhook._['loss']",
        "get_ipython().last_execution_result.result['loss']",
        "get_ipython().user_ns_hidden['_']['loss']",
        "get_ipython().user_ns_hidden['_2']['loss']",
    }
    assert cells.holder().held_by is HeldBy.NOTEBOOK


def test_a_failed_cell(cells: Cells) -> None:
    cells.run("def train_step():\n  logits = gpu()\n  1 / 0", "train_step()", "who()")
    frame = "train_step() in In [1]:3, local logits"
    exceptions = {path.removesuffix(frame) for path in cells.paths()}
    assert {"sys.last_value → traceback → ", "sys.last_traceback → "} <= exceptions
    assert exceptions <= {
        "sys.last_value → traceback → ",
        "sys.last_traceback → ",
        "sys.last_exc → traceback → ",
        "get_ipython().InteractiveTB.tb → ",
        "get_ipython().last_execution_result.error_in_exec → traceback → ",
    }
    assert cells.holder().held_by is HeldBy.EXCEPTION


def test_a_function_that_runs_now(cells: Cells) -> None:
    cells.run("def work(x):\n  who()", "work(gpu())")
    assert cells.paths() == ["work() in In [1]:2, local x"]
    assert cells.holder().held_by is HeldBy.RUNNING


def test_a_pointer_of_the_driver(cells: Cells) -> None:
    if not driver.is_driver_present():
        simulator.activate(devices=2, memory="16GiB")
    cells.run(
        "from cuda.bindings import driver as cuda",
        "cuda.cuInit(0)\ncuda.cuCtxSetCurrent(cuda.cuDevicePrimaryCtxRetain(cuda.cuDeviceGet(0)[1])[1]);",
        "keep = {'weights': cuda.cuMemAlloc(1 << 20)[1]}\nnumber = int(cuda.cuMemAlloc(1 << 21)[1])",
        "gone = int(cuda.cuMemAlloc(1 << 22)[1])",
    )
    names = cells.shell.user_ns
    rows = [(int(names["keep"]["weights"]), 1 << 20, 0), (names["number"], 1 << 21, 0), (names["gone"], 1 << 22, 0)]
    cells.allocations = np.array(rows, MEMORY_DTYPE)
    names = rows = None
    cells.run("del gone", "who()")
    held = [(each.bytes, each.held_by, [name.path for name in each.names]) for each in cells.found.holders]
    assert held == [
        (1 << 22, HeldBy.LOST, []),
        (1 << 21, HeldBy.NOTEBOOK, ["number"]),
        (1 << 20, HeldBy.NOTEBOOK, ["keep['weights']"]),
    ]
    cells.run("cuda.cuMemFree(keep['weights']); cuda.cuMemFree(number);")
