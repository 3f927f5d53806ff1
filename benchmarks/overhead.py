"""What tracking costs a driver call, a kernel launch and a training step: ``python -m benchmarks.overhead``.

Every number is a ratio or a difference within one run: the same work untracked, tracked, and watched by a callback
written in Python, in alternating rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING

from cuda.bindings import driver as cuda

from benchmarks.harness import Variant, check, interleaved, median_us, prepare_device, print_environment
from gpumem_magic import _core, simulator
from gpumem_magic.capture import cupti
from gpumem_magic.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

ASYNC_CALLS = (598, 600)  # cuMemAllocAsync, cuMemFreeAsync
PLAIN_CALLS = (243, 245)  # cuMemAlloc_v2, cuMemFree_v2


def nested(depth: int, body: Callable[[int], None], count: int) -> None:
    """Run ``body(count)`` with ``depth`` Python frames of ours above it."""
    if depth <= 1:
        body(count)
    else:
        nested(depth - 1, body, count)


def async_pairs(count: int) -> None:
    """``count`` pairs of cuMemAllocAsync and cuMemFreeAsync of 1 KiB."""
    for _ in range(count):
        _, pointer = cuda.cuMemAllocAsync(1024, 0)
        cuda.cuMemFreeAsync(pointer, 0)


def plain_pairs(count: int) -> None:
    """``count`` pairs of cuMemAlloc and cuMemFree of 4 MiB."""
    for _ in range(count):
        _, pointer = cuda.cuMemAlloc(4 << 20)
        cuda.cuMemFree(pointer)


class Tracking:
    """Our own tracker, with a recording on disk, on for one round at a time."""

    def __init__(self) -> None:
        self.session = Session()

    def enter(self) -> None:
        status = self.session.start()
        if status.state != "on":
            raise RuntimeError(f"the tracker is {status.state}: {status.reason}")

    def leave(self) -> None:
        self.session.stop()


class PythonCallback:
    """What a CUPTI callback in Python costs that notes who called: it takes the GIL and walks the frames."""

    def __init__(self, calls: tuple[int, ...]) -> None:
        library = cupti.find_cupti()
        if library is None:
            raise RuntimeError("no CUPTI was found")
        self._cupti = ctypes.CDLL(library.path)
        self._calls = calls
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
        self.totals: dict[tuple[int, int], int] = {}
        self._callback = kind(self._note)
        self._subscriber = ctypes.c_void_p()

    def _note(self, _user: int, _domain: int, call: int, data: int) -> None:
        if ctypes.c_int32.from_address(data).value == 0:  # entry
            return
        frame, stack = sys._getframe(), []  # noqa: SLF001
        while frame is not None:
            stack.append((id(frame.f_code), frame.f_lasti))
            frame = frame.f_back  # type: ignore[assignment]
        self.totals[call, hash(tuple(stack))] = self.totals.get((call, hash(tuple(stack))), 0) + 1

    def enter(self) -> None:
        result = self._cupti.cuptiSubscribe(ctypes.byref(self._subscriber), self._callback, None)
        if result != 0:
            raise RuntimeError(f"cuptiSubscribe answered {result}")
        for call in self._calls:
            self._cupti.cuptiEnableCallback(1, self._subscriber, 1, call)

    def leave(self) -> None:
        self._cupti.cuptiUnsubscribe(self._subscriber)


def nothing() -> None:
    """Enter or leave a round without a subscriber."""


def pair_cost(title: str, body: Callable[[int], None], ids: tuple[int, ...], *, calls: int, rounds: int) -> None:
    """Print the cost of an allocation and its free at several depths of the Python stack."""
    print(f"\n{title}, microseconds a pair (median of {rounds} rounds of {calls})")
    print(
        f"{'depth':>5} {'untracked':>10} {'tracked':>9} {'us/event':>9} "
        f"{'Python cb':>10} {'cb us/event':>12} {'times':>6}"
    )
    for depth in (1, 30, 100):
        tracking, callback = Tracking(), PythonCallback(ids)
        variants = [
            Variant("untracked", nothing, nothing),
            Variant("tracked", tracking.enter, tracking.leave),
            Variant("python", callback.enter, callback.leave),
        ]
        times = interleaved(variants, functools.partial(nested, depth, body), calls=calls, rounds=rounds)
        base, ours, theirs = (median_us(times[variant.name]) for variant in variants)
        ratio = (theirs - base) / (ours - base) if ours > base else float("inf")
        print(
            f"{depth:>5} {base:>10.2f} {ours:>9.2f} {(ours - base) / 2:>9.3f} {theirs:>10.2f} "
            f"{(theirs - base) / 2:>12.3f} {ratio:>6.1f}",
        )


def threads_cost(*, calls: int, rounds: int) -> None:
    """Print the wall time of pairs made by several threads at once."""
    print(
        f"\ncuMemAllocAsync + cuMemFreeAsync by several threads, microseconds of wall time a pair ({calls} pairs each)"
    )
    print(f"{'threads':>7} {'untracked':>10} {'tracked':>9} {'ratio':>6} {'events/s':>12}")
    for count in (1, 4, 16):
        tracking = Tracking()
        variants = [Variant("untracked", nothing, nothing), Variant("tracked", tracking.enter, tracking.leave)]
        times = interleaved(variants, functools.partial(_on_threads, count), calls=calls, rounds=rounds)
        base, ours = (median_us(times[variant.name]) / count for variant in variants)
        print(f"{count:>7} {base:>10.2f} {ours:>9.2f} {ours / base:>6.2f} {2e6 / ours:>12,.0f}")


def _on_threads(threads: int, calls: int) -> None:
    context = check(cuda.cuCtxGetCurrent())

    def body() -> None:
        check(cuda.cuCtxSetCurrent(context))
        async_pairs(calls)

    workers = [threading.Thread(target=body) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def launch_cost(*, rounds: int) -> None:
    """Print what a kernel launch costs with and without tracking, where torch runs on the GPU."""
    import torch  # noqa: PLC0415

    small = torch.ones(16, device="cuda")

    def body(count: int) -> None:
        for _ in range(count):
            small.add_(1)
        torch.cuda.synchronize()

    _on_off("kernel launch (torch add_ on 16 floats)", body, calls=20_000, rounds=rounds)


def training_step() -> Callable[[int], None]:
    """Training steps of a small transformer on the GPU, by how many."""
    import torch  # noqa: PLC0415

    model = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(512, 8, 1024, batch_first=True),
        num_layers=4,
        enable_nested_tensor=False,
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(16, 128, 512, device="cuda")

    def body(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
        torch.cuda.synchronize()

    return body


def training_cost(*, rounds: int) -> None:
    """Print what a training step costs with and without tracking."""
    _on_off("training step (4-layer transformer)", training_step(), calls=60, rounds=rounds)


def _on_off(title: str, body: Callable[[int], None], *, calls: int, rounds: int) -> None:
    tracking = Tracking()
    variants = [
        Variant("untracked", nothing, nothing),
        Variant("tracked", tracking.enter, tracking.leave),
        Variant("again", nothing, nothing),
    ]
    times = interleaved(variants, body, calls=calls, rounds=rounds)
    base, ours, again = (median_us(times[variant.name]) for variant in variants)
    print(
        f"{title}: {base:.2f} us untracked, {ours:.2f} tracked ({ours / base:.3f}); "
        f"untracked again {again:.2f} ({again / base:.3f}, the noise)",
    )


def main() -> None:
    """Run everything this machine can run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer calls: to see that it works, not to quote")
    quick = parser.parse_args().quick
    device = prepare_device()
    print_environment(device)
    rounds = 3 if quick else 9
    pair_cost(
        "cuMemAllocAsync + cuMemFreeAsync of 1 KiB",
        async_pairs,
        ASYNC_CALLS,
        calls=2000 if quick else 20_000,
        rounds=rounds,
    )
    pair_cost("cuMemAlloc + cuMemFree of 4 MiB", plain_pairs, PLAIN_CALLS, calls=300 if quick else 2000, rounds=rounds)
    threads_cost(calls=1000 if quick else 5000, rounds=rounds)
    if not simulator.is_active() and importlib.util.find_spec("torch") is not None:
        print()
        launch_cost(rounds=rounds)
        training_cost(rounds=rounds)
    health = _core.health()
    print(f"\nthe tracker's own estimate: {health['sampled_ns'] / max(health['sampled'], 1):.0f} ns a callback")


if __name__ == "__main__":
    main()
