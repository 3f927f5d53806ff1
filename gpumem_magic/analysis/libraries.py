"""Short names for the native libraries that call the driver: ``torch (libc10_cuda)``, ``cuBLAS``, ``NCCL``."""

from __future__ import annotations

import functools
import re

_PRODUCTS = (
    ("libcublas", "cuBLAS"),
    ("libnvblas", "cuBLAS"),
    ("libcudnn", "cuDNN"),
    ("libnccl", "NCCL"),
    ("libcufft", "cuFFT"),
    ("libcusparse", "cuSPARSE"),
    ("libcusolver", "cuSOLVER"),
    ("libcurand", "cuRAND"),
    ("libcutensor", "cuTENSOR"),
    ("libcufile", "cuFile"),
    ("libnvrtc", "NVRTC"),
    ("libnvjpeg", "nvJPEG"),
    ("libnvinfer", "TensorRT"),
    ("libnvshmem", "NVSHMEM"),
    ("libnpp", "NPP"),
    ("librmm", "RMM"),
    ("libcudf", "cuDF"),
    ("libonnxruntime", "ONNX Runtime"),
    ("libffi", "ctypes"),
    ("_ctypes", "ctypes"),
    ("libpython", "Python"),
    ("libcudart", "CUDA runtime"),
    ("libcuda", "CUDA driver"),
)
"""Start of a file's name, and the product it belongs to. The first match wins."""

_PACKAGES = ("torch", "cupy", "cupy_backends", "numba", "numba_cuda", "jax", "jaxlib", "tensorflow", "cuda")
"""Packages that are recognised outside ``site-packages`` too, as in a development build."""

_RENAMED = {
    "cupy_backends": "cupy",
    "numba_cuda": "numba",
    "jaxlib": "jax",
    "jax_plugins": "jax",
    "jax_cuda12_plugin": "jax",
    "jax_cuda13_plugin": "jax",
}
_SUFFIX = re.compile(r"(\.(cpython|cp|abi|pypy)[^/]*)?\.(so|pyd|dll|dylib)[.\d]*$")


@functools.lru_cache(maxsize=1024)
def library_name(path: str) -> str:
    """The name that a table shows for the library at ``path``; "" for "" (unknown)."""
    parts = path.replace("\\", "/").split("/")
    stem = _SUFFIX.sub("", parts[-1])
    for start, product in _PRODUCTS:
        if stem.lower().startswith(start):
            return product
    package = _package(parts[:-1])
    return f"{package} ({stem})" if package and stem != package else stem


def _package(directories: list[str]) -> str:
    """The Python package that a file in ``directories`` belongs to; "" when in none that we know."""
    for index, name in enumerate(directories):
        if name in {"site-packages", "dist-packages"}:
            return _known(directories[index + 1 :])
    for index in range(len(directories) - 1, -1, -1):
        if directories[index] in _PACKAGES:
            return _known(directories[index:])
    return ""


def _known(parts: list[str]) -> str:
    if not parts:
        return ""
    if parts[0] == "cuda" and len(parts) > 1:  # a namespace package: cuda.bindings, cuda.core
        return ".".join(parts[:2])
    return _RENAMED.get(parts[0], parts[0])
