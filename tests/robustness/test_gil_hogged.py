"""Nobody drains anything while the GIL is held: the ledger is exact all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended


def test_native_threads_allocate_while_a_c_call_holds_the_gil(program: Callable[..., Ended]) -> None:
    found = program(
        """
        gpumem.start()
        threads, hog = native_threads(), native_threads(holding_the_gil=True)
        with gpumem.track("hogged") as cell:
            assert threads.start_threads(6, context) == 0
            before = totals(threads)
            hog.sleep_milliseconds(3000)
            after = totals(threads)
            threads.stop_threads()
        snapshot = gpumem.snapshot()
        snapshot.self_check()
        answer(during=after[0] - before[0], totals=totals(threads), counters=dict(snapshot.counters),
               live=snapshot.live_bytes, rows=len(snapshot.allocations), held=cell.held_bytes,
               events=len(snapshot.events), warnings=snapshot.warnings)
        """,
    ).answer
    allocations, frees, live_bytes, failures = found["totals"]
    assert failures == 0
    assert found["during"] > 1000  # they did run while the GIL was held
    assert found["counters"]["births"] == allocations
    assert found["counters"]["deaths"] == frees
    assert found["live"] == found["held"] == live_bytes
    assert found["rows"] == allocations - frees
    assert found["events"] == found["counters"]["events"]
    assert found["warnings"] == []


def test_no_hole_is_left_in_memory_over_time(program: Callable[..., Ended]) -> None:
    found = program(
        """
        import time
        from gpumem_magic.session import Session
        session = Session()
        session.sampling_rate(20)
        session.start()
        assert session._sampler.refresh(30)
        hog = native_threads(holding_the_gil=True)
        index, begin_ns = session.history(0).next_index, time.monotonic_ns()
        hog.sleep_milliseconds(1000)
        end_ns = time.monotonic_ns()
        rows = session.history(index).rows
        answer(taken=int(((rows["end_ns"] >= begin_ns) & (rows["end_ns"] <= end_ns)).sum()),
               longest=int((rows["end_ns"] - rows["begin_ns"]).max()), hogged=end_ns - begin_ns)
        session.stop()
        """,
    ).answer
    assert found["hogged"] >= 1_000_000_000
    assert found["taken"] >= 17
    assert found["longest"] < 200_000_000  # of 50 ms, on a machine that may be busy
