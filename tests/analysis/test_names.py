"""Names of libraries, frames and cells as a reader wants them."""

from __future__ import annotations

import dataclasses

import pytest

from gpumem_magic.analysis.frames import (
    distinct_names,
    is_machinery,
    is_user,
    notebook_labels,
    short_path,
    shown_frames,
    where,
)
from gpumem_magic.analysis.libraries import library_name
from gpumem_magic.model.stacks import Frame
from tests.analysis.build import IPYTHON, LINEAR, Recording, notebook

SITE = "/env/lib/python3.12/site-packages"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", ""),
        (f"{SITE}/torch/lib/libc10_cuda.so", "torch (libc10_cuda)"),
        ("/src/pytorch/torch/lib/libc10_cuda.so", "torch (libc10_cuda)"),
        (f"{SITE}/nvidia/cublas/lib/libcublasLt.so.13", "cuBLAS"),
        (f"{SITE}/nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9", "cuDNN"),
        (f"{SITE}/nvidia/nccl/lib/libnccl.so.2", "NCCL"),
        (f"{SITE}/nvidia/cufft/lib/libcufft.so.12", "cuFFT"),
        (f"{SITE}/cupy_backends/cuda/api/driver.cpython-312-x86_64-linux-gnu.so", "cupy (driver)"),
        (f"{SITE}/cuda/bindings/_bindings/cydriver.cpython-312-x86_64-linux-gnu.so", "cuda.bindings (cydriver)"),
        (f"{SITE}/jax_plugins/xla_cuda13/xla_cuda_plugin.so", "jax (xla_cuda_plugin)"),
        (f"{SITE}/numba_cuda/core/ext.abi3.so", "numba (ext)"),
        ("/usr/lib/x86_64-linux-gnu/libffi.so.8.1.2", "ctypes"),
        ("/opt/app/bin/solver", "solver"),
        ("/usr/lib/x86_64-linux-gnu/libmine.so.1", "libmine"),
    ],
)
def test_library_names(path: str, name: str) -> None:
    assert library_name(path) == name


@pytest.mark.parametrize(
    ("filename", "hidden"),
    [
        (f"{SITE}/gpumem_magic/session.py", True),
        (f"{SITE}/IPython/core/interactiveshell.py", True),
        (f"{SITE}/ipykernel/kernelapp.py", True),
        (f"{SITE}/ipykernel_launcher.py", True),
        ("<frozen runpy>", True),
        ("<frozen importlib._bootstrap>", True),
        ("/usr/lib/python3.12/asyncio/events.py", True),
        ("/usr/lib/python3.12/threading.py", True),
        ("/usr/lib/python3.12/contextlib.py", False),
        (f"{SITE}/torch/nn/functional.py", False),
        ("/home/ada/gpumem_magic/train.py", False),
        ("/home/ada/IPython/notes.py", False),
    ],
)
def test_machinery_is_hidden(filename: str, hidden: bool) -> None:
    assert is_machinery(filename) is hidden


def frame(spec: tuple[str, str, int]) -> Frame:
    return Frame(filename=spec[0], function=spec[1], line=spec[2])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], "(no Python frame)"),
        ([notebook(5, 3)], "In [7]:3"),
        ([notebook(5, 3, "train.<locals>.step")], "In [7]:3 step"),
        ([notebook(6, 3)], "cell:3"),
        ([LINEAR, notebook(5, 3)], "In [7]:3 via torch.nn.functional.linear"),
        ([LINEAR], "torch.nn.functional.linear"),
        ([("<ipython-input-9-0123abcdef01>", "<module>", 2)], "In [9]:2"),
        ([("/usr/lib/python3.12/contextlib.py", "ExitStack.__exit__", 9), ("C:\\x\\a.py", "f", 4)],
         "a.py:4 f via contextlib.ExitStack.__exit__"),
        ([("/home/ada/a.py", "<module>", 0)], "a.py"),
    ],
)  # fmt: skip
def test_where(frames: list[tuple[str, str, int]], expected: str) -> None:
    assert where([frame(each) for each in frames], {notebook(5, 0)[0]: "In [7]"}) == expected


def test_shown_frames_keep_the_innermost() -> None:
    stack = [frame(each) for each in (LINEAR, notebook(1, 1), IPYTHON)]
    assert shown_frames(stack) == tuple(stack[:2])
    assert shown_frames(stack, 1) == tuple(stack[:1])
    assert not is_user(LINEAR[0])


def test_the_latest_run_up_to_a_cell_names_its_source() -> None:
    recording = Recording()
    runs = []
    for count in (3, 5, 9):
        with recording.cell(count) as cell:
            recording.alloc(1, ("/home/ada/a.py", "f", 1), notebook(30, 2), IPYTHON)
            runs.append(cell)
    snapshot = recording.snapshot()
    name = notebook(30, 0)[0]
    assert notebook_labels(snapshot)[name] == "In [9]"
    assert notebook_labels(snapshot, until=snapshot.cell(runs[1]))[name] == "In [5]"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ada/.venv/lib/python3.12/site-packages/torch/nn/functional.py", "torch/nn/functional.py"),
        ("/usr/lib/python3/dist-packages/numpy/core.py", "numpy/core.py"),
        ("/usr/lib/python3.11/threading.py", "threading.py"),
        ("/home/ada/project/train.py", "/home/ada/project/train.py"),
        ("/tmp/ipykernel_42/77.py", "/tmp/ipykernel_42/77.py"),
    ],
)
def test_the_path_of_an_installed_file_begins_with_its_package(path: str, shown: str) -> None:
    assert short_path(path) == shown


def test_names_that_read_alike_get_callers_until_they_differ() -> None:
    stacks = [["alloc", "forward", "In [6]:2"], ["alloc", "forward", "In [9]:2"], ["alloc", "load", "In [6]:2"], ["x"]]
    assert distinct_names(["alloc", "alloc", "alloc", "x"], stacks) == [
        "alloc ← forward ← In [6]:2",
        "alloc ← forward ← In [9]:2",
        "alloc ← load",
        "x",
    ]


def test_names_of_the_same_stack_stay_the_same() -> None:
    assert distinct_names(["a", "a"], [["a", "b"], ["a", "b"]]) == ["a", "a"]
    assert distinct_names(["a", "a"], [[], []]) == ["a", "a"]
    assert distinct_names(["a", "a"], [["a"], ["a", "b"]]) == ["a", "a ← b"]
    assert distinct_names([], []) == []


def test_sources_of_cython_are_a_library_s() -> None:
    """Their frames have the name that the source had where it was built."""
    malloc = Frame(
        filename="cupy/cuda/memory.pyx", function="cupy.cuda.memory.SingleDeviceMemoryPool._try_malloc", line=1560
    )
    mine = Frame(filename="/home/someone/train.py", function="train", line=3)
    assert where([malloc, mine], {}) == "train.py:3 train via cupy.cuda.memory.SingleDeviceMemoryPool._try_malloc"
    plain = dataclasses.replace(malloc, function="empty")
    assert where([plain, mine], {}) == "train.py:3 train via cupy.cuda.memory.empty"
    own = dataclasses.replace(malloc, filename="/home/someone/fast.pyx", function="fast.run", line=7)
    assert where([own, mine], {}).startswith("fast.pyx:7")
