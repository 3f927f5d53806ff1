"""What ``gpumem doctor`` looks at. One function per matter; none needs a GPU, none disturbs anybody."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
import sysconfig
from typing import TYPE_CHECKING

from gpumem_magic import __version__
from gpumem_magic.cli.probe import Trial, try_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator

_OLDEST_PYTHON = (3, 11)
_NEWEST_PYTHON = (3, 14)  # the newest whose frames are known to the stack walker
_PACKAGES = ("ipython", "ipywidgets", "bokeh", "numpy", "psutil", "nvidia-ml-py")
_LEAST_FREE_BYTES = 1 << 30
_OLDEST_DRIVER_MAJOR = 12
_DEFECT = "This is a defect of gpumem_magic. Please report it with the output of `gpumem doctor --json`."
_INJECTORS = {
    "CUDA_INJECTION64_PATH": "a profiler that is loaded into every CUDA program (Nsight Systems, for one)",
    "COMPUTE_SANITIZER_INJECTION_PATH": "compute-sanitizer",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    grade: str  # "ok", "info" (nothing wrong, good to know), "warn" or "fail"
    finding: str
    advice: str = ""  # what to do; "" when nothing needs doing


def all_checks() -> Iterator[Check]:
    """Every check, the basic ones first. Lazy, so that a caller can show each as it comes."""
    yield check_python()
    core = check_core()
    yield core
    yield from check_packages()
    yield check_recordings()
    yield check_simulator()
    if core.grade == "fail":
        yield Check(name="tracking", grade="fail", finding="Not tried: it needs the native core.")
        return
    yield from check_tracking()


def check_python() -> Check:
    """Version and kind of the interpreter."""
    finding = f"gpumem_magic {__version__}, {platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython" or sys.version_info < _OLDEST_PYTHON:
        return Check(name="python", grade="fail", finding=finding, advice="It needs CPython 3.11 or newer.")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        advice = "This is a free-threaded build: Python stacks are off. Use an ordinary build for them."
        return Check(name="python", grade="warn", finding=finding, advice=advice)
    if sys.version_info[:2] > _NEWEST_PYTHON:
        advice = "This Python is newer than this release: Python stacks may be off."
        return Check(name="python", grade="warn", finding=finding, advice=advice)
    return Check(name="python", grade="ok", finding=f"{finding}, {platform.machine()}")


def check_core() -> Check:
    """Whether the compiled part is there and fits this interpreter."""
    try:
        core = importlib.import_module("gpumem_magic._core")
    except ImportError as error:
        return Check(
            name="native core",
            grade="fail",
            finding=f"It cannot be loaded: {error}",
            advice=f"Install it for this interpreter: {sys.executable} -m pip install --force-reinstall gpumem_magic",
        )
    return Check(name="native core", grade="ok", finding=pathlib.Path(str(core.__file__)).name)


def check_packages() -> Iterator[Check]:
    """The libraries that are needed, in one line when all is well."""
    found, missing = [], []
    for package in (*_PACKAGES, "cuda-python"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if found:
        yield Check(name="packages", grade="ok", finding=", ".join(found))
    if missing:
        advice = f"Install them: {sys.executable} -m pip install {' '.join(missing)}"
        yield Check(name="packages", grade="fail", finding=f"Missing: {', '.join(missing)}", advice=advice)


def check_recordings() -> Check:
    """Whether a recording can be kept, by beginning one and taking it away again."""
    try:
        recording = importlib.import_module("gpumem_magic.capture.recording")
    except ImportError as error:
        return Check(name="recordings", grade="fail", finding=f"Not tried: {error}")
    home = recording.home()
    made_home = not home.exists()
    try:
        recording.create_directory().rmdir()
        free = shutil.disk_usage(home).free
        if made_home:
            home.rmdir()
    except recording.RecordingError as error:
        advice = "Until then recordings are kept in memory and are gone when the process ends."
        return Check(name="recordings", grade="warn", finding=str(error), advice=advice)
    finding = f"kept in {home}, {free / 2**30:.1f} GiB free"
    if free < _LEAST_FREE_BYTES:
        advice = "A recording may take up to 1 GiB. Free some space, or set GPUMEM_HOME to another disk."
        return Check(name="recordings", grade="warn", finding=finding, advice=advice)
    return Check(name="recordings", grade="ok", finding=finding)


def check_simulator() -> Check:
    """Whether the libraries of the simulated GPU were built."""
    from gpumem_magic import simulator  # noqa: PLC0415

    missing = [name for name, path in simulator.library_paths().items() if not path.exists()]
    if missing:
        advice = "Install gpumem_magic again, with a C compiler present. Real GPUs are tracked without it."
        finding = f"Missing: {', '.join(missing)}"
        return Check(name="simulated GPU", grade="warn", finding=finding, advice=advice)
    return Check(name="simulated GPU", grade="ok", finding="its libraries are installed")


def check_tracking() -> Iterator[Check]:
    """The tracker itself, tried in a child process: on the real driver, or on the simulated GPU where there is none."""
    trial = try_tracker()
    if trial.problem:
        finding = f"A trial in a process of its own: {trial.problem}."
        yield Check(name="tracking", grade="fail", finding=finding, advice=_DEFECT)
        return
    yield _check_stacks(trial)
    if trial.state == "no GPU":
        yield Check(name="GPU", grade="info", finding=trial.reason.split(". ")[0].rstrip(".") + ".")
        yield from _check_without_gpu()
        return
    yield _check_driver(trial)
    yield from check_other_tools()
    yield _check_cupti(trial)
    yield _check_nvml(trial)
    yield from _check_bindings(trial)


def _check_stacks(trial: Trial) -> Check:
    if trial.stacks:
        return Check(name="Python stacks", grade="warn", finding=trial.stacks)
    return Check(name="Python stacks", grade="ok", finding="a trial walk agrees with the interpreter")


def _check_without_gpu() -> Iterator[Check]:
    """No GPU is nothing bad: everything can be tried on the simulated one."""
    trial = try_tracker(simulate=True)
    if trial.problem or trial.state != "on" or not trial.heartbeat:
        finding = f"The simulated GPU does not work: {trial.problem or trial.reason or 'no call is seen'}."
        yield Check(name="tracking", grade="fail", finding=finding, advice=_DEFECT)
        return
    yield Check(
        name="tracking",
        grade="ok",
        finding="driver calls are seen on the simulated GPU",
        advice="To use it: `%gpumem simulate` in a notebook, `gpumem run --simulate SCRIPT` in a terminal. "
        "It runs cuda.bindings, cuda.core and numba-cuda code, but not torch or CuPy.",
    )


def _check_driver(trial: Trial) -> Check:
    sizes = [f"{name}, {size / 2**30:.1f} GiB" for name, size in zip(trial.devices, trial.device_bytes, strict=True)]
    finding = f"CUDA driver {trial.driver or 'of unknown version'}: {'; '.join(sizes) or 'no device'}"
    if _major(trial.driver) < _OLDEST_DRIVER_MAJOR:
        advice = f"Update the driver: gpumem_magic is made for CUDA {_OLDEST_DRIVER_MAJOR} and newer."
        return Check(name="GPU", grade="warn", finding=finding, advice=advice)
    return Check(name="GPU", grade="ok", finding=finding)


def check_other_tools() -> Iterator[Check]:
    """Tools that the environment loads into every CUDA program, and that then hold CUPTI."""
    for variable, tool in _INJECTORS.items():
        if os.environ.get(variable):
            advice = f"Start without it (unset {variable}) when tracking says that CUPTI is held."
            yield Check(name="other tools", grade="warn", finding=f"{variable} is set: {tool}.", advice=advice)


def _check_cupti(trial: Trial) -> Check:
    version = f", version {trial.cupti_version}" if trial.cupti_version else ""
    if trial.state != "on":
        reason = trial.reason or f"The tracker is {trial.state}."
        loader = f" The loader says: {trial.loader_message}" if trial.loader_message else ""
        return Check(name="tracking", grade="fail", finding=reason + loader)
    if not trial.heartbeat:
        return Check(
            name="tracking",
            grade="fail",
            finding=f"{trial.library}{version} accepted the subscription, but no call is seen.",
            advice="The driver may be older than this CUPTI: update it, or install the CUPTI of its CUDA version.",
        )
    newer = _cupti_major(trial.library) > _major(trial.driver)
    return Check(
        name="tracking",
        grade="warn" if newer else "ok",
        finding=f"driver calls are seen, through {trial.library}{version}",
        advice="This CUPTI is newer than the driver: some calls may not be seen. Update the driver." if newer else "",
    )


def _check_nvml(trial: Trial) -> Check:
    if trial.nvml:
        return Check(name="NVML", grade="ok", finding=f"answers, driver {trial.nvml}")
    finding = f"does not answer: {trial.nvml_problem}."
    return Check(name="NVML", grade="warn", finding=finding, advice="What other processes use cannot be told.")


def _check_bindings(trial: Trial) -> Iterator[Check]:
    """cuda-python may be newer than the driver; calls that the driver lacks then fail."""
    try:
        version = importlib.metadata.version("cuda-python")
    except importlib.metadata.PackageNotFoundError:
        return
    if _major(version) > _major(trial.driver):
        fitting = max(_major(trial.driver), _OLDEST_DRIVER_MAJOR)
        advice = f"If calls fail, install the one for the driver: pip install 'cuda-python=={fitting}.*'"
        finding = f"cuda-python {version} is newer than the driver (CUDA {trial.driver})"
        yield Check(name="cuda-python", grade="warn", finding=finding, advice=advice)


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


def _cupti_major(library: str) -> int:
    """13 of ``.../libcupti.so.13 (already loaded)``."""
    return _major(library.rpartition(" (")[0].rpartition(".so.")[2])
