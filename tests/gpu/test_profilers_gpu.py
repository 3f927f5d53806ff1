"""Profilers on a real GPU while the tracker is on: they see what they always see, and we see the rest."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

COMMON = """
import os, threading, time
MIB = 1 << 20

def raw(mib):
    return check(cuda.cuMemAlloc(mib * MIB))

def state():
    return gpumem.status().state

def gaps():
    return [(gap.reason, gap.end_ns > 0) for gap in gpumem.snapshot().gaps]

def sees_everything():
    '''What a tracked allocation adds to the live set is what it takes from the device.'''
    tracked, before = live(), used()
    kept = raw(64)
    exact = live() - tracked == used() - before == 64 * MIB
    check(cuda.cuMemFree(kept))
    return exact and live() == tracked
"""
TORCH = (
    COMMON
    + """
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

BOTH = [ProfilerActivity.CPU, ProfilerActivity.CUDA]

def work():
    x = torch.randn(512, 512, device="cuda")
    return (x @ x).sum().item()

def kernels(profile):
    return sum(event.device_type == DeviceType.CUDA for event in profile.events())

def profiled(activities=BOTH, inside=work):
    with torch.profiler.profile(activities=activities) as profile:
        inside()
    return kernels(profile)
"""
)


@needs_torch
@pytest.mark.parametrize("early", [True, False])
def test_torch_profiles_see_cuda_and_tracking_goes_on_after_each(on_gpu: OnGpu, early: bool) -> None:
    """Started before torch is imported, and after it used CUDA."""
    found = on_gpu(
        ("gpumem.start()\n" if early else "")
        + TORCH
        + """
work()
gpumem.start()
found = {"before": sees_everything(), "courtesy": gpumem.status().profiler_courtesy}
stays, goes = raw(32), raw(48)
tracked = live()

def inside():
    global missed
    work()
    missed = raw(96)
    check(cuda.cuMemFree(goes))

found["lent"] = []
counts, took = [], []
for step in (inside, work, work):
    with torch.profiler.profile(activities=BOTH) as profile:
        found["lent"].append(state())
        step()
        began = time.monotonic()
    took.append(time.monotonic() - began)
    counts.append(kernels(profile))
    found.setdefault("states", []).append(state())
    found.setdefault("exact", []).append(sees_everything())
sizes = gpumem.snapshot().allocations["size"].tolist()
answer(**found, counts=counts, took=took, gaps=gaps(), change=live() - tracked, sizes=sizes,
       library=gpumem.status().library, warnings=gpumem.status().warnings)
gpumem.stop()
assert "TEARDOWN_CUPTI" not in os.environ
"""
    )
    assert found["before"]
    assert found["courtesy"] == ["torch.profiler"]
    assert found["lent"] == ["yielded"] * 3
    assert min(found["counts"]) >= 3, found["counts"]
    assert found["states"] == ["on"] * 3, found
    assert found["exact"] == [True] * 3
    assert found["gaps"] == [["CUPTI was lent to torch.profiler", True]] * 3
    # What was freed in a gap is gone, what was allocated in one is not known.
    assert 32 * MIB in found["sizes"]
    assert 48 * MIB not in found["sizes"]
    assert 96 * MIB not in found["sizes"]
    assert found["warnings"] == []
    assert max(found["took"]) < 10, found["took"]


@needs_torch
def test_a_torch_profile_of_the_cpu_alone_does_not_spoil_later_ones(on_gpu: OnGpu) -> None:
    found = on_gpu(
        TORCH
        + """
gpumem.start()
work()
first = profiled([ProfilerActivity.CPU])
after_first = state()
second = profiled()
answer(first=first, second=second, after_first=after_first, state=state(), exact=sees_everything())
gpumem.stop()
"""
    )
    assert found["first"] == 0
    assert found["second"] >= 3
    assert found["state"] == "on", found
    assert found["exact"]


@needs_torch
def test_a_torch_profile_before_cuda_is_used(on_gpu: OnGpu) -> None:
    found = on_gpu(
        "gpumem.start()\n"
        + TORCH
        + """
counts = [profiled(), profiled()]
answer(counts=counts, state=state(), exact=sees_everything())
gpumem.stop()
"""
    )
    assert min(found["counts"]) >= 3
    assert found["state"] == "on"
    assert found["exact"]


@needs_torch
def test_a_torch_schedule_with_several_windows(on_gpu: OnGpu) -> None:
    found = on_gpu(
        TORCH
        + """
gpumem.start()
work()
counts = []
schedule = torch.profiler.schedule(wait=2, warmup=1, active=2, repeat=3)
with torch.profiler.profile(activities=BOTH, schedule=schedule,
                            on_trace_ready=lambda profile: counts.append(kernels(profile))) as profile:
    for _ in range(16):
        work()
        profile.step()
answer(counts=counts, state=state(), exact=sees_everything(), gaps=gaps())
gpumem.stop()
"""
    )
    assert len(found["counts"]) == 3
    assert min(found["counts"]) >= 6, found["counts"]
    assert found["state"] == "on"
    assert found["exact"]
    assert all(ended for _, ended in found["gaps"])


@needs_torch
def test_a_user_who_forbids_the_teardown_gets_the_profile_and_is_told(on_gpu: OnGpu) -> None:
    found = on_gpu(
        TORCH
        + """
gpumem.start()
work()
counts = [profiled(), profiled()]
status = gpumem.status()
with gpumem.track("blind") as block:
    kept = raw(64)
answer(counts=counts, state=status.state, reason=status.reason, holder=status.slot_holder, gaps=gaps())
gpumem.stop()
""",
        TEARDOWN_CUPTI="0",
    )
    assert min(found["counts"]) >= 3
    assert found["state"] == "yielded"
    assert found["holder"] == "torch.profiler"
    assert found["gaps"] == [["CUPTI was lent to torch.profiler", False]]


@needs_torch
def test_cuda_graphs_survive_profiles(on_gpu: OnGpu) -> None:
    found = on_gpu(
        TORCH
        + """
gpumem.start()
work()
x = torch.randn(256, 256, device="cuda")
stream = torch.cuda.Stream()
with torch.cuda.stream(stream):
    for _ in range(3):
        y = x @ x
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = x @ x
counts, right = [], []
for _ in range(3):
    counts.append(profiled(inside=lambda: (graph.replay(), torch.cuda.synchronize())))
    x.normal_()
    graph.replay()
    right.append(bool(torch.allclose(y, x @ x, rtol=1e-2, atol=1e-2)))
answer(counts=counts, right=right, state=state(), exact=sees_everything())
gpumem.stop()
"""
    )
    assert min(found["counts"]) >= 1
    assert found["right"] == [True] * 3
    assert found["state"] == "on"
    assert found["exact"]


@needs_torch
def test_profiles_while_other_threads_allocate_and_launch(on_gpu: OnGpu) -> None:
    """Kineto resets CUPTI inside some thread's next call of the runtime, and we come back at that moment."""
    found = on_gpu(
        TORCH
        + """
gpumem.start()
work()
ended, errors, rounds = threading.Event(), [], [0, 0, 0]

def churn(index):
    try:
        while not ended.is_set():
            work()
            block = torch.empty((8 + index) * MIB, dtype=torch.uint8, device="cuda")
            del block
            torch.cuda.empty_cache()
            rounds[index] += 1
    except BaseException as error:
        errors.append(repr(error))

threads = [threading.Thread(target=churn, args=(index,)) for index in range(3)]
for thread in threads: thread.start()
counts = [profiled() for _ in range(8)]
ended.set()
for thread in threads: thread.join(30)
hung = sum(thread.is_alive() for thread in threads)
torch.cuda.synchronize()
from gpumem_magic import api
api.session().check()
answer(counts=counts, errors=errors, rounds=rounds, hung=hung, state=state())
gpumem.stop()
"""
    )
    assert found["hung"] == 0
    assert found["errors"] == []
    assert min(found["rounds"]) > 3
    assert min(found["counts"]) >= 3, found["counts"]
    assert found["state"] in ("on", "yielded")


JAX = (
    COMMON
    + """
import glob, tempfile
import jax, jax.numpy as jnp

def work():
    x = jnp.ones((512, 512))
    return float((x @ x).sum())

def has_kernels(folder):
    '''A trace names the streams of the GPU only when CUPTI told of them.'''
    data = b"".join(open(path, "rb").read() for path in glob.glob(folder + "/**/*.xplane.pb", recursive=True))
    return b"/device:GPU:0" in data and b"Stream #" in data
"""
)


@needs_jax
def test_jax_traces_see_cuda_and_tracking_goes_on_after_each(on_gpu: OnGpu) -> None:
    found = on_gpu(
        "gpumem.start()\n"
        + JAX
        + """
use_device()
work()
before = sees_everything()
traced, states, lent, exact = [], [], [], []
for _ in range(2):
    folder = tempfile.mkdtemp()
    with jax.profiler.trace(folder):
        lent.append(state())
        work()
    traced.append(has_kernels(folder))
    states.append(state())
    exact.append(sees_everything())
folder = tempfile.mkdtemp()
jax.profiler.start_trace(folder)
work()
jax.profiler.stop_trace()
traced.append(has_kernels(folder))
jax.profiler.start_server(int(os.environ["PORT"]))
serving = state()
jax.profiler.stop_server()
answer(before=before, traced=traced, states=states, lent=lent, exact=exact, serving=serving, state=state(),
       gaps=gaps(), courtesy=gpumem.status().profiler_courtesy, warnings=gpumem.status().warnings)
gpumem.stop()
""",
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.1",
        PORT="19517",
    )
    assert found["before"]
    assert found["courtesy"] == ["jax.profiler", "the server of jax.profiler"]
    assert found["traced"] == [True] * 3
    assert found["lent"] == ["yielded"] * 2
    assert found["states"] == ["on"] * 2
    assert found["exact"] == [True] * 2
    assert (found["serving"], found["state"]) == ("yielded", "on")
    assert found["gaps"] == [["CUPTI was lent to jax.profiler", True]] * 3 + [
        ["CUPTI was lent to the server of jax.profiler", True]
    ]
    assert found["warnings"] == []


def test_a_reset_of_cupti_by_another_tool_is_noticed(on_gpu: OnGpu) -> None:
    found = on_gpu(
        COMMON
        + """
import ctypes
from gpumem_magic import api
use_device()
gpumem.start()
before = sees_everything()
library = ctypes.CDLL(gpumem.status().library.split(" (")[0], mode=os.RTLD_NOLOAD | os.RTLD_NOW)
kept = raw(32)
reset = library.cuptiFinalize()
missed = raw(16)
back = api.session().check()
answer(before=before, reset=reset, back=back, state=state(), exact=sees_everything(), gaps=gaps(),
       sizes=gpumem.snapshot().allocations["size"].tolist())
gpumem.stop()
"""
    )
    assert found["before"]
    assert found["reset"] == 0
    assert found["back"]
    assert found["state"] == "on"
    assert found["exact"]
    assert found["gaps"] == [["the CUPTI subscription was lost: another tool reset CUPTI", True]]
    assert found["sizes"] == [32 * MIB]


def test_the_heartbeat_costs_little(on_gpu: OnGpu) -> None:
    found = on_gpu(
        COMMON
        + """
from gpumem_magic import api
use_device()
gpumem.start()
session = api.session()
began = time.perf_counter()
for _ in range(1000):
    assert session.check()
answer(microseconds=(time.perf_counter() - began) * 1e3)
gpumem.stop()
"""
    )
    assert found["microseconds"] < 200
