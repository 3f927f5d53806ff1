"""How much of a device's memory the ledger explains, on a real GPU: ``python -m benchmarks.accuracy``.

Each workload runs in a process of its own. After every stage NVML is asked, and the ledger: its rows must add up to
what NVML reports, to the byte, and what it cannot explain must stay below 1 % of the process's memory or 4 MiB,
whichever is larger. Frameworks that are not installed are left out. Run it on a GPU that nobody else uses.

Then every kind of holder that the tests know is planted, and the names that are told for it are compared with the
expected ones. This part needs no GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import gpumem_magic
from gpumem_magic.capture import driver

MIB = 1 << 20
PRELUDE = """
import json, os, sys, time
import gpumem_magic as gpumem
from gpumem_magic import api
gpumem.start()

def stage(name):
    for module, wait in (("torch", lambda torch: torch.cuda.is_initialized() and torch.cuda.synchronize()),
                         ("cupy", lambda cupy: cupy.cuda.Device().synchronize())):
        if module in sys.modules:
            wait(sys.modules[module])
    time.sleep(0.3)  # the sampler's next row
    for _ in range(20):
        before = nvml_used()
        ledger = api.session().ledger([0])
        if nvml_used() == before:
            break
    ledger.self_check()
    (device,) = ledger.devices
    rows = {row.name: row.bytes for row in device.rows}
    print("STAGE " + json.dumps({"stage": name, "nvml": before, "sum": sum(rows.values()), "rows": rows,
                                 "process": device.process_bytes or 0, "unexplained": device.unexplained_bytes,
                                 "notes": ledger.notes}), flush=True)

import pynvml
pynvml.nvmlInit()

def nvml_used():
    from gpumem_magic.capture import driver
    uuid = api.session().status().devices[0].uuid
    return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid), version=pynvml.nvmlMemory_v2).used
"""
RAW = """
from cuda.bindings import driver as cuda
def check(result):
    status, *values = result
    assert int(status) == 0, status
    return values[0] if len(values) == 1 else values
check(cuda.cuInit(0))
check(cuda.cuCtxSetCurrent(check(cuda.cuDevicePrimaryCtxRetain(check(cuda.cuDeviceGet(0))))))
"""
WORKLOADS: dict[str, tuple[tuple[str, ...], str]] = {
    "raw": (
        (),
        RAW
        + """
stage("context")
small = [check(cuda.cuMemAlloc(size)) for size in [1] * 20 + [700 << 10] * 20 + [1 << 20] * 20]
stage("small ones")
large = [check(cuda.cuMemAlloc((2 << 20) + 1)) for _ in range(20)] + [check(cuda.cuMemAlloc((100 << 20) + 5))]
stage("large ones")
for pointer in small[::2] + large[::2]:
    check(cuda.cuMemFree(pointer))
stage("every second one freed")
ordered = [check(cuda.cuMemAllocAsync(1 << 20, 0)) for _ in range(50)]
stage("stream-ordered")
for pointer in ordered[:25]:
    check(cuda.cuMemFreeAsync(pointer, 0))
stage("half of them freed")
host = check(cuda.cuMemAllocHost(64 << 20))
stage("pinned host memory")
""",
    ),
    "torch": (
        ("torch",),
        """
import torch
first = torch.empty(1, device="cuda")
stage("first tensor")
weights = torch.randn(2048, 2048, device="cuda", requires_grad=True)
stage("random numbers")
product = weights @ weights
stage("matmul")
product.relu().square().mean().backward()
stage("backward")
convolution = torch.nn.Conv2d(3, 64, 7).cuda()
image = convolution(torch.ones(8, 3, 224, 224, device="cuda"))
stage("convolution")
torch.linalg.svd(weights.detach()[:64, :64]); torch.fft.fft(weights.detach()); weights.detach().sort()
stage("svd, fft, sort")
kept = [torch.empty(n << 10, dtype=torch.uint8, device="cuda") for n in range(1, 200)]
del kept[::2]
stage("many small tensors, half of them freed")
del product, image
torch.cuda.empty_cache()
stage("empty_cache")
""",
    ),
    "torch, streams and graphs": (
        ("torch",),
        """
import torch
weights = torch.randn(1024, 1024, device="cuda")
stage("weights")
stream = torch.cuda.Stream()
with torch.cuda.stream(stream):
    product = weights @ weights
stage("matmul on a stream")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    doubled = weights * 2
graph.replay()
stage("graph")
""",
    ),
    "cupy": (
        ("cupy",),
        """
import cupy
ones = cupy.ones((1024, 1024))
stage("ones")
product = ones @ ones
stage("matmul")
cupy.sort(ones); cupy.fft.fft(ones)
stage("sort and fft")
kept = [cupy.empty(n << 12) for n in range(1, 60)]
del kept[::2]
stage("half of the arrays freed")
cupy.get_default_memory_pool().free_all_blocks()
stage("free_all_blocks")
""",
    ),
    "jax": (
        ("jax",),
        """
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
import jax, jax.numpy as jnp
ones = jnp.ones((1024, 1024)); ones.block_until_ready()
stage("ones")
(ones @ ones).block_until_ready()
stage("matmul")
jax.grad(lambda x: (x @ x).sum())(ones).block_until_ready()
stage("grad")
""",
    ),
    "numba": (
        ("numba.cuda",),
        """
import numpy
from numba import cuda
held = [cuda.device_array(1 << 18, numpy.float32) for _ in range(20)]
stage("arrays")
del held[::2]
stage("half of them freed")
""",
    ),
    "torch and cupy": (
        ("torch", "cupy"),
        """
import cupy, torch
tensor = torch.ones(64 << 20, dtype=torch.uint8, device="cuda")
array = cupy.ones(64 << 20, dtype="u1")
shared = cupy.from_dlpack(tensor)
stage("both, and one array that both share")
(tensor.float() @ tensor.float()); (array.astype("f4") @ array.astype("f4"))
stage("both computed")
""",
    ),
}


def main() -> int:
    """Run every workload and print a table; 1 when anything missed its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workloads", nargs="*", help="some of them, by name; all by default")
    parser.add_argument("--rows", action="store_true", help="print every row of every stage")
    arguments = parser.parse_args()
    print(f"command: {' '.join(sys.orig_argv)}")
    print("versions:", ", ".join(_versions()))
    print(f"\n{'workload, stage':<52} {'NVML':>12} {'sum of rows':>14} {'not explained':>14} {'limit':>10}")
    missed = 0
    for name, (needs, script) in WORKLOADS.items():
        if arguments.workloads and name not in arguments.workloads:
            continue
        if not driver.is_driver_present():
            print(f"{name}: left out, there is no GPU")
            continue
        if missing := [each for each in needs if not _is_there(each)]:
            print(f"{name}: left out, {missing[0]} is not installed")
            continue
        missed += _run(name, script, rows=arguments.rows)
    if not arguments.workloads:
        missed += _planted_holders()
    print(f"\n{missed} stages missed their target" if missed else "\nevery stage met its target")
    return min(missed, 1)


def _planted_holders() -> bool:
    """Plant each kind of holder that the tests know, and compare every name that is told with those expected."""
    from tests.capture import planted  # noqa: PLC0415  (not in the package: the benchmark is run beside the tests)
    from tests.capture.test_holders import Notebook, paths  # noqa: PLC0415

    missing, wrong = list[str](), list[str]()
    for case in planted.EVERYTHING:
        notebook = Notebook()
        notebook.run(case.code)
        (holder,) = notebook.holders().holders
        told = paths(holder)
        missing += [f"{case.kind}: {path}" for path in case.names.values() if path not in told.values()]
        wrong += [f"{case.kind}: {path}" for path in told.values() if path not in case.names.values()]
        notebook.names.clear()
        gc.collect()
    kinds = len(planted.EVERYTHING)
    print(f"\nplanted holders: {kinds} kinds, {len(missing)} ways not found, {len(wrong)} wrong ones")
    for each in [*missing, *wrong]:
        print(f"    {each}")
    return bool(missing or wrong)


def _run(name: str, script: str, *, rows: bool) -> int:
    package = str(pathlib.Path(gpumem_magic.__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GPUMEM_HOME": folder}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    stages = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("STAGE ")]
    missed = sum(_print_stage(name, stage, rows=rows) for stage in stages)
    if done.returncode:
        print(f"{name}: ended with {done.returncode}\n{textwrap.indent(done.stderr[-2000:], '    ')}")
        missed += 1
    return missed


def _print_stage(name: str, stage: dict[str, object], *, rows: bool) -> bool:
    nvml, total, process, unexplained = (int(str(stage[key])) for key in ("nvml", "sum", "process", "unexplained"))
    limit = max(process // 100, 4 * MIB)
    is_met = nvml == total and abs(unexplained) <= limit
    label = f"{name}: {stage['stage']}"
    print(
        f"{label:<52} {nvml:>12,} {total:>14,} {unexplained / MIB:>10.2f} MiB {limit / MIB:>6.1f} MiB"
        f"{'' if is_met else '  MISSED'}",
        flush=True,
    )
    if rows:
        found = stage["rows"]
        assert isinstance(found, dict)
        for row, size in found.items():
            print(f"    {row:<48} {size / MIB:>10.2f} MiB")
    return not is_met


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _versions() -> list[str]:
    packages = ("gpumem_magic", "torch", "cupy-cuda12x", "cupy-cuda13x", "jax", "numba-cuda", "cuda-bindings")
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
