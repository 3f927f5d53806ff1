"""A Session's tables without the allocations, for who refreshes them every second; and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.capture.conftest import Script


def test_a_snapshot_without_the_allocations_has_everything_else(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        from gpumem_magic import _core
        assert _core.sample_now(10)
        before = session.events
        span = session.open_span(label="In [1]")
        kept = [allocate(1) for _ in range(5)]
        free(kept.pop())
        session.close_span(span, label="In [1]")
        light, whole = session.snapshot(allocations=False), session.snapshot("named")
        whole.self_check()
        answer(light=len(light.allocations), whole=len(whole.allocations), name=whole.name,
               same=[getattr(light, name).tobytes() == getattr(whole, name).tobytes()
                     for name in ("sites", "meters", "mappings", "series")],
               live=[light.live_bytes, whole.live_bytes], cells=light.cells == whole.cells,
               counters=light.counters == whole.counters, history=light.history is not None,
               events=session.events - before, counted=session.events == whole.counters["events"])
        session.stop()
        assert session.events == 0
    """)
    assert (found["light"], found["whole"], found["name"]) == (0, 4, "named")
    assert found["same"] == [True] * 4
    assert found["live"] == [4 << 20] * 2
    assert found["cells"]
    assert found["counters"]
    assert found["history"]
    assert (found["events"], found["counted"]) == (8, True)


def test_a_thread_keeps_its_name_when_it_has_ended(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        numbers = []
        for name in ("loader", "trainer"):
            thread = threading.Thread(target=lambda: numbers.append(threading.get_native_id()), name=name)
            thread.start()
            thread.join()
        main = session.thread_name(threading.get_native_id())
        names = [session.thread_name(number) for number in numbers] if len(set(numbers)) == 2 else ["loader", "trainer"]
        answer(names=names, main=main, nobody=session.thread_name(1))
        session.stop()
    """)
    assert found == {"names": ["loader", "trainer"], "main": "MainThread", "nobody": "thread 1"}
