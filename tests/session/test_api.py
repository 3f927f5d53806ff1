"""The verbs in Python: start, track, snapshot, load, stop. Each test is a process with a GPU, real or simulated."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tests.gpu_process import run_script

if TYPE_CHECKING:
    import pathlib

MIB = 1 << 20


def run(script: str, home: pathlib.Path, **environment: str) -> dict[str, object]:
    return run_script("use_gpu_or_simulate(); use_device()\n" + textwrap.dedent(script), home, **environment)


def test_track_starts_by_itself_and_measures(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        with gpumem.track("epoch") as epoch:
            kept = check(cuda.cuMemAlloc(4 << 20)); passing = check(cuda.cuMemAlloc(8 << 20))
            inside = epoch.delta_bytes
            check(cuda.cuMemFree(passing))
        answer(inside=inside, delta=epoch.delta_bytes, peak=epoch.peak_bytes, held=epoch.held_bytes,
               count=epoch.allocations, device=epoch.per_device[0].peak_bytes, text=repr(epoch),
               rows=len(epoch.report().to_dataframe()))
        """,
        tmp_path,
    )
    assert found["inside"] == found["peak"] == found["device"] == 12 * MIB
    assert found["delta"] == found["held"] == 4 * MIB
    assert found["count"] == 2
    assert "+4.00 MiB" in str(found["text"])
    assert found["rows"] == 1  # one line made both


def test_exception_passes_through_and_is_named(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        try:
            with gpumem.track("breaks"):
                raise KeyError("mine")
        except KeyError as error:
            caught = str(error)
        answer(caught=caught, error=gpumem.snapshot().cells[-1].error)
        """,
        tmp_path,
    )
    assert found == {"caught": "'mine'", "error": "KeyError"}


def test_blocks_on_threads_have_their_own_parents(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        import threading
        context = check(cuda.cuCtxGetCurrent())
        def work(name):
            check(cuda.cuCtxSetCurrent(context))
            with gpumem.track(name):
                check(cuda.cuMemAlloc(1 << 20))
            check(cuda.cuMemAlloc(2 << 20))
        with gpumem.track("main") as main:
            threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        snapshot = gpumem.snapshot()
        cells = {cell.label: cell for cell in snapshot.cells}
        parents = {cells[f"thread {n}"].parent for n in range(4)}
        own = {int(row["size"]): snapshot.cell(int(row["cell"])).label for row in snapshot.allocations}
        answer(parents=list(parents), main=cells["main"].id, outside=own[2 << 20], held=main.held_bytes,
               background=all(int(row["flags"]) & 1 for row in snapshot.allocations if row["size"] == 2 << 20))
        """,
        tmp_path,
    )
    assert found["parents"] == [found["main"]]
    assert found["outside"] == "main"
    assert found["held"] == 12 * MIB
    assert found["background"] is True


def test_recording_is_readable_while_it_is_made_and_after(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        gpumem.start()
        pointers = [check(cuda.cuMemAlloc(1 << 20)) for _ in range(10)]
        with gpumem.track("open") as block:
            path = gpumem.status().recording
            during = gpumem.load(path)
            running = during.cells[-1].is_running
        for pointer in pointers[:4]: check(cuda.cuMemFree(pointer))
        live_now = gpumem.snapshot().live_bytes
        gpumem.stop()
        after = gpumem.load(path); after.self_check(); during.self_check()
        gpumem.start()
        answer(during=during.live_bytes, running=running, after=after.live_bytes, now=live_now,
               warnings=[*during.warnings, *after.warnings], frames=len(after.stacks),
               new=gpumem.status().recording != path)
        """,
        tmp_path,
    )
    assert found["during"] == 10 * MIB
    assert found["running"] is True
    assert found["after"] == found["now"] == 6 * MIB
    assert found["warnings"] == []
    assert found["frames"]
    assert found["new"] is True


def test_memory_from_before_is_counted_when_it_goes(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        early = check(cuda.cuMemAlloc(32 << 20))
        gpumem.start()
        check(cuda.cuMemFree(early))
        snapshot = gpumem.snapshot()
        answer(live=snapshot.live_bytes, unknown=snapshot.counters["unknown_frees"],
               failures=snapshot.counters["failures"])
        """,
        tmp_path,
    )
    assert found == {"live": 0, "unknown": 1, "failures": 0}


def test_home_that_cannot_be_written_is_said_and_survived(tmp_path: pathlib.Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a directory")
    found = run(
        """
        status = gpumem.start()
        check(cuda.cuMemAlloc(1 << 20))
        snapshot = gpumem.snapshot()
        answer(warnings=status.warnings, recording=status.recording, live=snapshot.live_bytes,
               events=len(snapshot.events))
        """,
        occupied,
    )
    assert found["recording"] == "in memory"
    assert "GPUMEM_HOME" in str(found["warnings"])
    assert found["live"] == MIB
    assert found["events"]


def test_snapshot_of_nothing_is_a_sentence(tmp_path: pathlib.Path) -> None:
    found = run(
        """
        try:
            gpumem.snapshot()
        except RuntimeError as error:
            said = str(error)
        gpumem.start(); gpumem.start()
        first = gpumem.status().recording
        answer(said=said, first=first)
        """,
        tmp_path,
    )
    assert "%load_ext gpumem_magic" in str(found["said"])
