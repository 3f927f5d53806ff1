"""A real IPython shell with the extension loaded, on the simulated GPU (or the real one, where there is one)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from gpumem_magic import simulator
from gpumem_magic.capture import driver
from tests.driver_calls import DRIVER_CALLS

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from IPython.core.interactiveshell import ExecutionResult
    from IPython.utils.capture import CapturedIO

CELL_PRELUDE = f"""
from cuda.bindings import driver as cuda
{DRIVER_CALLS}
use_device()
"""


class Notebook:
    """Runs cells one after the other, as a kernel does, and keeps what they showed."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.output: CapturedIO
        self.result: ExecutionResult

    def run(self, cell: str, *, fails: bool = False) -> str:
        """Run a cell; returns what it printed and the text of what it displayed."""
        with capture_output() as self.output:
            self.result = self.shell.run_cell(cell, store_history=True)
        assert self.result.success is not fails, self.output.stdout + self.output.stderr
        shown = [output.data.get("text/plain", "") for output in self.output.outputs]
        return self.output.stdout + self.output.stderr + "".join(shown)

    @property
    def html(self) -> str:
        """Rich forms of what the last cell displayed."""
        return "".join(output.data.get("text/html", "") for output in self.output.outputs)

    def __getitem__(self, name: str) -> object:
        return self.shell.user_ns[name]


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not driver.is_driver_present():
        simulator.activate(devices=2, memory="16GiB")


@pytest.fixture
def shell(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A fresh shell without the extension. Afterwards nothing of ours may be left in the process."""
    monkeypatch.setenv("GPUMEM_HOME", str(tmp_path / "recordings"))
    threads = set(threading.enumerate())
    start = threading.Thread.start
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    made.run_line_magic("colors", "nocolor")
    transformers = list(made.input_transformers_cleanup)
    hooks = {event: list(callbacks) for event, callbacks in made.events.callbacks.items()}
    yield made
    made.run_line_magic("unload_ext", "gpumem_magic")
    assert made.input_transformers_cleanup == transformers
    assert {event: list(callbacks) for event, callbacks in made.events.callbacks.items()} == hooks
    assert "gpumem" not in made.magics_manager.magics["line"]
    assert "gpumem" not in made.magics_manager.magics["cell"]
    assert threading.Thread.start is start
    assert set(threading.enumerate()) <= threads
    made.user_ns.clear()  # a number that is left would be the address of another test's memory
    made.user_ns_hidden.clear()
    InteractiveShell.clear_instance()


@pytest.fixture
def notebook(shell: InteractiveShell) -> Notebook:
    """A notebook whose first cells loaded the extension and chose GPU 0."""
    made = Notebook(shell)
    made.run("%load_ext gpumem_magic")
    made.run(CELL_PRELUDE)
    return made
