"""Who holds CUPTI, and what becomes of a recording when somebody else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.capture.conftest import Script

MIB = 1 << 20
_LENT = "CUPTI was lent to another tool"


def test_another_subscriber_leaves_us_degraded_and_is_named(script: Script) -> None:
    found = script("""
        simulate()
        other = Other()
        assert other.subscribe() == 0
        session = Session()
        status = session.start()
        kept = allocate(8)
        snapshot = session.snapshot()
        snapshot.self_check()
        answer(state=status.state, reason=status.reason, holder=status.slot_holder, heard=len(other.heard),
               live=snapshot.live_bytes, degraded=snapshot.process.degraded, gaps=len(snapshot.gaps))
        session.stop()
    """)
    assert found["state"] == "degraded"
    assert found["holder"] == "CUPTI for another subscriber"
    assert found["reason"] == "CUPTI for another subscriber holds CUPTI, and this CUPTI serves one tool at a time."
    assert found["degraded"] == found["reason"].rstrip(".")
    assert found["heard"] > 0
    assert (found["live"], found["gaps"]) == (0, 1)


@pytest.mark.parametrize("by", ["session.check()", "until(lambda: session.state == 'on')"])
def test_a_slot_that_comes_free_is_taken(script: Script, by: str) -> None:
    found = script(f"""
        simulate()
        other = Other()
        other.subscribe()
        session = quick(Session())
        session.start()
        missed = allocate(8)
        other.unsubscribe()
        {by}
        seen = allocate(4)
        free(missed)
        snapshot = session.snapshot()
        snapshot.self_check()
        (gap,) = snapshot.gaps
        answer(state=session.state, live=snapshot.live_bytes, ended=gap.end_ns > gap.begin_ns, threads=our_threads(),
               unknown=snapshot.counters["unknown_frees"], degraded=snapshot.process.degraded)
        session.stop()
    """)
    assert found == {
        "state": "on",
        "live": 4 * MIB,
        "ended": True,
        "threads": ["gpumem-heartbeat"],
        "unknown": 1,
        "degraded": "",
    }


def test_yielding_marks_a_gap_and_the_live_set_is_checked_after_it(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        stays, goes = allocate(8), allocate(16)
        other = Other()
        refused = other.subscribe()
        assert session.yield_slot("another tool")
        twice = session.yield_slot("another tool")
        while_lent = (session.state, session.status().reason)
        granted = other.subscribe()
        missed = allocate(32)  # first, or it might get the address of the other and be taken for it
        free(goes)
        early = session.check()
        other.unsubscribe()
        back = session.check()
        snapshot = session.snapshot()
        snapshot.self_check()
        free(missed)
        after = session.snapshot()
        events = snapshot.events.between(0, 2**63)
        (gap,) = snapshot.gaps
        answer(refused=refused, granted=granted, twice=twice, while_lent=while_lent, early=early, back=back,
               live=[int(size) for size in snapshot.allocations["size"]],
               absent=[int(each) == int(goes) for each in events["address"][events["kind"] == Kind.ABSENT]],
               marks=[int((events["kind"] == kind).sum()) for kind in (Kind.GAP_BEGIN, Kind.GAP_END)],
               reason=gap.reason, ended=gap.end_ns > gap.begin_ns, status=session.status().gaps,
               unknown=after.counters["unknown_frees"])
        session.stop()
    """)
    assert found["refused"] == 39
    assert found["granted"] == 0
    assert not found["twice"]
    assert found["while_lent"] == ["yielded", "CUPTI is lent to another tool"]
    assert not found["early"]
    assert found["back"]
    assert found["live"] == [8 * MIB]
    assert found["absent"] == [True]
    assert found["marks"] == [1, 1]
    assert (found["reason"], found["ended"], found["status"]) == (_LENT, True, 1)
    assert found["unknown"] == 1


def test_a_pause_keeps_the_slot_and_yielding_gives_it_all_the_same(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        session.pause()
        other = Other()
        kept = other.subscribe()
        assert session.yield_slot("another tool")
        granted, paused = other.subscribe(), session.state
        still = session.check(), session.state
        other.unsubscribe()
        session.check()
        asleep = session.state
        state = session.resume().state
        answer(kept=kept, granted=granted, paused=paused, still=still, asleep=asleep, state=state,
               gaps=len(session.snapshot().gaps))
        session.stop()
    """)
    assert found == {
        "kept": 39,
        "granted": 0,
        "paused": "paused",
        "still": [False, "paused"],
        "asleep": "paused",
        "state": "on",
        "gaps": 1,
    }


def test_while_a_profiler_runs_the_slot_is_left_to_it_even_when_it_is_free(script: Script) -> None:
    """It has not asked for it yet, or is between two requests."""
    found = script("""
        simulate()
        session = quick(Session(), 0.001)
        session.start()
        running = session._profilers._in_use
        running.add("torch.profiler")
        session.yield_slot("torch.profiler")
        asked = session.check(), session.resume().state
        time.sleep(0.05)
        beaten = session.state
        session.pause()
        paused = session.state, session.resume().state
        running.clear()
        answer(asked=asked, beaten=beaten, paused=paused, back=until(lambda: session.state == "on"),
               gaps=[gap.end_ns > 0 for gap in session.snapshot().gaps])
        session.stop()
    """)
    assert found == {
        "asked": [False, "yielded"],
        "beaten": "yielded",
        "paused": ["paused", "yielded"],
        "back": True,
        "gaps": [True],
    }


@pytest.mark.parametrize("by", ["session.check()", "until(lambda: session.status().gaps)"])
def test_a_reset_of_cupti_by_another_tool_is_noticed(script: Script, by: str) -> None:
    found = script(f"""
        simulate()
        session = quick(Session())
        session.start()
        kept, goes = allocate(8), allocate(16)
        assert session.check()
        Other().finalize()
        free(goes)
        {by}
        assert until(lambda: session.state == "on")
        seen = allocate(2)
        snapshot = session.snapshot()
        snapshot.self_check()
        (gap,) = snapshot.gaps
        answer(reason=gap.reason, ended=gap.end_ns > 0, live=sorted(int(size) for size in snapshot.allocations["size"]),
               absent=snapshot.counters["absent"], hears=session.check())
        session.stop()
    """)
    assert found == {
        "reason": "the CUPTI subscription was lost: another tool reset CUPTI",
        "ended": True,
        "live": [2 * MIB, 8 * MIB],
        "absent": 1,
        "hears": True,
    }


def test_a_reset_by_a_tool_that_then_takes_the_slot(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        other = Other()
        other.finalize()
        assert other.subscribe() == 0
        lost = session.check(), session.state, session.status().slot_holder
        other.unsubscribe()
        again = session.check(), session.state
        answer(lost=lost, again=again, reasons=[gap.reason for gap in session.snapshot().gaps])
        session.stop()
    """)
    assert found["lost"] == [False, "degraded", "CUPTI for another subscriber"]
    assert found["again"] == [True, "on"]
    assert found["reasons"] == ["the CUPTI subscription was lost: another tool reset CUPTI"]


def test_where_cupti_serves_several_nobody_has_to_yield(script: Script) -> None:
    found = script(
        """
        simulate()
        other, session = Other(), Session()
        assert other.subscribe_sharing() == 0
        state = session.start().state
        kept = allocate(8)
        late = Other()
        joined = late.subscribe_sharing()
        yielded = session.yield_slot("a tool that shares", shares=True)
        allocate(2)
        snapshot = session.snapshot()
        answer(state=state, joined=joined, yielded=yielded, live=snapshot.live_bytes, gaps=len(snapshot.gaps),
               heard=[bool(other.heard), bool(late.heard)])
        session.stop()
        """,
        GPUMEM_SIM_CUPTI="13.2",
    )
    assert found == {"state": "on", "joined": 0, "yielded": False, "live": 10 * MIB, "gaps": 0, "heard": [True, True]}


def test_a_tool_that_does_not_share_needs_the_slot_to_itself_there_too(script: Script) -> None:
    found = script(
        """
        simulate()
        other, session = Other(), Session()
        session.start()
        refused = other.subscribe()
        yielded = session.yield_slot("torch.profiler")
        answer(refused=refused, yielded=yielded, granted=other.subscribe(), back=session.check())
        session.stop()
        """,
        GPUMEM_SIM_CUPTI="13.2",
    )
    assert found == {"refused": 39, "yielded": True, "granted": 0, "back": False}


def test_no_driver(script: Script) -> None:
    found = script("""
        from gpumem_magic.capture import driver
        driver.LIBRARY = "libcuda-that-is-nowhere.so.1"
        session = Session()
        status = session.start()
        span = session.open_span(label="cell")
        session.close_span(span, label="cell")
        report = session.report(span)
        answer(state=status.state, reason=status.reason, threads=our_threads(), check=session.check(),
               delta=report.delta_bytes, gaps=status.gaps)
        session.stop()
    """)
    assert found["state"] == "no GPU"
    assert found["reason"].startswith("No NVIDIA driver was found")
    assert (found["threads"], found["check"], found["delta"], found["gaps"]) == ([], False, 0, 0)


def test_no_cupti(script: Script) -> None:
    found = script("""
        simulate()
        cupti.find_cupti = lambda: None
        session = Session()
        status = session.start()
        (gap,) = session.snapshot().gaps
        answer(state=status.state, reason=status.reason, holder=status.slot_holder, gap=gap.reason)
        session.stop()
    """)
    assert found["state"] == "degraded"
    assert "pip install nvidia-cuda-cupti" in found["reason"]
    assert found["holder"] == ""
    assert found["gap"] == "CUPTI, the library through which driver calls are seen, was not found"


@pytest.mark.parametrize("version", ["9000", "11000", "12000"])
def test_an_old_driver_ends_in_a_sentence_not_in_an_error(script: Script, version: str) -> None:
    found = script(
        """
        simulate()
        session = Session()
        status = session.start()
        span = session.open_span(label="cell")
        kept = allocate(4)
        session.close_span(span, label="cell")
        answer(state=status.state, reason=status.reason, delta=session.report(span).delta_bytes)
        session.stop()
        """,
        GPUMEM_SIM_DRIVER=version,
    )
    assert found["state"] == "on" or found["reason"], found
    assert found["state"] != "on" or found["delta"] == 4 * MIB


@pytest.mark.parametrize(
    ("status", "sentence"), [(35, "older than this CUDA needs"), (100, "sees no GPU"), (999, "returned 999")]
)
def test_a_driver_that_cannot_be_initialised(script: Script, status: int, sentence: str) -> None:
    found = script(f"""
        simulator.activate(devices=1, memory="16GiB")
        simulator.fail_next("cuInit", {status}, times=100)
        session = Session()
        status = session.start()
        answer(state=status.state, reason=status.reason, threads=our_threads())
        session.stop()
    """)
    assert sentence in found["reason"]
    assert found["state"] in ("no GPU", "degraded")
