"""``%%gpumem``: right numbers, and a cell that behaves as if the line were not there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.magics.conftest import Notebook

MIB = 1 << 20


def test_numbers_lines_and_what_stays(notebook: Notebook) -> None:
    text = notebook.run("""%%gpumem --save report
kept = alloc(8 << 20)
passing = alloc(32 << 20)
free(passing)
other = alloc(2 << 20)
""")
    report = notebook["report"]
    assert (report.delta_bytes, report.peak_bytes - report.devices[0].begin_bytes, report.held_bytes) == (
        10 * MIB,
        40 * MIB,
        10 * MIB,
    )
    rows = {row.where: (row.count, row.allocated_bytes, row.live_bytes) for row in report.allocators}
    label = f"In [{notebook.result.execution_count}]"
    calls = {frame.line for row in report.allocators for frame in row.stack if "alloc" not in frame.function}
    assert {2, 3, 5} <= calls, rows
    assert label in text
    report.ledger.self_check()
    assert "GPU 0 after it: " in text
    assert "Every byte of GPU 0 after it: " in notebook.html
    assert "+10.0 MiB" in text
    assert "40.0 MiB" in text
    assert "cuMemAlloc" in text
    assert "<svg" in notebook.html
    assert "<script" not in notebook.html


def test_reports_add_up_over_functions(notebook: Notebook) -> None:
    notebook.run("""%%gpumem --save report
def make():
    return [alloc(1 << 20) for _ in range(10)]
made = make()
free(*made[:4])
""")
    row = max(notebook["report"].allocators, key=lambda each: each.count)
    assert (row.count, row.allocated_bytes, row.live_count, row.live_bytes) == (10, 10 * MIB, 6, 6 * MIB)
    assert any(frame.function.endswith("make") or "make" in frame.function for frame in row.stack)


def test_value_display_and_output_pass_through(notebook: Notebook) -> None:
    text = notebook.run("%%gpumem\nprint('printed')\n6 * 7")
    assert "printed" in text
    assert notebook.result.result == 42
    assert notebook.shell.user_ns["_"] == 42


def test_await_magics_and_shell_work_inside(notebook: Notebook) -> None:
    text = notebook.run("""%%gpumem --save report
import asyncio
pointer = alloc(1 << 20)
await asyncio.sleep(0)
free(pointer)
where = %pwd
listed = !echo from the shell
print(listed[0])
""")
    assert "from the shell" in text
    assert notebook["where"]
    assert notebook["report"].peak_bytes >= MIB


def test_exception_is_the_cells_own_with_its_own_line(notebook: Notebook) -> None:
    text = notebook.run("%%gpumem\nx = alloc(1 << 20)\nraise ValueError('mine')", fails=True)
    assert isinstance(notebook.result.error_in_exec, ValueError)
    assert notebook.result.error_in_exec.__traceback__.tb_next.tb_lineno == 3
    assert text.count("ValueError: mine") == 1
    assert "+1.00 MiB" in text


def test_works_above_and_below_other_cell_magics(notebook: Notebook) -> None:
    notebook.run("%%gpumem --save above\n%%time\ny = alloc(1 << 20)")
    notebook.run("%%time\n%%gpumem --save below\nz = alloc(2 << 20)")
    assert notebook["above"].held_bytes == MIB
    assert notebook["below"].held_bytes == 2 * MIB


def test_bad_options_keep_the_cell_from_running(notebook: Notebook) -> None:
    for options in ("--bogus", "--min 12parsecs", "--depth -1", "--assert-peak", "'unclosed"):
        text = notebook.run(f"%%gpumem {options}\nran = True", fails=True)
        assert re.search(r"UsageError: .*\.", text), text
        assert "ran" not in notebook.shell.user_ns


def test_help_is_printed_once(notebook: Notebook) -> None:
    text = notebook.run("%%gpumem --help\nran = True")
    assert text.count("--assert-no-leak") == 2  # in the usage line and in the list
    assert "ran" not in notebook.shell.user_ns


def test_quiet_shows_nothing(notebook: Notebook) -> None:
    assert notebook.run("%%gpumem --quiet\nx = alloc(1 << 20)") == ""


def test_assertions_fail_the_cell_with_the_report(notebook: Notebook) -> None:
    text = notebook.run("%%gpumem --quiet --assert-no-leak\nleaked = alloc(3 << 20)", fails=True)
    assert "3.00 MiB allocated in this cell is still live" in text
    assert "What stays" in text
    text = notebook.run("%%gpumem --assert-peak 1MiB\nfree(alloc(2 << 20))", fails=True)
    assert "2.00 MiB above what was live before it" in text
    notebook.run("%%gpumem --assert-peak 4MiB --assert-no-leak\nfree(alloc(2 << 20))")


def test_min_hides_small_rows(notebook: Notebook) -> None:
    notebook.run("%%gpumem --min 1MiB --save report\nsmall = alloc(1024)\nlarge = alloc(2 << 20)")
    report = notebook["report"]
    assert [row.allocated_bytes for row in report.allocators] == [2 * MIB]
    assert (report.hidden_allocators, report.hidden_bytes) == (1, 1024)


def test_thread_started_by_a_cell_belongs_to_it(notebook: Notebook) -> None:
    notebook.run("""
import threading
go, context = threading.Event(), check(cuda.cuCtxGetCurrent())
def late():
    go.wait()
    check(cuda.cuCtxSetCurrent(context))
    global from_thread
    from_thread = alloc(5 << 20)
""")
    notebook.run("%%gpumem\nworker = threading.Thread(target=late); worker.start()")
    starter = notebook.result.execution_count
    notebook.run("%%gpumem --save later\ngo.set(); worker.join()")
    snapshot = notebook["worker"] and notebook.shell._gpumem_magics.session.snapshot()
    row = next(row for row in snapshot.allocations if row["size"] == 5 * MIB)
    assert snapshot.cell(int(row["cell"])).label == f"In [{starter}]"
    assert notebook["later"].delta_bytes == 5 * MIB  # the device had more afterwards, whoever asked for it


def test_nested_track_counts_to_the_cell(notebook: Notebook) -> None:
    notebook.run("""%%gpumem --save report
import gpumem_magic as gpumem
with gpumem.track("outer") as outer:
    a = alloc(1 << 20)
    with gpumem.track("inner") as inner:
        b = alloc(2 << 20); free(b)
""")
    assert notebook["outer"].held_bytes == MIB
    assert notebook["inner"].held_bytes == 0
    assert notebook["inner"].peak_bytes - notebook["outer"].per_device[0].begin_bytes == 3 * MIB
    assert notebook["report"].held_bytes == MIB
    assert notebook["report"].allocators[0].count == 1


@pytest.mark.parametrize("cell", ["%%gpumem", "%%gpumem\n", "%%gpumem\n\n# nothing"])
def test_empty_cells(notebook: Notebook, cell: str) -> None:
    assert "No CUDA allocation" in notebook.run(cell)


def test_what_a_library_frees_later_is_no_leak(notebook: Notebook) -> None:
    pytest.importorskip("numba.cuda")
    notebook.run("import numpy as np\nfrom numba import cuda as numba_cuda")
    text = notebook.run("%%gpumem --assert-no-leak\nbuffer = numba_cuda.device_array(8 << 20, np.uint8)\ndel buffer")
    assert "8.00 MiB of that are in no use: %gpumem free cache gives them back" in " ".join(text.split())
    text = notebook.run("%%gpumem --assert-no-leak\nbuffer = numba_cuda.device_array(8 << 20, np.uint8)", fails=True)
    assert "8.00 MiB allocated in this cell is still live" in text
    notebook.run("del buffer, numba_cuda\n%gpumem free cache")
