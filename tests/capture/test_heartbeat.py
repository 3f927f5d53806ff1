"""The thread that watches the subscription: there while it is needed, gone when it is not, harmless in between."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture.heartbeat import Heartbeat

if TYPE_CHECKING:
    from tests.capture.conftest import Script

MIB = 1 << 20


def test_beats_until_it_is_stopped() -> None:
    beats = threading.Semaphore(0)
    pulse = Heartbeat(beats.release, interval_s=0.001)
    pulse.start()
    pulse.start()
    assert all(beats.acquire(timeout=5) for _ in range(3))
    assert sum(thread.name == "gpumem-heartbeat" for thread in threading.enumerate()) == 1
    pulse.stop()
    assert not pulse.is_alive
    assert "gpumem-heartbeat" not in {thread.name for thread in threading.enumerate()}
    pulse.stop()


def test_stopping_does_not_wait_for_the_interval() -> None:
    pulse = Heartbeat(lambda: None, interval_s=60)
    pulse.start()
    began = time.monotonic()
    pulse.stop()
    assert time.monotonic() - began < 1


def test_a_failing_beat_is_remembered_and_ends_nothing() -> None:
    beats = threading.Semaphore(0)

    def beat() -> None:
        beats.release()
        raise ValueError("no")

    pulse = Heartbeat(beat, interval_s=0.001)
    pulse.start()
    assert all(beats.acquire(timeout=5) for _ in range(2))
    pulse.stop()
    assert pulse.problem == "ValueError('no')"


def test_may_be_started_again() -> None:
    beats = threading.Semaphore(0)
    pulse = Heartbeat(beats.release, interval_s=0.001)
    for _ in range(2):
        pulse.start()
        assert beats.acquire(timeout=5)
        pulse.stop()


def test_a_session_has_the_thread_from_start_to_stop(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        before = our_threads()
        session.start()
        during = our_threads()
        session.stop()
        answer(before=before, during=during, after=our_threads())
    """)
    assert found == {"before": [], "during": ["gpumem-heartbeat"], "after": []}


def test_a_process_may_end_without_stopping(script: Script) -> None:
    """Threads of ours that still run while the interpreter goes would take it down in native code."""
    found = script("""
        import atexit, types
        atexit.register(lambda: answer(states=states, threads=[*our_threads(), *native_threads()]))  # runs last
        sys.modules["cupy"] = types.ModuleType("cupy")
        simulate()
        cupti_found, cupti.find_cupti = cupti.find_cupti, lambda: None
        blind = quick(Session(), 0.0001)
        blind.sampling_rate(100)
        blind.start()
        cupti.find_cupti = cupti_found
        watching = quick(Session(), 0.0001)
        watching.start()
        time.sleep(0.2)
        states = [blind.state, watching.state]
        assert our_threads() == ["gpumem-frameworks"] * 2 + ["gpumem-heartbeat"] * 2, our_threads()
        assert "gpumem-sampler" in native_threads()
    """)
    assert found == {"states": ["degraded", "on"], "threads": []}


def test_stopping_a_session_never_waits_for_a_beat_that_waits_for_it(script: Script) -> None:
    found = script("""
        simulate()
        took = []
        for _ in range(10):
            session = quick(Session(), 0.0001)
            session.start()
            with session._lock:
                time.sleep(0.02)
                began = time.monotonic()
                session.stop()
                took.append(time.monotonic() - began)
            assert our_threads() == []
        answer(longest=max(took))
    """)
    assert found["longest"] < 1


def test_nothing_hangs_when_all_happens_at_once(script: Script) -> None:
    """Beats, losses, loans, pauses and snapshots against threads that allocate, take the GIL and collect garbage."""
    found = script("""
        import gc
        sys.setswitchinterval(1e-5)
        simulate()
        session = quick(Session(), 0.0005)
        session.start()
        ended = threading.Event()
        errors, pairs = [], [0] * 4

        def guarded(work, *args):
            try:
                use_device(0)
                while not ended.is_set():
                    work(*args)
            except BaseException as error:
                errors.append(repr(error))

        def churn(index):
            free(allocate(1 + index))
            pairs[index] += 1

        def disturb():
            session.snapshot().self_check()
            if session.yield_slot("another tool"):
                time.sleep(0.001)
            session.check()
            session.pause()
            session.resume()
            session.status()

        def lose():
            other.finalize()
            time.sleep(0.02)

        def import_things():
            sys.modules.pop("colorsys", None)
            import colorsys
            gc.collect()

        other = Other()
        work = [(churn, 0), (churn, 1), (churn, 2), (disturb,), (lose,), (import_things,)]
        threads = [threading.Thread(target=guarded, args=each) for each in work]
        for thread in threads: thread.start()
        time.sleep(4)
        ended.set()
        for thread in threads: thread.join(20)
        hung = [thread.name for thread in threads if thread.is_alive()]
        back = until(session.check, 2)
        kept = allocate(3)
        live = [int(size) for size in session.snapshot().allocations["size"]]
        session.stop()
        answer(hung=hung, errors=errors, worked=min(pairs[:3]) > 50, back=back, live=live, threads=our_threads(),
               problem=session._heartbeat.problem)
    """)
    assert found == {
        "hung": [],
        "errors": [],
        "worked": True,
        "back": True,
        "live": [3 * MIB],
        "threads": [],
        "problem": "",
    }


FORKING = """
        def told_by_child(work):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.write(writing, json.dumps(work()).encode())
                finally:
                    os._exit(0)
            os.close(writing)
            told = b"".join(iter(lambda: os.read(reading, 65536), b""))
            os.waitpid(pid, 0)
            return json.loads(told)

        def in_child():
            state, threads = session.state, our_threads()
            status = session.start()
            live = None
            if status.state == "on":
                use_device(0)
                kept = allocate(4)
                live = session.snapshot().live_bytes
            session.snapshot().self_check()
            mine = status.recording.endswith(str(os.getpid()))
            told = dict(state=state, threads=threads, now=status.state, reason=status.reason, mine=mine, live=live,
                        alive=our_threads())
            session.stop()
            return told | {"stopped": our_threads(), "patched": hasattr(threading.Thread.start, "_gpumem")}
"""


def test_a_child_forked_before_cuda_was_used_records_for_itself(script: Script) -> None:
    found = script(
        FORKING
        + """
        simulator.activate(devices=1, memory="16GiB")
        from cuda.bindings import driver as cuda
        session = Session()
        answer(child=told_by_child(in_child), parent=session.start().state)
        session.stop()
        """
    )
    child = found["child"]
    assert (child["state"], child["now"], child["live"], child["mine"]) == ("off", "on", 4 * MIB, True)
    assert (child["threads"], child["alive"], child["stopped"]) == ([], ["gpumem-heartbeat"], [])
    assert not child["patched"]
    assert found["parent"] == "on"


@pytest.mark.parametrize("held", [False, True])
def test_a_child_forked_while_tracking_is_off_and_says_why_it_stays_so(script: Script, held: bool) -> None:
    """Also when another thread held the session's lock at the moment of the fork."""
    found = script(
        FORKING
        + f"""
        simulate()
        session = quick(Session(), 0.0001)
        session.start()
        allocate(8)
        has, ended = threading.Event(), threading.Event()

        def hold():
            with session._lock:
                has.set()
                ended.wait(30)

        holder = threading.Thread(target=hold)
        if {held}:
            holder.start()
            has.wait()
        children = [told_by_child(in_child) for _ in range(3)]
        ended.set()
        if {held}:
            holder.join()
        allocate(2)
        answer(children=children, state=session.state, live=session.snapshot().live_bytes, threads=our_threads())
        session.stop()
        """
    )
    for child in found["children"]:
        assert (child["state"], child["now"], child["mine"]) == ("off", "no GPU", True)
        assert child["reason"].startswith("This process was forked from one that uses CUDA")
        assert (child["threads"], child["alive"], child["stopped"], child["patched"]) == ([], [], [], False)
    assert (found["state"], found["live"], found["threads"]) == ("on", 10 * MIB, ["gpumem-heartbeat"])
