"""Who holds what a cell left behind, on a real GPU: tensors inside PyTorch's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.gpu.test_out_of_memory_gpu import SHELL

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20


def test_tensors_of_a_cell_and_of_its_runs(on_gpu: OnGpu) -> None:
    found = on_gpu(
        f"""{SHELL}
    run("import torch\\nempty = lambda mib: torch.empty(mib << 20, dtype=torch.uint8, device='cuda')\\nold = empty(30)")
    began = time.perf_counter()
    text = run("%%gpumem --save report\\nmodel = [empty(64), empty(32)]\\nalias = model[0]\\ndel old\\nempty(8)")
    seconds = time.perf_counter() - began
    report = shell.user_ns["report"]
    report.holders.self_check()
    report.ledger.self_check()
    rows = [[row.bytes, row.held_by and row.held_by.name, [name.path for name in row.names]]
            for row in report.holders.rows]
    run("losses = []")
    grown = [run("%%gpumem\\nlosses.append(empty(16))") for _ in range(4)]
    failing = "def train():\\n    logits = empty(50)\\n    1 / 0"
    run(failing)
    died = run("%%gpumem\\ntrain()")
    answer(text=text, rows=rows, seconds=seconds, grown=[" ".join(each.split()) for each in grown],
           died=" ".join(died.split()))
    """,
        timeout=140,
    )
    print(found["seconds"], found["rows"], found["text"], found["grown"][-1][-900:])
    text = " ".join(found["text"].split())
    assert "Stays 104 MiB: 104 MiB held by notebook" in text
    assert "each, held by" not in found["grown"][1]
    assert "+16.0 MiB each, held by `losses`" in found["grown"][3]
    assert "50.0 MiB held by exception" in found["died"]
