"""A trial of the tracker in a process of its own, so that ``gpumem doctor`` disturbs nobody.

The child does what a notebook does: a session starts, looks for driver and CUPTI, walks its own stack, subscribes,
waits for a heartbeat, and stops. A library that crashes takes only the child with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

_TIMEOUT_S = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a child process found. The fields after ``problem`` mean nothing when that is not empty."""

    problem: str = ""  # why the trial itself failed: it crashed, hung, or could not import the core
    state: str = ""  # as ``Status.state`` of the session
    reason: str = ""
    heartbeat: bool = False
    library: str = ""
    loader_message: str = ""  # why the CUPTI that was found cannot be loaded
    cupti_version: int = 0  # as cuptiGetVersion tells it; 0 when unknown
    driver: str = ""  # "13.0"
    devices: tuple[str, ...] = ()
    device_bytes: tuple[int, ...] = ()  # 0 when unknown
    stacks: str = ""  # "" when stacks are taken, else why not
    nvml: str = ""  # NVML's driver version, "" when NVML does not answer
    nvml_problem: str = ""


def try_tracker(*, simulate: bool = False) -> Trial:
    """Run the trial in a child process. Never raises for anything the child does."""
    with tempfile.TemporaryDirectory(prefix="gpumem-doctor-") as home:
        environment = {**os.environ, "GPUMEM_HOME": home, "PYTHONPATH": _search_path()}
        command = [sys.executable, "-P", "-m", __name__, *(["simulate"] if simulate else [])]
        try:
            done = subprocess.run(  # noqa: S603  (ourselves)
                command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Trial(problem=f"it did not answer within {_TIMEOUT_S} s")
        except OSError as error:
            return Trial(problem=f"no process could be started ({error.strerror})")
    if done.returncode:
        return Trial(problem=_how_it_ended(done.returncode, done.stderr))
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    fields.update({name: tuple(value) for name, value in fields.items() if isinstance(value, list)})
    return Trial(**fields)


def _search_path() -> str:
    """Where this process finds its packages, ours among them, also when it was started in a checkout."""
    ours = str(pathlib.Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(each for each in (inherited, ours) if each)


def _how_it_ended(status: int, stderr: str) -> str:
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name})"
    last = stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return f"it ended with: {last[0]}"


def _trial(*, simulate: bool) -> Trial:
    """The child's part."""
    from gpumem_magic import simulator  # noqa: PLC0415  (the parent must not need the core)
    from gpumem_magic.session import Session  # noqa: PLC0415

    if simulate:
        simulator.activate()
    session = Session()
    status = session.start()
    try:
        nvml, nvml_problem = _nvml_version()
        return Trial(
            state=status.state,
            reason=status.reason,
            heartbeat=session.check(),
            library=status.library,
            loader_message="" if status.state in ("on", "no GPU") else _loader_message(),
            cupti_version=_cupti_version(status.library),
            driver=status.driver,
            devices=tuple(device.name for device in status.devices),
            device_bytes=tuple(device.total_bytes or 0 for device in status.devices),
            stacks=status.stacks,
            nvml=nvml,
            nvml_problem=nvml_problem,
        )
    finally:
        session.stop()


def _nvml_version() -> tuple[str, str]:
    """The driver's version as NVML tells it, and why it does not."""
    import pynvml  # noqa: PLC0415

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return "", str(error)
    return str(version), ""


def _cupti_version(library: str) -> int:
    """Asks the CUPTI that is in use; ``library`` is ``PATH (how it was found)``."""
    import ctypes  # noqa: PLC0415

    path = library.rpartition(" (")[0]
    if not path:
        return 0
    version = ctypes.c_uint32()
    try:
        ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW).cuptiGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def _loader_message() -> str:
    """What the dynamic loader says about the CUPTI that was found; "" when it loads, or when there is none."""
    import ctypes  # noqa: PLC0415

    from gpumem_magic.capture.cupti import find_cupti  # noqa: PLC0415

    found = find_cupti()
    if found is None:
        return ""
    try:
        ctypes.CDLL(found.path)
    except OSError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_trial(simulate="simulate" in sys.argv[1:]))))
