"""PyTorch's own history on a real GPU: planted lines of known size, and everything left as it was found."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.capture.frameworks import torch_history

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20
GUARD = """
import importlib.util
if importlib.util.find_spec("torch") is None:
    print("ANSWER null"); sys.exit()
"""
HELPERS = (
    GUARD
    + """
import time
import torch
from gpumem_magic.analysis.tensor_sites import tensor_sites
from gpumem_magic.capture.frameworks import torch_history
from gpumem_magic.capture.frameworks.torch_history import TensorRecorder

MIB = 1 << 20
core, memory = torch._C, torch.cuda.memory
functions = {name: vars(core)[name] for name in vars(core) if name.startswith("_cuda_record_memory_history")}

def empty(size):
    return torch.empty(size, dtype=torch.uint8, device="cuda")

def recorded(cell):
    recorder = TensorRecorder()
    begin = time.perf_counter()
    recorder.start()
    started = time.perf_counter()
    try:
        cell()
    finally:
        ended = time.perf_counter()
        history = recorder.stop()
        stopped = time.perf_counter()
    sites = tensor_sites(history, {})
    sites.self_check()
    built = time.perf_counter()
    recorded.ms = [round(each * 1e3, 2) for each in (started - begin, stopped - ended, built - stopped)]
    recorded.allocated = [int(history.after["bytes"].sum()), torch.cuda.memory_allocated()]
    return history, sites

def facts(history, sites):
    rows = {}
    for row in sites.rows:
        name = next((each.function for each in row.stack if each.function != "empty"), row.where)
        count, made, live, peak = rows.get(name, (0, 0, 0, 0))
        rows[name] = (count + row.count, made + row.made_bytes, live + row.live_bytes, max(peak, row.peak_bytes))
    return {
        "rows": rows,
        "where": sorted(row.where for row in sites.rows),
        "unrecorded": [[row.count, row.made_bytes, row.live_bytes] for row in sites.unrecorded],
        "end": sites.end_bytes, "kept": sites.kept_bytes, "made": sites.made_bytes,
        "notes": list(history.notes), "problem": history.problem,
        "ms": recorded.ms, "allocated": recorded.allocated,
    }

def left():
    '''What is left behind: whether history is on, how many entries it has, and whether functions are the originals.'''
    return [core._cuda_isHistoryEnabled(), sum(map(len, memory._snapshot()["device_traces"])),
            all(vars(core)[name] is each for name, each in functions.items())]
"""
)


def run(on_gpu: OnGpu, script: str, **environment: str) -> dict[str, Any]:
    """What a script answers. Skips where there is no PyTorch."""
    facts = on_gpu(HELPERS + textwrap.dedent(script), **environment)
    if facts is None:
        pytest.skip("torch is not installed")
    print(facts)
    return facts


PLANTED = """
    gpumem.start()
    old = empty(5 * MIB)
    kept = []

    def holds():
        for _ in range(8):
            kept.append(empty(4 * MIB))

    def passes():
        for _ in range(100):
            empty(2 * MIB)

    def small():
        kept.extend(empty(1000) for _ in range(10))

    def layer():
        kept.append(torch.nn.Linear(1024, 1024, bias=False, device="cuda"))

    def cell():
        holds(); passes(); small(); layer()

    first = facts(*recorded(cell))
    after_first = left()
    second = facts(*recorded(lambda: kept.pop()))
    third = facts(*recorded(kept.clear))
    answer(first=first, second=second, third=third, left=[after_first, left()])
"""


@pytest.mark.parametrize("settings", ["", "expandable_segments:True"])
def test_planted_lines(on_gpu: OnGpu, settings: str) -> None:
    found = run(on_gpu, PLANTED, PYTORCH_CUDA_ALLOC_CONF=settings)
    first, second, third = found["first"], found["second"], found["third"]
    assert (first["problem"], first["notes"], first["unrecorded"]) == ("", [], [])
    rows = first["rows"]
    assert rows["holds"] == [8, 32 * MIB, 32 * MIB, 32 * MIB]
    assert rows["passes"] == [100, 200 * MIB, 0, 2 * MIB]
    small = {name: row for name, row in rows.items() if name in ("<genexpr>", "small")}
    assert [row[:3] for row in small.values()] == [[10, 10_000, 10_000]]
    assert rows["layer"][1] >= rows["layer"][2] == 4 * MIB
    assert not any("torch." in where for where in first["where"]), "frames of torch lead to the line that called it"
    assert first["kept"] == 5 * MIB
    assert first["end"] == 41 * MIB + 10_000
    assert first["allocated"][0] == first["allocated"][1], "all live blocks are there"
    # What an earlier cell made has its stack still, and is of that cell.
    assert (second["rows"], second["kept"]) == ({}, 37 * MIB + 10_000)
    assert (third["rows"], third["kept"], third["made"]) == ({}, 5 * MIB, 0)
    assert found["left"] == [[False, 0, True]] * 2
    assert max(first["ms"] + second["ms"]) < 2000, "symbols of C++ were loaded"


def test_the_backward_pass_has_no_python_frame(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    gpumem.start()
    weight = torch.ones(MIB, device="cuda", requires_grad=True)
    data = torch.ones(MIB, device="cuda")
    def train():
        (data * weight).sum().backward()
    train()
    weight.grad = None
    answer(found=facts(*recorded(train)))
    """,
    )["found"]
    assert found["rows"]["(no Python frame)"][2] == 4 * MIB
    assert found["rows"]["train"][2] == 0
    assert found["kept"] == 8 * MIB


def test_a_full_ring(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    gpumem.start()
    torch_history.MAX_ENTRIES = 300
    kept = [empty(512)]
    def early():
        kept.append(empty(3 * MIB))
    def passes():
        for _ in range(1000):
            empty(MIB)
    def cell():
        early(); passes()
    answer(found=facts(*recorded(cell)), left=left())
    """,
    )
    rows, (lost,) = found["found"]["rows"], found["found"]["unrecorded"]
    assert rows["early"] == [1, 3 * MIB, 3 * MIB, 3 * MIB]
    assert 90 <= rows["passes"][0] <= 150  # two or three entries for each
    assert lost == [1000 - rows["passes"][0], (1000 - rows["passes"][0]) * MIB, 0]
    assert found["found"]["made"] == 1003 * MIB
    assert found["left"] == [False, 0, True]


@pytest.mark.parametrize("stacks", ["python", "all"])
def test_history_that_the_program_records_is_read_and_left_on(on_gpu: OnGpu, stacks: str) -> None:
    found = run(
        on_gpu,
        f"""
    gpumem.start()
    memory._record_memory_history(stacks={stacks!r})
    before = [empty(3 * MIB), empty(MIB)]
    before.pop()
    entries = len(memory._snapshot()["device_traces"][0])
    kept = []
    def theirs():
        kept.append(empty(7 * MIB))
        empty(9 * MIB)
    found = facts(*recorded(theirs))
    enabled, more, original = left()
    memory._record_memory_history(None)
    answer(found=found, enabled=enabled, grew=more - entries, original=original)
    """,
    )
    mine = found["found"]
    assert mine["notes"] == [torch_history.THEIRS]
    assert mine["rows"] == {"theirs": [2, 16 * MIB, 7 * MIB, 9 * MIB]}
    assert (mine["kept"], mine["unrecorded"]) == (3 * MIB, [])
    assert (found["enabled"], found["original"]) == (True, True)
    assert found["grew"] >= 3, "what the cell did is in their history, too"


def test_history_that_the_cell_switches(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    gpumem.start()
    kept = []
    def turns_on():
        kept.append(empty(MIB))
        memory._record_memory_history(max_entries=500, stacks="python")
        kept.append(empty(2 * MIB))
    on = facts(*recorded(turns_on))
    after_on = left()
    memory._record_memory_history(None)
    def turns_off():
        kept.append(empty(4 * MIB))
        memory._record_memory_history(None)
        kept.append(empty(8 * MIB))
    off = facts(*recorded(turns_off))
    answer(on=on, after_on=after_on, off=off, after_off=left())
    """,
    )
    assert found["on"]["notes"] == [torch_history.TURNED_ON]
    assert found["on"]["rows"]["turns_on"][:3] == [2, 3 * MIB, 3 * MIB]
    assert (found["after_on"][0], found["after_on"][2]) == (True, True)
    assert found["off"]["notes"] == [torch_history.TURNED_OFF]
    assert found["off"]["rows"]["turns_off"][:3] == [1, 4 * MIB, 4 * MIB]
    assert found["off"]["unrecorded"] == [[1, 8 * MIB, 8 * MIB]]
    assert found["after_off"] == [False, 0, True]


def test_a_pytorch_that_does_not_use_cuda_yet(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    unused = facts(*recorded(lambda: None))
    initialized = torch.cuda.is_initialized()
    queued = len(torch.cuda._queued_calls)
    kept = []
    def begins():
        kept.append(empty(6 * MIB))
    used = facts(*recorded(begins))
    gpumem.start()
    queued = [queued, len(torch.cuda._queued_calls)]
    answer(unused=unused, initialized=initialized, used=used, left=left(), queued=queued)
    """,
    )
    assert found["unused"]["problem"] == torch_history.UNUSED
    assert found["initialized"] is False
    assert found["used"]["rows"]["begins"][:3] == [1, 6 * MIB, 6 * MIB]
    assert found["left"] == [False, 0, True]
    assert found["queued"][0] == found["queued"][1], "our call is off the list again"


def test_the_async_backend_is_told(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    gpumem.start()
    kept = [empty(MIB)]
    history, sites = recorded(lambda: kept.append(empty(MIB)))
    answer(problem=history.problem)
    """,
        PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync",
    )
    assert found["problem"] == torch_history.ASYNC


def test_what_it_costs(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    gpumem.start()
    kept = [empty(512) for _ in range(20000)]

    def deep(depth, rounds):
        if depth:
            return deep(depth - 1, rounds)
        begin = time.perf_counter()
        for _ in range(rounds):
            empty(512)
        return round((time.perf_counter() - begin) / rounds * 1e6, 2)

    deep(20, 2000)
    without = [deep(20, 20000) for _ in range(3)]
    times = []
    few = facts(*recorded(lambda: times.append(deep(20, 1000))))["ms"]
    full = facts(*recorded(lambda: times.extend(deep(20, 60000) for _ in range(2))))["ms"]
    full_again = facts(*recorded(lambda: times.extend(deep(20, 60000) for _ in range(2))))["ms"]
    answer(us_without=without, us_with=times, few=few, full=full, full_again=full_again, left=left())
    """,
    )
    print(
        f"A block made and freed, 20 frames deep: {min(found['us_without'])} us, recorded {min(found['us_with'])} us.\n"
        f"With 20,000 live blocks, ms to start, to read and stop, and to make rows: {found['few']} after 1,000 blocks, "
        f"{found['full']} and {found['full_again']} with a full ring."
    )
    assert min(found["us_with"]) - min(found["us_without"]) < 20
    assert max(found["few"]) < 1000
    assert max(found["full_again"]) < 5000
    assert found["left"] == [False, 0, True]


def test_a_cell_of_a_real_shell(on_gpu: OnGpu) -> None:
    found = run(
        on_gpu,
        """
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shown = []

    def cell(text):
        with capture_output() as output:
            result = shell.run_cell(text, store_history=True)
        shown.append(output.stdout + "".join(each.data.get("text/plain", "") for each in output.outputs))
        assert result.success, shown[-1] + output.stderr

    cell("%load_ext gpumem_magic")
    cell("import torch\\nfrom torch import nn")
    cell("%%gpumem --tensors --save report\\n"
         "model = nn.Linear(1024, 1024, bias=False, device='cuda')\\n"
         "with torch.no_grad():\\n"
         "    seen = [torch.ones(256 << 10, device='cuda') * 2 for _ in range(3)]")
    rows = [[row.where, row.live_bytes] for row in shell.user_ns["report"].tensors.rows if row.live_bytes]
    cell("%gpumem on --tensors")
    cell("more = torch.ones(512 << 10, device='cuda')")
    cell("%gpumem tensors")
    answer(rows=rows, shown=shown, left=left())
    """,
    )
    places = [where for where, _ in found["rows"]]
    assert sum(live for _, live in found["rows"]) == 7 * MIB
    assert all(where.startswith("In [3]:") for where in places), places
    assert {"2", "4"} == {where.removeprefix("In [3]:")[0] for where in places}
    assert "Tensors" in found["shown"][2]
    assert "In [5]:1" in found["shown"][-1]
    assert "2.00 MiB" in found["shown"][-1]
    assert found["left"] == [False, 0, True]
