"""``gpumem doctor``: right about machines with a GPU, without one, and with something wrong."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic import simulator
from gpumem_magic.capture import driver
from gpumem_magic.cli import checks, probe
from gpumem_magic.cli.doctor import doctor_text

if TYPE_CHECKING:
    from collections.abc import Callable

    Gpumem = Callable[..., subprocess.CompletedProcess[str]]

without_gpu = pytest.mark.skipif(driver.is_driver_present(), reason="there is a GPU here")


@pytest.fixture
def installed_driver(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment in which the simulated driver is found where a real one would be: on the loader's path."""
    folder = tmp_path / "driver"
    folder.mkdir()
    for name, path in simulator.library_paths().items():
        (folder / name).symlink_to(path)
    return {"LD_LIBRARY_PATH": str(folder)}


def grades(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str, str]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return {check["name"]: (check["grade"], check["finding"], check["advice"]) for check in found}


@without_gpu
def test_no_gpu_is_nothing_bad(gpumem: Gpumem) -> None:
    done = gpumem("doctor")
    assert done.returncode == 0, done.stdout
    assert "fail" not in done.stdout
    assert "%gpumem simulate" in done.stdout
    assert done.stdout.splitlines()[-1] == "It works; there is no GPU here: use the simulated one."


@without_gpu
def test_nothing_is_left_behind(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    home = tmp_path / "not" / "yet"
    assert grades(gpumem("doctor", "--json", GPUMEM_HOME=str(home)))["recordings"][0] == "ok"
    assert not home.exists()


@without_gpu
def test_a_driver(gpumem: Gpumem, installed_driver: dict[str, str]) -> None:
    done = gpumem("doctor", "--json", **installed_driver)
    found = grades(done)
    assert done.returncode == 0
    assert {name: grade for name, (grade, _, _) in found.items()} == dict.fromkeys(found, "ok")
    assert found["GPU"][1] == "CUDA driver 13.0: Simulated GPU 0, 16.0 GiB"
    assert "libcupti.so.13" in found["tracking"][1]
    assert "simulated" in found["NVML"][1]


@without_gpu
def test_a_driver_older_than_cupti(gpumem: Gpumem, installed_driver: dict[str, str]) -> None:
    done = gpumem("doctor", "--json", **installed_driver, GPUMEM_SIM_DRIVER="12040")
    found = grades(done)
    assert done.returncode == 0  # it works, but less well
    assert found["tracking"][0] == "warn"
    assert "Update the driver" in found["tracking"][2]


@without_gpu
def test_a_profiler_in_the_environment(gpumem: Gpumem, installed_driver: dict[str, str]) -> None:
    found = grades(gpumem("doctor", "--json", **installed_driver, CUDA_INJECTION64_PATH="/opt/tool.so"))
    assert found["other tools"][0] == "warn"


@without_gpu
def test_a_cupti_that_cannot_be_loaded(gpumem: Gpumem, installed_driver: dict[str, str]) -> None:
    cupti = pathlib.Path(installed_driver["LD_LIBRARY_PATH"], "libcupti.so.13")
    cupti.unlink()
    cupti.write_bytes(b"no library")
    done = gpumem("doctor", "--json", **installed_driver)
    assert done.returncode == 1
    grade, finding, _ = grades(done)["tracking"]
    assert grade == "fail", finding


def test_a_home_that_cannot_be_written(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    grade, finding, advice = grades(gpumem("doctor", "--json", GPUMEM_HOME=str(tmp_path / "file")))["recordings"]
    assert grade == "warn"
    assert "Set GPUMEM_HOME" in finding
    assert "in memory" in advice


def test_a_core_that_cannot_be_loaded(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "block.py").write_text("import sys; sys.modules['gpumem_magic._core'] = None", encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text("import block", encoding="utf-8")
    done = gpumem("doctor", "--json", PYTHONPATH=f"{tmp_path}:{pathlib.Path(checks.__file__).parents[2]}")
    found = grades(done)
    assert done.returncode == 1
    assert found["native core"][0] == found["tracking"][0] == "fail"
    assert "--force-reinstall" in found["native core"][2]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed (SIGSEGV)"),
        ("raise ValueError('no')", "it ended with: ValueError: no"),
        ("import time; time.sleep(60)", "it did not answer within 1 s"),
    ],
)
def test_a_trial_that_ends_badly(monkeypatch: pytest.MonkeyPatch, code: str, problem: str) -> None:
    start = subprocess.run

    def run_other(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return start([command[0], "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", run_other)
    monkeypatch.setattr(probe, "_TIMEOUT_S", 1)
    assert probe.try_tracker().problem == problem
    assert next(checks.check_tracking()).grade == "fail"


def trial(**changes: Any) -> probe.Trial:
    plain: dict[str, Any] = {
        "state": "on",
        "heartbeat": True,
        "library": "/lib/libcupti.so.13 (already loaded)",
        "driver": "13.0",
        "devices": ("NVIDIA H200",),
        "device_bytes": (140 << 30,),
        "nvml": "580.1",
    }
    return probe.Trial(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "name", "grade", "says"),
    [
        ({}, "tracking", "ok", "driver calls are seen"),
        ({"heartbeat": False}, "tracking", "fail", "no call is seen"),
        ({"state": "degraded", "reason": "Nsight holds CUPTI."}, "tracking", "fail", "Nsight holds CUPTI."),
        (
            {"state": "degraded", "reason": "No.", "loader_message": "libx: no such file"},
            "tracking",
            "fail",
            "libx: no",
        ),
        ({"nvml": "", "nvml_problem": "Driver Not Loaded"}, "NVML", "warn", "Driver Not Loaded"),
        ({"driver": "11.8"}, "GPU", "warn", "CUDA driver 11.8"),
        ({"device_bytes": (0,)}, "GPU", "ok", "NVIDIA H200"),
        ({"stacks": "Python stacks are off: why."}, "Python stacks", "warn", "why"),
    ],
)
def test_verdicts(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, grade: str, says: str) -> None:
    monkeypatch.setattr(checks, "try_tracker", lambda *, simulate=False: trial(**changes))
    (check,) = (check for check in checks.check_tracking() if check.name == name)
    assert check.grade == grade
    assert says in check.finding


def test_text_never_cuts_a_path() -> None:
    path = "/" + "x" * 200
    text = doctor_text([checks.Check(name="recordings", grade="warn", finding=f"kept in {path}", advice="Do this.")])
    assert path in text
    assert text.splitlines()[-1].startswith("It works; the lines that begin with `warn`")
