"""Which CUPTI library to talk to.

Loading a different file maps a second copy even when the name inside is the same, and a second copy has no link
to the driver's callbacks that the first one holds. So the copy that is loaded already always wins.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import os
import pathlib
import sys

SONAMES = ("libcupti.so.13", "libcupti.so.12")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CuptiLibrary:
    """Where CUPTI was found."""

    path: str  # for dlopen; a bare soname when it is loaded or on the loader's path
    source: str  # how it was found, for people


def is_loaded(soname: str) -> bool:
    """True when a library of that name is mapped into this process. Loads nothing."""
    try:
        ctypes.CDLL(soname, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    return True


def find_cupti() -> CuptiLibrary | None:
    """The library to subscribe through; None when there is none.

    In order: loaded already, the one that the installed torch will load, the one that cuda-pathfinder knows,
    and whatever the loader finds.
    """
    for soname in SONAMES:
        if is_loaded(soname):
            return CuptiLibrary(path=soname, source="already loaded")
    for path in _beside_torch():
        return CuptiLibrary(path=str(path), source="the CUDA packages that the installed torch uses")
    found = _from_pathfinder()
    if found is not None:
        return CuptiLibrary(path=found, source="cuda-pathfinder")
    for soname in SONAMES:
        if _on_loader_path(soname):
            return CuptiLibrary(path=soname, source="the system's loader path")
    return None


def _beside_torch() -> list[pathlib.Path]:
    """CUPTI of the wheel that the installed torch links to. Does not import torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    major = _torch_cuda_major()
    folders = [f"nvidia/cu{major}/lib", "nvidia/cuda_cupti/lib"]
    names = [f"libcupti.so.{major}"] if major else list(SONAMES)
    candidates = (
        pathlib.Path(entry or ".", folder, name) for entry in sys.path for folder in folders for name in names
    )
    return [path for path in candidates if path.is_file()]


def _torch_cuda_major() -> str:
    """``13`` for a torch built for CUDA 13, "" when its version file does not say."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return ""
    version_file = pathlib.Path(spec.submodule_search_locations[0], "version.py")
    try:
        lines = version_file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition("=")
        if name.split(":")[0].strip() == "cuda":
            return value.strip().strip("'\"").split(".")[0] if value.strip() != "None" else ""
    return ""


def _from_pathfinder() -> str | None:
    try:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return str(load_nvidia_dynamic_lib("cupti").abs_path or "") or None
    except (DynamicLibNotFoundError, RuntimeError, NotImplementedError, ValueError):
        return None  # this pathfinder does not know CUPTI, or found none


def _on_loader_path(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True
