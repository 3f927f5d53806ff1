"""What PyTorch tells while an allocation fails: against a module that calls observers as PyTorch does."""

from __future__ import annotations

import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.analysis.byte_ledger import ByteLedger
from gpumem_magic.capture import moments
from gpumem_magic.capture.moments import Moments
from gpumem_magic.model.snapshot import Process

if TYPE_CHECKING:
    from collections.abc import Callable

LEDGER = ByteLedger(process=Process(host="", pid=1), devices=(), notes=())


class Torch(types.ModuleType):
    """Keeps observers for ever, and queues calls until it is initialised: as PyTorch 2 does."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.observers: list[Callable[..., None]] = []
        self.queued: list[Callable[[], None]] = []
        self.is_initialized = False
        self._C = types.SimpleNamespace(_cuda_attach_out_of_memory_observer=self.attach)
        self.cuda = types.SimpleNamespace(_lazy_call=self.lazy_call)

    def attach(self, observer: Callable[..., None]) -> None:
        assert self.is_initialized, "attaching would initialise CUDA"
        self.observers.append(observer)

    def lazy_call(self, call: Callable[[], None]) -> None:
        call() if self.is_initialized else self.queued.append(call)

    def initialize(self) -> None:
        self.is_initialized = True
        for call in self.queued:
            call()

    def fail(self, requested: int) -> None:
        for observer in self.observers:
            observer(1, requested, 5, 7)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Torch:
    module = Torch()
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setattr(moments, "_is_observing", False)
    monkeypatch.setattr(moments, "_listener", None)
    return module


def test_the_moment_is_told_once_and_only_if_it_is_new(torch: Torch) -> None:
    made = Moments(lambda: LEDGER)
    made.listen()
    torch.initialize()
    began = time.monotonic_ns()
    torch.fail(100)
    torch.fail(200)
    moment = made.take(began)
    assert moment is not None
    assert (moment.device, moment.requested_bytes, moment.free_bytes, moment.ledger) == (1, 200, 7, LEDGER)
    assert made.take(began) is None
    torch.fail(300)
    assert made.take(time.monotonic_ns() + 1) is None, "it was another cell's"


def test_one_observer_serves_all_that_listen_one_after_the_other(torch: Torch) -> None:
    torch.initialize()
    first, second = Moments(lambda: LEDGER), Moments(lambda: LEDGER)
    first.listen()
    first.listen()
    first.ignore()
    torch.fail(1)
    second.listen()
    torch.fail(2)
    first.ignore()
    assert len(torch.observers) == 1
    assert first.take(0) is None
    told = second.take(0)
    assert told is not None
    assert told.requested_bytes == 2


def test_nothing_is_raised_into_pytorch(torch: Torch) -> None:
    def fails() -> Any:
        raise RuntimeError("no ledger today")

    made = Moments(fails)
    made.listen()
    torch.initialize()
    torch.fail(1)
    assert made.problem == "What was live at that moment could not be read (RuntimeError: no ledger today)."
    assert made.take(0) is None
    assert made.problem == ""


@pytest.mark.parametrize("missing", ["_C", "cuda"])
def test_a_pytorch_that_cannot_tell(torch: Torch, missing: str) -> None:
    delattr(torch, missing)
    Moments(lambda: LEDGER).listen()
    assert torch.observers == []


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    Moments(lambda: LEDGER).listen()
    assert "torch" not in sys.modules
