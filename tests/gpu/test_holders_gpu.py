"""Who holds memory, on a real GPU: objects of real frameworks, and the memory that comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

MIB = 1 << 20
PRELUDE = """
    import os
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    from gpumem_magic import api
    from gpumem_magic.model.holders import HELD_BY_LABELS

    def holders(least=1 << 20):
        found = api.session().holders(None, named=100)
        found.self_check()
        return [[HELD_BY_LABELS[each.held_by], each.bytes >> 20, list(each.frameworks),
                 sorted(name.path for name in each.names)] for each in found.holders if each.bytes >= least]

    def totals():
        return {each.name: each.exclusive_bytes >> 20 for each in api.session().holders(None).totals}
"""


def test_tensors_of_torch(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import torch
    gpumem.start()
    model = torch.nn.Sequential(torch.nn.Linear(2048, 2048, bias=False, device="cuda"))
    shared = [model[0].weight]
    alone = torch.empty(32 << 20, dtype=torch.uint8, device="cuda")
    before = holders()
    each = totals()
    used_before = torch.cuda.memory_allocated()
    del alone
    freed = used_before - torch.cuda.memory_allocated()
    answer(before=before, totals=each, freed=freed >> 20)
    """
    )
    assert ["held by notebook", 16, ["torch"], ["model[0].weight", "shared[0]"]] in found["before"]
    assert ["held by notebook", 32, ["torch"], ["alone"]] in found["before"]
    assert found["totals"]["alone"] == found["freed"] == 32
    assert "model" not in found["totals"]


def test_the_autograd_graph_of_torch(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import torch
    gpumem.start()
    weight = torch.randn(1024, 1024, device="cuda", requires_grad=True)
    hidden = torch.randn(1024, 1024, device="cuda")
    loss = (hidden @ weight).exp()
    del hidden
    answer(holders=holders())
    """
    )
    (saved,) = [each for each in found["holders"] if each[0] == "autograd graph"]
    assert saved[1] == 4
    assert "loss" in saved[3][0]
    assert "saved" in saved[3][0]


def test_an_exception_pins_what_its_frames_hold(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import torch
    gpumem.start()
    def train():
        logits = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
        raise ValueError("no")
    try:
        train()
    except ValueError as error:
        sys.last_value = error
    answer(holders=holders())
    """
    )
    (pinned,) = found["holders"]
    assert pinned[:2] == ["held by exception", 64]
    assert pinned[3][0].endswith("local logits")


def test_a_cycle_is_garbage(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import gc, torch
    gpumem.start()
    gc.disable()
    class Node:
        pass
    node = Node()
    node.itself, node.tensor = node, torch.empty(8 << 20, dtype=torch.uint8, device="cuda")
    del node
    before = holders()
    gc.collect()
    answer(before=before, after=holders())
    """
    )
    assert [each[:2] for each in found["before"]] == [["garbage cycle", 8]]
    assert found["after"] == []


@pytest.mark.parametrize(
    ("framework", "make"),
    [
        ("cupy", "import cupy\n    kept = {'a': cupy.ones(16 << 20, dtype='u1')}"),
        ("jax", "import jax.numpy\n    kept = {'a': jax.numpy.ones((16 << 20,), dtype='uint8').block_until_ready()}"),
        ("numba", "from numba import cuda as numba_cuda\n    kept = {'a': numba_cuda.device_array(16 << 20, 'u1')}"),
    ],
)
def test_arrays_of_other_frameworks(on_gpu: OnGpu, framework: str, make: str) -> None:
    found = on_gpu(
        PRELUDE
        + f"""
    gpumem.start()
    {make}
    answer(holders=holders())
    """
    )
    print(found)
    mine = [each for each in found["holders"] if framework in each[2]]
    assert [[each[0], each[1], each[3]] for each in mine] == [["held by notebook", 16, ["kept['a']"]]]


def test_memory_that_two_frameworks_share_is_there_once(on_gpu: OnGpu) -> None:
    found = on_gpu(
        PRELUDE
        + """
    import cupy, torch
    gpumem.start()
    tensor = torch.empty(16 << 20, dtype=torch.uint8, device="cuda")
    array = cupy.from_dlpack(tensor)
    answer(holders=holders())
    """
    )
    print(found)
    (shared,) = [each for each in found["holders"] if each[1] == 16]
    assert shared[2] == ["torch", "cupy"]
    assert {"array", "tensor"} <= set(shared[3])
