"""stop() undoes start(), however often and whatever goes on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended


def test_a_hundred_times_leaves_nothing(program: Callable[..., Ended]) -> None:
    found = program(
        """
        import gc, types
        import psutil
        process = psutil.Process()
        originals = {name: getattr(threading.Thread, name) for name in ("start", "_bootstrap_inner")}

        def once():
            gpumem.start()
            with gpumem.track("round"):
                free(alloc(4096))
            gpumem.snapshot()
            gpumem.stop()

        def left():
            gc.collect()
            with open("/proc/self/maps") as maps:
                lines = [line.split(maxsplit=5)[-1].strip() for line in maps]
            return {
                "threads": threading.active_count(), "native": process.num_threads(), "files": process.num_fds(),
                "segments": sum("gpumem" in line and ".bin" in line for line in lines), "maps": len(lines),
                "resident": process.memory_info().rss,
            }

        def can_subscribe():
            cupti = ctypes.CDLL("libcupti.so.13")
            subscriber = ctypes.c_void_p()
            nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)()
            status = cupti.cuptiSubscribe(ctypes.byref(subscriber), nothing or ctypes.c_void_p(1), None)
            if status == 0: cupti.cuptiUnsubscribe(subscriber)
            return status

        for _ in range(20): once()  # imports, caches and pools of every library settle
        before = left()
        for _ in range(100): once()
        after = left()
        patches = [name for name, method in originals.items() if getattr(threading.Thread, name) is not method]
        answer(before=before, after=after, patches=patches, subscribe=can_subscribe())
        """,
        timeout=120,
    ).answer
    before, after = found["before"], found["after"]
    assert found["patches"] == []
    assert found["subscribe"] == 0
    assert after["segments"] == 0
    assert after["threads"] == before["threads"] == 1
    assert (after["native"], after["files"]) == (before["native"], before["files"])
    assert after["maps"] <= before["maps"] + 4  # the allocator of the C library may map an arena
    assert after["resident"] - before["resident"] < 8 << 20


def test_stop_with_callbacks_in_flight(program: Callable[..., Ended]) -> None:
    found = program(
        """
        threads = native_threads()
        assert threads.start_threads(8, context) == 0
        rounds = []
        for number in range(40):
            gpumem.start()
            seen = _core.health()["events"]
            while _core.health()["events"] < seen + 200: pass
            snapshot = gpumem.snapshot()
            snapshot.self_check()
            rounds.append(len(snapshot.events))
            gpumem.stop()
            assert not _core.health()["on"] and not _core.health()["subscribed"]
        threads.stop_threads()
        answer(rounds=rounds, failures=totals(threads)[3])
        """,
        timeout=120,
    ).answer
    assert len(found["rounds"]) == 40
    assert min(found["rounds"]) >= 200
    assert found["failures"] == 0


def test_pause_and_resume_under_load(program: Callable[..., Ended]) -> None:
    found = program(
        """
        from gpumem_magic import api
        threads = native_threads()
        gpumem.start()
        assert threads.start_threads(6, context) == 0
        for number in range(60):
            api.session().pause()
            paused = _core.health()["on"]
            assert not paused
            api.session().resume()
        threads.stop_threads()
        snapshot = gpumem.snapshot()
        snapshot.self_check()
        answer(live=snapshot.live_bytes, truth=totals(threads)[2], gaps=len(snapshot.gaps),
               open=[gap.end_ns for gap in snapshot.gaps].count(0))
        """,
        timeout=120,
    ).answer
    assert found["gaps"] == 60
    assert found["open"] == 0
    assert found["live"] <= found["truth"]  # births in a gap are missed; deaths are asked for afterwards
