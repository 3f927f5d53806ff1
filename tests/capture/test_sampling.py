"""Memory over time: what is sampled, what is not known, how often, and that nothing stops it."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture import sampling
from gpumem_magic.capture.sampling import Sampler
from gpumem_magic.model.history import UNKNOWN
from gpumem_magic.session import Session

if TYPE_CHECKING:
    from tests.capture.conftest import Script

MIB = 1 << 20

# ---- frameworks ----


def test_frameworks_that_are_not_imported_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "cupy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert sampling.torch_bytes(0) == (UNKNOWN, UNKNOWN)
    assert sampling.cupy_bytes(0) == UNKNOWN


def test_frameworks_that_are_half_imported_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "cupy"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert sampling.torch_bytes(0) == (UNKNOWN, UNKNOWN)
    assert sampling.cupy_bytes(0) == UNKNOWN


# ---- rows ----


def test_without_devices_there_is_nothing_to_sample() -> None:
    sampler = Sampler()
    sampler.start()
    assert not sampler.is_alive
    assert not sampler.refresh()
    sampler.stop()


def test_samples_on_the_simulated_gpu(script: Script) -> None:
    found = script("""
        simulate(devices=2)
        from gpumem_magic import _core
        from gpumem_magic.capture import driver, sampling
        from gpumem_magic.model.history import HISTORY_DTYPE
        import numpy as np
        _core.begin_recording("", 1 << 30)
        sampler = sampling.Sampler(driver.devices(), interval_s=0.01)
        sampler.start(); sampler.start()
        assert sampler.refresh(30)
        kept = allocate(64)
        assert sampler.refresh()
        simulator.hide_process_memory()
        assert sampler.refresh()
        threads, natives = our_threads(), native_threads()
        sampler.stop(); sampler.stop()
        left = native_threads()
        rows = np.frombuffer(_core.history(0)["rows"], HISTORY_DTYPE)
        first, second = (rows[rows["device"] == device] for device in (0, 1))
        _, _, active = cuda.cuDevicePrimaryCtxGetState(check(cuda.cuDeviceGet(1)))
        count, opened = len(rows), len(_core.history(0)["open"])
        sampler.start(); sampler.refresh(); sampler.stop()
        again = np.frombuffer(_core.history(0)["rows"], HISTORY_DTYPE)
        answer(threads=threads, natives=natives, left=left, problem=sampler.problem, opened=opened,
               grown=[int(first[name].max() - first[name][0])
                      for name in ("used_bytes", "process_bytes", "process_max")],
               reserved=int(first["reserved_bytes"][0]), driver=sorted(set(first["driver_used_bytes"].tolist())),
               hidden=[int(first["process_bytes"][-1]), int(first["process_max"][-1])],
               second=[int(second[name][0]) for name in ("process_bytes", "torch_allocated_bytes", "cupy_used_bytes")],
               blind=sorted({int(value) for name in ("tracked_min", "tracked_max", "tracked_bytes")
                             for value in rows[name]}),
               made_context=active, goes_on=len(again) > count,
               follows=bool((again["begin_ns"][2:] == again["end_ns"][:-2]).all()),
               numbered=again["index"].tolist() == [i // 2 for i in range(len(again))])
    """)
    assert found["threads"] == []
    assert "gpumem-sampler" in found["natives"]
    assert "gpumem-sampler" not in found["left"]
    assert found["problem"] == ""
    assert found["opened"] == 0, "no row is being made once it was stopped"
    assert found["grown"] == [64 * MIB] * 3
    assert found["reserved"] > 0
    assert found["driver"] == [UNKNOWN], "the driver was asked for what NVML tells"
    assert found["hidden"] == [UNKNOWN] * 2
    assert found["second"] == [UNKNOWN] * 3
    assert found["blind"] == [UNKNOWN], "calls were not seen"
    assert found["made_context"] == 0
    assert found["goes_on"]
    assert found["follows"]
    assert found["numbered"]


def test_the_driver_is_asked_where_nvml_does_not_tell(script: Script) -> None:
    found = script("""
        simulate(devices=2)
        from gpumem_magic.model.snapshot import Device
        from gpumem_magic.capture import driver, sampling
        session = Session()
        driver.devices = lambda: tuple(Device(ordinal=i, name="?", total_bytes=None) for i in range(2))
        session.start()
        kept = allocate(64)
        events = session.events
        assert session._sampler.refresh(30) and session._sampler.refresh()
        row, other = session.history(0).rows[-2:]
        _, _, active = cuda.cuDevicePrimaryCtxGetState(check(cuda.cuDeviceGet(1)))
        answer(known=[int(row[name]) for name in ("used_bytes", "process_bytes", "reserved_bytes")],
               driver=int(row["driver_used_bytes"]) - simulator.used_bytes(0), tracked=int(row["tracked_bytes"]),
               utilization=[repr(float(row["utilization"])), int(row["known"])],
               other=int(other["driver_used_bytes"]), active=active, events=session.events - events)
        session.stop()
    """)
    assert found["known"] == [UNKNOWN] * 3
    assert found["driver"] == 0
    assert found["tracked"] == 64 * MIB
    assert found["utilization"] == ["nan", 0]
    assert (found["other"], found["active"]) == (UNKNOWN, 0)
    assert found["events"] == 0, "the sampler's own calls became events"


def test_rows_have_what_the_ledger_has(script: Script) -> None:
    found = script("""
        simulate(devices=8)
        session = Session()
        session.start()
        assert session._sampler.refresh(30)
        kept = allocate(3)
        passing = allocate(128)
        free(passing)
        between = session.history(0)
        assert session._sampler.refresh()
        next_row = session.history(between.next_index)
        use_device(7)
        other = allocate(5)
        assert session._sampler.refresh()
        free(other)
        assert session._sampler.refresh()
        last = session.history(next_row.next_index)
        of = lambda rows, device: [[int(row[name]) for name in ("tracked_min", "tracked_max", "tracked_bytes")]
                                   for row in rows if row["device"] == device]
        levels = session.history_levels()
        snapshot = session.snapshot()
        answer(open=of(between.open, 0), opened=len(between.open), host_open=int(between.host_open["rss_bytes"][0]),
               index=bool((between.open["index"] == between.next_index).all()),
               row=of(next_row.rows, 0)[:1], last=of(last.rows, 7), first=of(last.rows, 0)[-1],
               by_index=next_row.rows["device"][:8].tolist(),
               rss=int(last.host["rss_bytes"][-1]), anonymous=int(last.host["anonymous_bytes"][-1]),
               utilization=[float(last.rows["utilization"][-1]), int(last.rows["known"][-1])],
               levels=sorted(set(levels.rows["level"].tolist())), next=levels.next_index >= last.next_index,
               snapshot=len(snapshot.history) >= len(levels.rows), host=len(snapshot.host_history) > 8)
        session.stop()
        assert session.history(0).next_index == 0 and not len(session.history_levels().rows)
    """)
    assert found["open"] == [[0, 131 * MIB, 3 * MIB]]
    assert (found["opened"], found["index"]) == (8, True)
    assert found["row"] == [[0, 131 * MIB, 3 * MIB]]
    assert [5 * MIB] * 2 in [row[1:] for row in found["last"]]
    assert found["last"][-1][2] == 0
    assert found["first"] == [3 * MIB] * 3
    assert found["by_index"] == list(range(8))
    assert found["rss"] > found["anonymous"] > MIB
    assert found["host_open"] > MIB
    assert found["utilization"] == [0.0, 1]
    assert found["levels"] == list(range(8))
    assert found["next"]
    assert found["snapshot"]
    assert found["host"]


def test_a_pause_is_unknown_and_its_extremes_are_not_those_before(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        assert session._sampler.refresh(30)
        kept = allocate(64)
        session.pause()
        assert session._sampler.refresh()
        paused = session.history(0).rows[-1]
        session.resume()
        assert session._sampler.refresh()
        resumed = session.history(0).rows[-1]
        names = ("tracked_min", "tracked_max", "tracked_bytes")
        answer(paused=[int(paused[name]) for name in names],
               used=int(paused["process_bytes"]) - simulator.used_bytes(0),
               resumed=[int(resumed[name]) for name in names])
        session.stop()
    """)
    assert found["paused"] == [UNKNOWN] * 3
    assert found["used"] == 0
    assert found["resumed"] == [64 * MIB] * 3


# ---- time ----


def test_the_period_is_kept_without_drift(script: Script) -> None:
    found = script("""
        simulate()
        import numpy as np
        session = Session()
        session.sampling_rate(50)
        session.start()
        assert session._sampler.refresh(30)
        begin = session.history(0).next_index
        time.sleep(2.0)
        ends = session.history(begin).rows["end_ns"].astype(np.int64)
        session.sampling_rate(100)
        changed = session.history(0).next_index
        time.sleep(0.5)
        faster = session.history(0).next_index - changed
        session.stop()
        # Where in its period each sample was taken. A busy machine makes single ones late; drift would move all.
        phase = (ends - ends[0]) % 20_000_000
        phase = np.minimum(phase, 20_000_000 - phase)
        third = len(phase) // 3
        early, late = (float(part.min()) / 1e6 for part in (phase[:third], phase[-third:]))
        answer(count=len(ends), early=early, late=late, faster=faster)
    """)
    assert 20 <= found["count"] <= 101
    assert abs(found["late"] - found["early"]) < 6
    assert 10 <= found["faster"] <= 52


@pytest.mark.parametrize("hz", [0.5, 101, float("nan"), -1])
def test_rates_that_cannot_be(hz: float) -> None:
    with pytest.raises(ValueError, match="between 1 and 100"):
        Session().sampling_rate(hz)


def test_news_comes_with_an_event_and_with_a_sample(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.sampling_rate(1)
        session.start()
        assert session._sampler.refresh(30)
        events, index = session.events, session.history(0).next_index
        known = session.wait_for_news(events, index + 5, 10)
        began = time.monotonic()
        same = session.wait_for_news(events, index, 0.05)
        waited = time.monotonic() - began
        seen = []
        def wait():
            news = session.wait_for_news(events, index, 10)
            seen.append((time.monotonic(), news))
        late = []
        for _ in range(5):
            events, index = session.events, session.history(0).next_index
            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.02)
            at = time.monotonic()
            kept = allocate(1)
            thread.join()
            late.append(seen[-1][0] - at)
        kept_events = seen[-1][1][0] - events
        events = session.events
        sampled = session.wait_for_news(events, index, 10)
        answer(known=known == (events - 5, index) or known[1] != index + 5, same=same[0], waited=waited,
               late=sorted(late)[2], came=kept_events, sampled=sampled[1] > index)
        session.stop()
    """)
    assert found["known"]
    assert found["waited"] > 0.04
    assert found["late"] < 2
    assert found["came"] == 1
    assert found["sampled"]


# ---- recordings, forks, ends ----


def test_a_recording_begins_at_index_zero(script: Script) -> None:
    found = script("""
        simulate()
        session = Session()
        session.start()
        assert session._sampler.refresh(30)
        kept = allocate(64)
        assert session._sampler.refresh()
        session.stop()
        session.start()
        assert session._sampler.refresh(30)
        rows = session.history(0).rows
        answer(first=int(rows["index"][0]), tracked=int(rows["tracked_max"].max()), natives=native_threads())
        session.stop()
    """)
    assert (found["first"], found["tracked"]) == (0, 0)
    assert found["natives"].count("gpumem-sampler") == 1


def test_a_forked_child_has_no_sampler_and_can_have_one(script: Script) -> None:
    found = script(
        """
        simulate()
        session = Session()
        session.sampling_rate(100)
        session.start()
        assert session._sampler.refresh(30)
        for _ in range(20):
            child = os.fork()
            if not child:
                from gpumem_magic import _core
                assert "gpumem-sampler" not in native_threads()
                assert session.history(0).next_index == 0 and not session._sampler
                assert not _core.sample_now(0.01)
                _core.stop_sampling()
                assert _core.wait_for_news(0, 0, 0.01)[1] == 0
                _core.begin_recording("", 1 << 30)
                _core.start_sampling([(0, "")], 10_000_000)
                assert _core.sample_now(30)
                assert session.history(0).rows["index"][0] == 0
                _core.stop_sampling()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        before = session.history(0).next_index
        assert session._sampler.refresh()
        answer(goes_on=session.history(0).next_index > before)
        session.stop()
        """
    )
    assert found["goes_on"]


@pytest.mark.parametrize("end", ["os._exit(0)", "ctypes.CDLL(None).exit(0)", "pass"])
def test_a_process_may_end_while_it_samples(script: Script, end: str) -> None:
    script(f"""
        simulate()
        from gpumem_magic import _core
        session = Session()
        session.sampling_rate(100)
        session.start()
        time.sleep(0.1)
        answer()
        sys.stdout.flush()
        {end}
    """)


# ---- frameworks while it samples ----


def test_frameworks_are_asked_once_they_are_imported(script: Script) -> None:
    found = script("""
        simulate(devices=2)
        import types
        session = quick(Session(), 0.02)
        session.start()
        time.sleep(0.1)
        before = our_threads()
        calls = []
        def allocated(ordinal):
            calls.append(time.monotonic())
            return 100 + ordinal
        torch = types.ModuleType("torch")
        torch.cuda = types.SimpleNamespace(
            is_initialized=lambda: True, memory_allocated=allocated, memory_reserved=lambda ordinal: 200 + ordinal)
        sys.modules["torch"] = torch
        assert until(lambda: "gpumem-frameworks" in our_threads())
        assert session._sampler.refresh(30)
        rows = session.history(0).rows[-2:]
        time.sleep(0.5)
        slow = len(calls)
        session.watch(); session.watch(); session.unwatch()
        time.sleep(1)
        fast = len(calls) - slow
        session.unwatch()
        time.sleep(0.2)
        slow_again = len(calls)
        time.sleep(0.5)
        answer(before=before, torch=rows["torch_allocated_bytes"].tolist(), pool=rows["torch_reserved_bytes"].tolist(),
               first=int(session.history(0).rows["torch_allocated_bytes"][0]), slow=slow, fast=fast,
               slow_again=len(calls) - slow_again, problem=session._sampler.problem)
        session.stop()
        assert our_threads() == []
    """)
    assert found["before"] == ["gpumem-heartbeat"]
    assert found["torch"] == [100, 101]
    assert found["pool"] == [200, 201]
    assert found["first"] == UNKNOWN
    assert found["slow"] <= 6 < found["fast"]  # of two devices; one round was ours
    assert found["slow_again"] <= 2
    assert found["problem"] == ""


# ---- reports of cells whose calls were not seen ----


REPORTED = """
        simulate(devices=2)
        find_cupti, cupti.find_cupti = cupti.find_cupti, lambda: None
        session = Session()
        session.start()
        assert session._sampler.refresh(30)  # its first sample loads NVML, which takes long on a busy machine
        early = allocate(16)
        span = session.open_span(label="In [1]", first_line="train()")
        kept, passing = allocate(64), allocate(128)
        session._sampler.refresh()
        free(passing)
        inner = session.open_span(label="inner")
        session.close_span(inner, label="inner")
        session.close_span(span, label="In [1]", first_line="train()")
        late = allocate(512)
"""


def test_a_cell_is_reported_from_samples_where_calls_are_not_seen(script: Script) -> None:
    found = script(
        REPORTED
        + """
        snapshot = session.snapshot()
        report = session.report(span)
        first = report.devices[0]
        first.timeline.self_check()
        from gpumem_magic.views.cell_report import render_cell_report
        text = " ".join(render_cell_report(report)["text/plain"].split())
        answer(delta=first.delta_bytes, peak=first.peak_bytes - first.begin_bytes, devices=len(report.devices),
               drawn=first.timeline.peak_bytes == first.peak_bytes,
               ends=bool(first.timeline.seconds[-1] == report.duration_s),
               allocators=len(report.allocators), held=report.held_bytes, degraded=report.process.degraded,
               notes=report.notes, gaps=len(report.gaps), marks=[mark.label for mark in report.marks], text=text,
               failures=report.failures, samples=int((snapshot.history["level"] == 0).sum()) >= 8)
        session.stop()
        """
    )
    assert (found["delta"], found["peak"]) == (64 * MIB, 192 * MIB)
    assert found["drawn"]
    assert found["ends"]
    assert (found["allocators"], found["held"], found["failures"]) == (0, 0, 0)
    assert found["degraded"].startswith("CUPTI, the library")
    assert (found["gaps"], found["marks"]) == (1, ["inner"])
    sentence = "From samples every 100 ms: peaks between samples are not seen; who allocated is not known"
    assert found["notes"][0].startswith(sentence)
    assert sentence in found["text"]
    assert found["samples"]
    # Nothing is known of this process on the second device, which it does not use.
    assert found["notes"][-1].startswith("GPU 1: this is the memory of all processes")


def test_a_cell_that_ran_after_cupti_came_back_is_reported_from_its_calls(script: Script) -> None:
    found = script(
        REPORTED
        + """
        cupti.find_cupti = find_cupti
        session.resume()
        alive = our_threads()
        after = session.open_span(label="In [2]")
        kept_too = allocate(32)
        session.close_span(after, label="In [2]")
        old, new = session.report(span), session.report(after)
        answer(state=session.state, alive=alive, old=[old.delta_bytes, len(old.allocators), old.process.degraded != ""],
               new=[new.delta_bytes, len(new.allocators), new.process.degraded, len(new.gaps)],
               reason=old.gaps[0].reason)
        session.stop()
        answer_after = our_threads()
        assert answer_after == []
        """
    )
    assert found["state"] == "on"
    assert found["alive"] == ["gpumem-heartbeat"]
    assert found["old"] == [64 * MIB, 0, True]
    assert found["new"] == [32 * MIB, 1, "", 0]


def test_other_processes_are_said_to_be_counted_where_ours_is_not_told(script: Script) -> None:
    found = script("""
        simulate()
        simulator.hide_process_memory()
        simulator.set_other_process_bytes(0, 4242, 100 * MIB)
        cupti.find_cupti = lambda: None
        session = Session()
        session.start()
        assert session._sampler.refresh(30)
        span = session.open_span(label="cell")
        kept = allocate(64)
        simulator.set_other_process_bytes(0, 4242, 300 * MIB)
        session.close_span(span, label="cell")
        report = session.report(span)
        answer(delta=report.delta_bytes, notes=report.notes)
        session.stop()
    """)
    assert found["delta"] == 264 * MIB
    assert any("all processes" in note for note in found["notes"])


def test_samples_are_taken_while_a_profiler_keeps_cupti(script: Script) -> None:
    found = script("""
        simulate()
        session = quick(Session(), 0.02)
        session.start()
        other = Other()
        with session._lock:  # or a beat in between would take it again
            session.yield_slot("torch.profiler")
            other.subscribe()
        assert until(lambda: "holds CUPTI" in session.status().reason)
        assert "gpumem-sampler" in native_threads()
        assert session._sampler.refresh(30)  # its first sample loads NVML, which takes long on a busy machine
        span = session.open_span(label="cell")
        kept = allocate(64)
        session.close_span(span, label="cell")
        report = session.report(span)
        state, reason = session.state, session.status().reason
        other.unsubscribe()
        assert until(lambda: session.state == "on")
        answer(state=state, reason=reason, delta=report.delta_bytes, notes=report.notes, threads=our_threads())
        session.stop()
    """)
    assert found["state"] == "yielded"
    assert "holds CUPTI" in found["reason"]
    assert found["delta"] == 64 * MIB
    assert found["notes"][0].startswith("From samples")
    assert found["threads"] == ["gpumem-heartbeat"]
