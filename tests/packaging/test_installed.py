"""What an installation promises: its version, its command, its types, and libraries that load."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import pytest

import gpumem_magic
from gpumem_magic import simulator

ROOT = pathlib.Path(__file__).parents[2]


def distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("gpumem_magic")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed: it is being run from its sources")


def test_one_version() -> None:
    assert distribution().version == gpumem_magic.__version__
    in_project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert in_project is not None
    assert in_project[1] == gpumem_magic.__version__


def test_the_changelog_knows_it() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert gpumem_magic.__version__ in headings[:2]


def test_the_command() -> None:
    (entry,) = distribution().entry_points.select(group="console_scripts")
    assert (entry.name, entry.value) == ("gpumem", "gpumem_magic.cli:main")
    command = pathlib.Path(sysconfig.get_path("scripts"), "gpumem")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"gpumem_magic {gpumem_magic.__version__}\n"


def test_types_come_along() -> None:
    distribution()
    package = importlib.resources.files("gpumem_magic")
    assert (package / "py.typed").is_file()
    stub = (package / "_core.pyi").read_text("utf-8")
    for name in ("subscribe", "snapshot", "replay", "health"):
        assert f"def {name}(" in stub


def test_the_licence_is_in_it() -> None:
    files = distribution().files or []
    assert any(file.name == "LICENSE" for file in files)


@pytest.mark.parametrize("name", ["libcuda.so.1", "libcupti.so.13", "libnvidia-ml.so.1"])
def test_simulated_libraries_load(name: str) -> None:
    # In a process of their own: whoever loads them has a simulated GPU from then on.
    path = str(simulator.library_paths()[name])
    subprocess.run([sys.executable, "-c", f"import ctypes; ctypes.CDLL({path!r})"], check=True, timeout=60)


def test_the_core_needs_no_library_that_a_plain_system_lacks() -> None:
    """The wheel must load where no compiler ever was: no libstdc++ of the build machine, no CUDA."""
    core = importlib.import_module("gpumem_magic._core").__file__
    listed = subprocess.run(["ldd", str(core)], capture_output=True, text=True, check=True).stdout
    needed = {line.split()[0].rpartition("/")[2].partition(".so")[0] for line in listed.splitlines()}
    assert needed <= {"linux-vdso", "libc", "libm", "libpthread", "libdl", "librt", "libgcc_s", "ld-linux-x86-64"} | {
        "ld-linux-aarch64"
    }


def test_smoke_on_the_simulated_gpu(tmp_path: pathlib.Path) -> None:
    """The main job in one process, with whatever cuda-python is installed."""
    code = """
import gpumem_magic as gpumem
from cuda.bindings import driver as cuda
gpumem.simulate(memory="2GiB")
status, = cuda.cuInit(0)
_, context = cuda.cuDevicePrimaryCtxRetain(cuda.cuDeviceGet(0)[1])
cuda.cuCtxSetCurrent(context)
with gpumem.track("block") as block:
    _, kept = cuda.cuMemAlloc(5 << 20)
    _, gone = cuda.cuMemAlloc(1 << 30)
    cuda.cuMemFree(gone)
    status, _ = cuda.cuMemAlloc(4 << 30)
print(int(status), block.delta_bytes, block.peak_bytes, block.held_bytes)
gpumem.stop()
"""
    environment = {**os.environ, "GPUMEM_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", str(5 << 20), str((1 << 30) + (5 << 20)), str(5 << 20)]
