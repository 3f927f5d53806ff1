"""Memory over time on a real GPU: what NVML tells the native sampler, and what the bands make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20
PRELUDE = """
    import time
    from gpumem_magic import api
    from gpumem_magic.analysis.bands import bands
    from gpumem_magic.model.history import UNKNOWN

    def latest(device=0):
        index = api.session().history().next_index
        while api.session().history().next_index < index + 2:
            time.sleep(0.02)
        rows = api.session().history().rows
        return rows[rows["device"] == device][-1:]
"""


def test_the_sampler_says_what_nvml_says(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import pynvml
    use_device()
    gpumem.start()
    kept = check(cuda.cuMemAlloc(256 << 20))
    row = latest()
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(api.session().status().devices[0].uuid)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    mine = [each.usedGpuMemory for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            if each.pid == os.getpid()]
    answer(used=int(row["used_bytes"][0]), nvml=memory.used, reserved=int(row["reserved_bytes"][0]),
           nvml_reserved=memory.reserved, process=int(row["process_bytes"][0]), mine=mine,
           tracked=int(row["tracked_bytes"][0]), busy=float(row["utilization"][0]))
    """.replace("import pynvml", "import os, pynvml", 1)
    )
    assert abs(found["used"] - found["nvml"]) <= 64 * MIB  # others may use the device too
    assert found["reserved"] == found["nvml_reserved"]
    assert found["process"] == (found["mine"][0] if found["mine"] else -1)
    assert found["tracked"] == 256 * MIB
    assert 0 <= found["busy"] <= 100


def test_the_bands_of_torch_add_up(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import torch
    gpumem.start()
    api.session().watch()
    kept = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
    passing = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    del passing
    weights = torch.randn(4096, 4096, device="cuda")
    product = weights @ weights
    torch.cuda.synchronize()
    time.sleep(1.5)
    row = latest()
    each = bands(row, base_bytes=0)
    each.self_check()
    api.session().unwatch()
    answer(live=int(each.live[0]), cached=int(each.cached[0]), total=int(each.total[0]), used=int(row["used_bytes"][0]),
           driver=used(), tracked=int(row["tracked_bytes"][0]), reserved=torch.cuda.memory_reserved(),
           allocated=torch.cuda.memory_allocated(), process=int(row["process_bytes"][0]),
           unexplained=int(each.unexplained[0]), other=int(each.other[0]))
    """
    )
    print(found)
    assert found["cached"] == found["reserved"] - found["allocated"] > 0
    assert found["live"] + found["cached"] == found["tracked"] >= found["reserved"]
    assert found["total"] == found["used"]
    assert abs(found["used"] - found["driver"]) <= 64 * MIB


def test_a_spike_between_two_samples_is_in_the_history(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    use_device()
    gpumem.start()
    latest()
    check(cuda.cuMemFree(check(cuda.cuMemAlloc(3 << 30))))
    latest()
    rows = api.session().history().rows
    answer(highest=int(rows["tracked_max"].max()), ends=int(rows["tracked_bytes"][-1]))
    """
    )
    assert found == {"highest": 3 << 30, "ends": 0}


def test_long_kernels_leave_no_hole(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import ctypes
    import numpy as np
    use_device()
    gpumem.start()
    latest()
    libc = ctypes.PyDLL(None)  # calls that keep the GIL
    begin = api.session().history().next_index
    libc.usleep(900_000)
    libc.usleep(900_000)
    rows = api.session().history().rows
    rows = rows[rows["index"] >= begin]
    answer(rows=len(rows), widest=float(np.diff(rows["end_ns"]).max() / 1e6))
    """
    )
    assert found["rows"] >= 12
    assert found["widest"] < 400


def test_the_dashboard_feeds_a_page_while_torch_trains(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import torch
    from gpumem_magic.magics.live import SessionSource
    from gpumem_magic.views.dashboard.dashboard import Dashboard
    model = torch.nn.Linear(4096, 4096).cuda()
    gpumem.start()
    dashboard = Dashboard(SessionSource(api.session(), lambda: True))
    sent = []
    dashboard.widget.send = lambda content, buffers=None: sent.append(json.dumps(content))
    dashboard.start()
    kept = []
    end = time.monotonic() + 4
    while time.monotonic() < end:
        kept.append(model(torch.randn(1024, 4096, device="cuda")))
        if len(kept) > 50:
            kept.clear()
            torch.cuda.empty_cache()
    torch.cuda.synchronize()
    dashboard.close()
    rows = [row for message in sent for row in json.loads(message).get("rows", []) if row[0] == 0]
    answer(messages=len(sent), problem=dashboard.problem, live=max(row[7] for row in rows),
           indices=[row[1] for row in rows], largest=max(map(len, sent)))
    """
    )
    assert found["problem"] == ""
    assert found["messages"] > 15
    assert found["live"] > 16 * MIB
    assert found["indices"] == list(range(found["indices"][0], found["indices"][0] + len(found["indices"])))
