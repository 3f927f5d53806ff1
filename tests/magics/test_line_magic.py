"""``%gpumem VERB``, loading and unloading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic import api, simulator
from gpumem_magic.analysis.frames import notebook_labels
from tests.magics.conftest import CELL_PRELUDE, Notebook

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def test_status_says_what_is_tracked(notebook: Notebook) -> None:
    text = notebook.run("%gpumem status")
    assert "tracking" in text
    assert ("SIMULATED" in text) == simulator.is_active()
    assert str(notebook.shell._gpumem_magics.session.directory) in text.replace("\n", "").replace(" ", "")


def test_unknown_verb_is_a_sentence(notebook: Notebook) -> None:
    assert "UsageError" in notebook.run("%gpumem explode", fails=True)
    assert notebook.run("%gpumem --help").count("simulate") >= 1


def test_cells_lists_runs_and_errors(notebook: Notebook) -> None:
    notebook.run("grown = alloc(7 << 20)")
    first = notebook.result.execution_count
    notebook.run("1 / 0", fails=True)
    text = notebook.run("%gpumem cells")
    assert f"In [{first}]" in text
    assert "+7.00 MiB" in text
    assert "ZeroDivisionError" in text


def test_the_ledger_adds_up(notebook: Notebook) -> None:
    notebook.run("kept = [alloc(3 << 20) for _ in range(4)]")
    text = notebook.run("%gpumem ledger --devices 0")
    assert "alloc" in text
    assert "12.0 MiB" in text
    assert "not explained" in text
    assert "GPU 1" not in text
    assert "There is no GPU 9" in notebook.run("%gpumem ledger --devices 9", fails=True)
    ledger = api.session().ledger()
    ledger.self_check()
    assert [each.unexplained_bytes for each in ledger.devices] == [0] * len(ledger.devices)
    notebook.run("free(*kept)")
    notebook.run("%gpumem off")
    assert "Nothing is being recorded" in notebook.run("%gpumem ledger", fails=True)


def test_off_on_and_pause(notebook: Notebook) -> None:
    notebook.run("a = alloc(1 << 20)")
    assert "paused" in notebook.run("%gpumem pause")
    notebook.run("b = alloc(4 << 20); free(a)")  # at another address than the one that is freed
    assert "on" in notebook.run("%gpumem on")
    session = notebook.shell._gpumem_magics.session
    snapshot = session.snapshot()
    assert snapshot.live_bytes == 0, "what was freed in the gap is gone, what was born in it is unknown"
    assert snapshot.counters["absent"] == 1
    assert [gap.reason for gap in snapshot.gaps] == ["paused by the user"]
    assert snapshot.gaps[0].end_ns > snapshot.gaps[0].begin_ns
    notebook.run("free(b)")
    assert session.snapshot().counters["unknown_frees"] == 1
    notebook.run("%gpumem off")
    assert session.state == "off"
    notebook.run("c = alloc(1 << 20)")
    notebook.run("%gpumem on")
    assert session.snapshot().live_bytes == 0


def test_last_shows_the_recording_before(notebook: Notebook) -> None:
    notebook.run("kept = alloc(9 << 20)")
    notebook.run("%gpumem off")
    notebook.run("%gpumem on")
    text = notebook.run("%gpumem last")
    assert "9.00 MiB" in text
    assert "UsageError" in notebook.run("%gpumem last /nowhere/at/all", fails=True)


def test_simulate_over_a_driver_in_use_is_refused_kindly(notebook: Notebook) -> None:
    text = notebook.run("%gpumem simulate --devices 4", fails=True)
    assert "UsageError" in text


def test_reload_a_hundred_times(notebook: Notebook) -> None:
    for _ in range(100):
        notebook.run("%reload_ext gpumem_magic")
    notebook.run("%%gpumem --save report\nx = alloc(1 << 20)")
    assert notebook["report"].delta_bytes == 1 << 20


def test_unload_inside_a_tracked_cell(notebook: Notebook) -> None:
    notebook.run("x = alloc(1 << 20)\n%unload_ext gpumem_magic")
    assert "not found" in notebook.run("%gpumem status", fails=True)
    notebook.run("free(x)")
    notebook.run("%load_ext gpumem_magic")


def test_the_cell_that_loads_the_extension_is_a_cell_too(shell: InteractiveShell) -> None:
    notebook = Notebook(shell)
    notebook.run(
        CELL_PRELUDE
        + f"""
def grow():
    return alloc({1 << 20})

%load_ext gpumem_magic
first = grow()
"""
    )
    notebook.run("second = grow()")
    snapshot = api.snapshot()
    assert [(cell.label, cell.delta_bytes, cell.is_running) for cell in snapshot.cells] == [
        ("In [1]", 1 << 20, False),
        ("In [2]", 1 << 20, False),
    ]
    assert snapshot.cells[0].first_line == "from cuda.bindings import driver as cuda"
    labels = notebook_labels(snapshot)
    frames = [frame for stack in snapshot.sites["stack"].tolist() for frame in snapshot.stacks.frames(stack)]
    assert {labels[frame.filename] for frame in frames if frame.function == "grow"} == {"In [1]"}


def test_loading_twice_is_loading_once(notebook: Notebook) -> None:
    hooks = list(notebook.shell.events.callbacks["pre_run_cell"])
    notebook.run("import gpumem_magic; gpumem_magic.load_ipython_extension(get_ipython())")
    assert notebook.shell.events.callbacks["pre_run_cell"] == hooks
