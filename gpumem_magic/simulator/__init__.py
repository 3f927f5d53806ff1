"""A GPU of our own, for machines without one.

`activate` loads three small C libraries whose sonames are those of the CUDA
driver, CUPTI and NVML. The loader matches any later ``dlopen("libcuda.so.1")``
to them, so cuda.bindings, cuda.core, numba-cuda and pynvml run on the simulated
devices unchanged. What needs the CUDA runtime's own libraries (torch, CuPy, RMM)
cannot.

The libraries keep the driver's rules: contexts, 2 MiB physical pages, pools,
out of memory at capacity, the errors of wrong calls, one CUPTI subscriber. Copies
move real bytes; kernels cannot be launched.

Environment variables choose whom to imitate: ``GPUMEM_SIM_DRIVER=12040`` is an
older driver, ``GPUMEM_SIM_CUPTI=13.2`` a CUPTI that allows several subscribers.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "activate",
    "advance_clock",
    "fail_next",
    "hide_process_memory",
    "is_active",
    "library_paths",
    "schedule_other_process",
    "set_call_delay",
    "set_other_process_bytes",
    "use_manual_clock",
    "used_bytes",
]

_LIBRARIES = ("libcuda.so.1", "libcupti.so.13", "libnvidia-ml.so.1")
_MARKER = "gsim_is_simulated_driver"
_MAX_DEVICES = 8
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

# Loaded for the life of the process, never closed: callers hold function
# pointers into them. Empty until `activate`.
_loaded: list[ctypes.CDLL] = []


class _Usage(ctypes.Structure):
    _fields_ = [
        ("capacity", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64),
        ("ours", ctypes.c_uint64),
        ("others", ctypes.c_uint64),
    ]


def library_paths() -> dict[str, Path]:
    """Where the three libraries are: path by file name."""
    folder = Path(__file__).parent / "lib"
    return {name: folder / name for name in _LIBRARIES}


def activate(*, devices: int = 1, memory: int | str = "16GiB") -> None:
    """Make this process's GPUs simulated ones.

    Call it before anything loads a CUDA driver. Calling it again with the same
    arguments changes nothing.

    Args:
        devices: How many, from 1 to 8.
        memory: Of each device: bytes, or a size such as ``"16GiB"``.

    Raises:
        RuntimeError: A real driver is already loaded, or the simulator was not built, or the devices are in use with
            another shape.
        ValueError: An argument makes no sense.
    """
    capacity = _bytes_from(memory)
    if not 1 <= devices <= _MAX_DEVICES:
        raise ValueError(f"devices must be from 1 to {_MAX_DEVICES}, not {devices}")
    if not _loaded:
        _refuse_real_libraries()
        _load()
    if not _cuda().gsim_configure(devices, capacity):
        raise RuntimeError(
            "The simulated GPU is already in use with other devices or another memory "
            "size. Restart the process (the notebook's kernel) to change them."
        )


def is_active() -> bool:
    """Whether this process's driver is the simulated one."""
    return bool(_loaded)


def used_bytes(device: int = 0) -> int:
    """Bytes in use on the device, by this process and by scripted others.

    Equals ``total - free`` of ``cuMemGetInfo`` and ``used`` of NVML's version 2.
    """
    usage = _Usage()
    _check_device(_cuda().gsim_usage(device, ctypes.byref(usage)), device)
    return int(usage.ours + usage.others)


def set_other_process_bytes(device: int, pid: int, bytes: int) -> None:  # noqa: A002
    """Let another process hold that much of the device from now on."""
    schedule_other_process(device, pid, steps=[(0.0, bytes)])


def schedule_other_process(device: int, pid: int, steps: Sequence[tuple[float, int]]) -> None:
    """Script what another process holds over time.

    Args:
        device: Its ordinal.
        pid: The process; an earlier script of it is replaced.
        steps: ``(seconds from now, bytes held from then on)``, ordered by time. What does not fit beside this process
            is not counted.
    """
    seconds = (ctypes.c_double * len(steps))(*(at for at, _ in steps))
    held = (ctypes.c_uint64 * len(steps))(*(size for _, size in steps))
    scripted = _cuda().gsim_script_process(device, pid, seconds, held, len(steps))
    _check_device(scripted, device)


def use_manual_clock() -> None:
    """Stop the simulator's time; only `advance_clock` moves it from now on."""
    _cuda().gsim_use_manual_clock()


def advance_clock(seconds: float) -> None:
    """Move the stopped clock forward."""
    _cuda().gsim_advance_clock(ctypes.c_double(seconds))


def fail_next(function_name: str, status: int, *, after: int = 0, times: int = 1) -> None:
    """Make coming calls of a driver function fail before they do anything.

    Args:
        function_name: With or without version and stream suffix. ``"cuMemAlloc"`` means every form of it, each with a
            count of its own.
        status: The ``CUresult`` to answer.
        after: Calls that still pass before the first failure.
        times: Calls that fail; 0 disarms.
    """
    matched = _cuda().gsim_fail_next(function_name.encode(), int(status), after, times)
    _check_function(matched, function_name)


def set_call_delay(function_name: str, microseconds: int, *, hold_lock: bool = False) -> None:
    """Make every call of a driver function take longer; 0 undoes it.

    With `hold_lock` the driver-wide lock is held meanwhile, so that calls of other
    threads wait too.
    """
    matched = _cuda().gsim_delay_calls(function_name.encode(), microseconds, hold_lock)
    _check_function(matched, function_name)


def hide_process_memory(*, hidden: bool = True) -> None:
    """Let NVML answer "not available" for each process's memory, as under WSL."""
    _cuda().gsim_hide_process_memory(hidden)


def _bytes_from(memory: int | str) -> int:
    if isinstance(memory, int):
        size = memory
    else:
        number = memory.rstrip("BKMGTi").strip()
        unit = memory[len(number) :].strip() or "B"
        if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
            raise ValueError(f"memory must be bytes or a size such as '16GiB', not {memory!r}")
        size = int(float(number) * _UNITS[unit])
    if size <= 0:
        raise ValueError(f"memory must be more than nothing, not {memory!r}")
    return size


def _refuse_real_libraries() -> None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
        except OSError:
            continue
        if name != "libcuda.so.1" or not hasattr(library, _MARKER):
            raise RuntimeError(
                f"The real {name} is already loaded in this process, so the GPU cannot "
                "be simulated here. Restart the process (the notebook's kernel) and "
                "activate the simulator before anything that uses CUDA is imported."
            )


def _load() -> None:
    for name, path in library_paths().items():
        if not path.exists():
            raise RuntimeError(
                f"{path} does not exist: the simulator was not built. Install "
                "gpumem_magic with a C compiler present, on Linux."
            )
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        if name == "libcuda.so.1":
            _declare(library)
        _loaded.append(library)


def _declare(cuda: ctypes.CDLL) -> None:
    c_int, c_uint32, c_bool = ctypes.c_int, ctypes.c_uint32, ctypes.c_bool
    cuda.gsim_configure.argtypes = [c_int, ctypes.c_uint64]
    cuda.gsim_usage.argtypes = [c_int, ctypes.POINTER(_Usage)]
    cuda.gsim_script_process.argtypes = [
        c_int,
        c_uint32,
        ctypes.POINTER(ctypes.c_double),
        ctypes.POINTER(ctypes.c_uint64),
        c_int,
    ]
    for name in ("gsim_configure", "gsim_usage", "gsim_script_process"):
        getattr(cuda, name).restype = c_bool
    cuda.gsim_fail_next.argtypes = [ctypes.c_char_p, c_int, c_int, c_int]
    cuda.gsim_delay_calls.argtypes = [ctypes.c_char_p, ctypes.c_uint, c_bool]
    cuda.gsim_hide_process_memory.argtypes = [c_bool]


def _cuda() -> ctypes.CDLL:
    if not _loaded:
        raise RuntimeError("The simulated GPU is not active. Call gpumem_magic.simulator.activate() first.")
    return _loaded[0]


def _check_device(found: int, device: int) -> None:
    if not found:
        raise ValueError(f"There is no simulated device {device}.")


def _check_function(matched: int, function_name: str) -> None:
    if matched == 0:
        raise ValueError(f"The simulated driver has no function {function_name!r}.")
