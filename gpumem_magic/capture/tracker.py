"""The native tracker, with its result codes turned into sentences."""

from __future__ import annotations

import dataclasses
import enum
import sys
import sysconfig

from gpumem_magic import _core
from gpumem_magic.capture import cupti, driver

DEFAULT_DEPTH = 128
_MULTIPLE_SUBSCRIBERS = 39
_DRIVER_FAILED = -1000  # minus the status of cuInit
_NO_DEVICE = 100
_INSUFFICIENT_DRIVER = 35

_PROFILERS = {"kineto": "torch.profiler", "libkineto": "torch.profiler", "xla": "jax.profiler"}


class Group(enum.IntFlag):
    """Calls that are watched. Memory always; the others cost something on every copy or wait."""

    MEMORY = 1
    COPIES = 2
    WAITS = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What became of an attempt to see driver calls."""

    attached: bool
    reason: str = ""  # why not, and what to do; "" when attached
    library: str = ""  # the CUPTI that is used
    busy: bool = False  # somebody else holds CUPTI: trying again later makes sense


def attach(groups: Group = Group.MEMORY) -> Attachment:
    """Subscribe to driver calls. Needs a driver; initialises it (``cuInit``) if nobody did."""
    if not driver.is_driver_present():
        return Attachment(attached=False, reason=_NO_DRIVER)
    library = cupti.find_cupti()
    if library is None:
        return Attachment(attached=False, reason=_NO_CUPTI)
    result = _core.subscribe(library.path, int(groups))
    if result == 0:
        return Attachment(attached=True, library=f"{library.path} ({library.source})")
    return Attachment(attached=False, reason=_explain(result, library), busy=result == _MULTIPLE_SUBSCRIBERS)


_NO_DRIVER = (
    "No NVIDIA driver was found (libcuda.so.1 cannot be loaded). "
    "Run `%gpumem simulate` to work on a simulated GPU, or `gpumem doctor` to see what was looked for."
)
_NO_CUPTI = (
    "CUPTI, the library through which driver calls are seen, was not found. "
    "Install it with `pip install nvidia-cuda-cupti` (CUDA 13) or `nvidia-cuda-cupti-cu12` (CUDA 12) "
    "and load the extension again."
)


def _explain(result: int, library: cupti.CuptiLibrary) -> str:
    if result == _MULTIPLE_SUBSCRIBERS:
        return f"{slot_holder()} holds CUPTI, and this CUPTI serves one tool at a time."
    if result <= _DRIVER_FAILED:
        return _explain_driver(_DRIVER_FAILED - result)
    return {
        -1: f"{library.path} was found but cannot be loaded. Run `gpumem doctor` for the loader's message.",
        -2: _NO_DRIVER,
        -3: f"{library.path} or the driver lacks a function that is needed. It may be too old: CUDA 12 or newer works.",
    }.get(result, f"CUPTI refused the subscription (CUPTI result {result}). Run `gpumem doctor` for details.")


def _explain_driver(status: int) -> str:
    if status == _NO_DEVICE:
        return (
            "The NVIDIA driver is installed but sees no GPU (CUDA_ERROR_NO_DEVICE). "
            "Check CUDA_VISIBLE_DEVICES and `nvidia-smi`."
        )
    if status == _INSUFFICIENT_DRIVER:
        return "The NVIDIA driver is older than this CUDA needs. Update the driver."
    return f"The NVIDIA driver cannot be initialised (cuInit returned {status}). Check `nvidia-smi`."


def slot_holder() -> str:
    """Who most likely holds CUPTI, for people."""
    named = _core.other_subscriber()
    if named:
        return next((name for key, name in _PROFILERS.items() if key in named.lower()), named)
    torch_profiler = sys.modules.get("torch.autograd.profiler")
    if torch_profiler is not None:
        return "torch.profiler"
    return "Another profiler (torch.profiler, Nsight, cuda-gdb or compute-sanitizer)"


def start_stacks(depth: int) -> str:
    """Turn Python stacks on. Returns "" or, when they cannot be had, why."""
    _core.configure(depth, False)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "Python stacks are off: this is a free-threaded interpreter, whose frames cannot be read safely."
    if not _core.watch_code():
        return "Python stacks are off: this interpreter cannot tell when code objects die."
    _core.configure(depth, True)
    return ""
