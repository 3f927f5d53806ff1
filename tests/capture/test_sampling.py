"""Samples for when calls cannot be seen: what is known, what is not, and for how long it is kept."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic.capture import sampling
from gpumem_magic.capture.nvml import DeviceMemory, Nvml
from gpumem_magic.capture.sampling import SampleBuffer, Sampler, thinned
from gpumem_magic.model.samples import SAMPLE_DTYPE, UNKNOWN, level

if TYPE_CHECKING:
    from tests.capture.conftest import Script

MIB = 1 << 20
TENTH_NS = 100_000_000


def rows(*levels: int, step_ns: int = TENTH_NS) -> np.ndarray:
    """Samples of device 0 of which NVML told these ``process_bytes``."""
    table = np.full(len(levels), UNKNOWN, SAMPLE_DTYPE)
    table["device"] = 0
    table["time_ns"] = 10**12 + np.arange(len(levels)) * step_ns
    table["process_bytes"] = levels
    return table


# ---- the buffer ----


def test_a_buffer_keeps_everything_while_there_is_room() -> None:
    buffer = SampleBuffer(100)
    table = rows(*range(100))
    for row in table:
        buffer.append(row)
    assert (buffer.rows() == table).all()


@settings(max_examples=50, deadline=None)
@given(
    st.integers(16, 200),
    st.integers(1, 64),
    st.lists(st.integers(UNKNOWN, 10**12), min_size=300, max_size=600),
    st.integers(1, 10**10),
)
def test_a_full_buffer_stays_bounded_in_order_and_true(
    capacity: int, resolution: int, levels: list[int], step_ns: int
) -> None:
    table = rows(*levels, step_ns=step_ns)
    buffer = SampleBuffer(capacity, resolution=resolution)
    for row in table:
        buffer.append(row)
    kept = buffer.rows()
    assert 0 < len(kept) <= capacity
    assert (np.diff(kept["time_ns"].astype(np.int64)) > 0).all()
    assert np.isin(kept, table).all(), "a sample was made up"
    assert kept[-1] == table[-1]
    assert kept["process_bytes"].max() == max(levels), "the peak is gone"
    assert kept["process_bytes"].min() == min(levels)


def test_hours_fit_and_a_spike_of_one_sample_stays_visible() -> None:
    buffer = SampleBuffer(4096, resolution=256)
    levels = np.full(100_000, 5 * MIB)
    levels[12_345] = 99 * MIB
    table = rows(*levels)
    for row in table:
        buffer.append(row)
    kept = buffer.rows()
    assert len(kept) <= 4096
    assert (kept["process_bytes"] == 99 * MIB).sum() == 1
    assert kept["time_ns"][0] < table["time_ns"][300], "the begin is gone"
    assert np.diff(kept["time_ns"][-200:].astype(np.int64)).max() == TENTH_NS, "the latest were thinned"


def test_thinning_leaves_a_short_table_alone() -> None:
    table = rows(1, 2, 3)
    assert thinned(table, 16) is table


def test_the_level_is_the_most_telling_measure_that_is_known() -> None:
    table = rows(7, UNKNOWN, UNKNOWN, UNKNOWN)
    table["used_bytes"] = [70, 71, UNKNOWN, UNKNOWN]
    table["driver_used_bytes"] = [700, 701, 702, UNKNOWN]
    assert level(table).tolist() == [7, 71, 702, UNKNOWN]


# ---- NVML ----


class Library:
    """An NVML as some machine has it. ``answers`` by function; what is missing is refused."""

    nvmlMemory_v2 = 2  # noqa: N815  (NVML's name)

    def __init__(self, **answers: Any) -> None:
        self.answers = {"nvmlDeviceGetHandleByUUID": lambda uuid: uuid} | answers
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml") or name not in self.answers:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            return self.answers[name](*arguments)

        return call


def refuse(*_: object) -> Any:
    raise RuntimeError("Not Supported")


def memory_info(_handle: object, version: int = 1) -> Any:
    if version == 2:
        return types.SimpleNamespace(total=100, used=30, reserved=6, free=64)
    return types.SimpleNamespace(total=100, used=36, free=64)


def only_first_version(_handle: object, version: int = 1) -> Any:
    if version == 2:
        refuse()
    return memory_info(None)


def test_used_and_reserved_are_told_apart() -> None:
    found = Nvml(Library(nvmlDeviceGetMemoryInfo=memory_info)).memory("GPU-1")
    assert found == DeviceMemory(total_bytes=100, used_bytes=30, reserved_bytes=6)


def test_an_older_nvml_does_not_tell_them_apart() -> None:
    found = Nvml(Library(nvmlDeviceGetMemoryInfo=only_first_version)).memory("GPU-1")
    assert found == DeviceMemory(total_bytes=100, used_bytes=36, reserved_bytes=None)


@pytest.mark.parametrize("answers", [{}, {"nvmlDeviceGetMemoryInfo": refuse}, {"nvmlDeviceGetHandleByUUID": refuse}])
def test_what_nvml_refuses_is_unknown(answers: dict[str, Any]) -> None:
    nvml = Nvml(Library(**answers))
    assert nvml.memory("GPU-1") is None
    assert nvml.process_bytes("GPU-1") is None
    assert nvml.memory("") is None
    nvml.close()


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([], None),
        ([(1, 50)], None),
        ([(42, None)], None),
        ([(1, 50), (42, 7)], 7),
        ([(42, 0)], 0),
        ([(42, 7), (42, 8)], 15),
    ],
)
def test_an_absent_process_is_unknown_not_empty(processes: list[tuple[int, int | None]], expected: int | None) -> None:
    listed = [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes]
    nvml = Nvml(Library(nvmlDeviceGetComputeRunningProcesses=lambda _: listed))
    assert nvml.process_bytes("GPU-1", pid=42) == expected


def test_a_mig_instance_is_found_and_asked_for_once() -> None:
    def find(uuid: str) -> str:
        return uuid if uuid == "MIG-1" else refuse()

    library = Library(nvmlDeviceGetHandleByUUID=find, nvmlDeviceGetMemoryInfo=memory_info)
    nvml = Nvml(library)
    assert nvml.memory("GPU-1") is not None
    assert nvml.memory("GPU-1") is not None
    assert [call for call in library.asked if "Handle" in call[0]] == [
        ("nvmlDeviceGetHandleByUUID", "GPU-1"),
        ("nvmlDeviceGetHandleByUUID", "MIG-1"),
    ]


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


# ---- the thread ----


def test_without_devices_there_is_nothing_to_sample() -> None:
    sampler = Sampler()
    sampler.start()
    assert not sampler.is_alive
    assert not sampler.refresh()
    assert len(sampler.samples()) == 0
    sampler.stop()


def test_samples_on_the_simulated_gpu(script: Script) -> None:
    found = script("""
        simulate(devices=2)
        from gpumem_magic.capture import driver, sampling
        sampler = sampling.Sampler(driver.devices(), interval_s=0.005)
        base = simulator.used_bytes(0)
        sampler.start(); sampler.start()
        assert sampler.refresh()
        kept = allocate(64)
        assert sampler.refresh()
        used = simulator.used_bytes(0)
        simulator.hide_process_memory()
        assert sampler.refresh()
        threads = our_threads()
        sampler.stop(); sampler.stop()
        rows = sampler.samples()
        first, second = (rows[rows["device"] == device] for device in (0, 1))
        cuda.cuDeviceGetCount()
        _, _, active = cuda.cuDevicePrimaryCtxGetState(check(cuda.cuDeviceGet(1)))
        count = len(rows)
        sampler.start(); sampler.refresh(); sampler.stop()
        answer(threads=threads, after=our_threads(), writeable=rows.flags.writeable, problem=sampler.problem,
               grown=[int(first[name].max() - first[name][0])
                      for name in ("used_bytes", "driver_used_bytes", "process_bytes")],
               driver=int(first["driver_used_bytes"].max()) - used, hidden=int(first["process_bytes"][-1]),
               second=[int(second[name][0])
                       for name in ("driver_used_bytes", "process_bytes", "torch_allocated_bytes")],
               made_context=active, goes_on=len(sampler.samples()) > count,
               sorted=bool((rows["time_ns"][1:] >= rows["time_ns"][:-1]).all()))
    """)
    assert found["threads"] == ["gpumem-sampler"]
    assert found["after"] == []
    assert not found["writeable"]
    assert found["problem"] == ""
    assert found["grown"] == [64 * MIB] * 3
    assert found["driver"] == 0
    assert found["hidden"] == UNKNOWN
    assert found["second"] == [UNKNOWN] * 3
    assert found["made_context"] == 0
    assert found["goes_on"]
    assert found["sorted"]


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
               failures=report.failures, samples=len(snapshot.samples) >= 4)
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
        assert until(lambda: "gpumem-sampler" in our_threads())
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
