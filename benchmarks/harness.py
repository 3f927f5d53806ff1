"""What the benchmarks share: driver calls, interleaved timing, and a table that says where it was measured."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from cuda.bindings import driver as cuda

from gpumem_magic import simulator
from gpumem_magic.capture import driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def check(result: tuple[Any, ...]) -> Any:
    """The value of a driver call. Raises RuntimeError for any status but success."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"the driver answered {status}")
    return values[0] if len(values) == 1 else values


def prepare_device() -> str:
    """A current context on GPU 0, real where there is one, else simulated; returns its name."""
    if not driver.is_driver_present():
        simulator.activate(devices=1, memory="64GiB")
    check(cuda.cuInit(0))
    device = check(cuda.cuDeviceGet(0))
    check(cuda.cuCtxSetCurrent(check(cuda.cuDevicePrimaryCtxRetain(device))))
    name: bytes = check(cuda.cuDeviceGetName(96, device))
    return name.split(b"\0", 1)[0].decode()


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One way of doing the same work. ``enter`` and ``leave`` bracket every round."""

    name: str
    enter: Callable[[], object]
    leave: Callable[[], object]


def interleaved(
    variants: Sequence[Variant], work: Callable[[int], object], *, calls: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds per call of each variant, one number a round. Rounds alternate, so that a slow minute hits all."""
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for index in range(rounds + 1):
        for variant in variants:
            variant.enter()
            work(calls // 10 + 1)
            begin = time.perf_counter()
            work(calls)
            elapsed = time.perf_counter() - begin
            variant.leave()
            if index:  # the first round warms up
                seconds[variant.name].append(elapsed / calls)
    return seconds


def median_us(seconds: Sequence[float]) -> float:
    """Median in microseconds."""
    return statistics.median(seconds) * 1e6


def print_environment(device: str) -> None:
    """Versions, machine and command, as they belong beside any number."""
    packages = ("gpumem_magic", "cuda-bindings", "torch", "cupy-cuda13x", "numpy")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    print(f"command: {' '.join(sys.orig_argv)}")
    print(f"device:  {device}{' (SIMULATED)' if simulator.is_active() else ''}, CUDA driver {driver.driver_version()}")
    print(f"python:  {platform.python_version()}, {platform.machine()}, {', '.join(versions)}")
