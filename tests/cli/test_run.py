"""``gpumem run``: the script's own behaviour is untouched, and the recording is right."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.cli import main
from gpumem_magic.cli.run import run_as_main

if TYPE_CHECKING:
    from collections.abc import Callable

    Gpumem = Callable[..., subprocess.CompletedProcess[str]]
    Script = Callable[..., str]

MIB = 1 << 20


def recorded(gpumem: Gpumem) -> dict[str, Any]:
    """The last recording, as ``gpumem report --json`` tells it."""
    done = gpumem("report", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_whole_script_is_one_span(gpumem: Gpumem, script: Script) -> None:
    done = gpumem("run", "--simulate", script())
    assert (done.returncode, done.stdout) == (0, "")
    report = recorded(gpumem)
    assert report["simulated"] is True
    assert report["live_bytes"] == 64 * MIB
    assert report["peak_bytes"] == 192 * MIB
    (cell,) = report["cells"]
    assert (cell["label"], cell["delta_bytes"], cell["peak_bytes"], cell["held_bytes"], cell["error"]) == (
        "app.py",
        64 * MIB,
        192 * MIB,
        64 * MIB,
        "",
    )
    (row,) = report["still_live"]
    assert row["where"] == "app.py:10 keep"
    assert row["stack"] == ["app.py:10 keep", "app.py:14"]
    assert (row["kind"], row["layer"], row["live_count"], row["live_bytes"]) == ("cuMemAlloc", "device", 1, 64 * MIB)


def test_the_report_goes_to_stderr(gpumem: Gpumem, script: Script, recordings_home: pathlib.Path) -> None:
    done = gpumem("run", "--simulate", script("print('mine')"))
    assert done.stdout == "mine\n"
    assert "app.py:10 keep" in done.stderr
    assert "A simulated GPU" in done.stderr
    (directory,) = recordings_home.iterdir()
    assert done.stderr.splitlines()[-1] == f"The recording is in {directory}"


def test_no_report(gpumem: Gpumem, script: Script, recordings_home: pathlib.Path) -> None:
    done = gpumem("run", "--simulate", "--no-report", script())
    (directory,) = recordings_home.iterdir()
    assert done.stderr == f"gpumem: the recording is in {directory}\n"


def test_devices_and_memory(gpumem: Gpumem, script: Script) -> None:
    ask = "print(check(cuda.cuDeviceGetCount()), check(cuda.cuDeviceTotalMem(1)))"
    done = gpumem("run", "--simulate", "--devices", "2", "--memory", "1.5GiB", script(ask))
    assert done.stdout == f"2 {3 << 29}\n"


@pytest.mark.parametrize(
    ("ending", "status", "last_line"),
    [
        ("sys.exit(7)", 7, None),
        ("sys.exit()", 0, None),
        ("sys.exit('enough')", 1, "enough"),
        ("{}['missing']", 1, "KeyError: 'missing'"),
        ("import os; os._exit(9)", 9, None),
    ],
)
def test_the_end_is_the_scripts_own(
    gpumem: Gpumem, script: Script, ending: str, status: int, last_line: str | None
) -> None:
    done = gpumem("run", "--simulate", "--no-report", script(ending))
    assert done.returncode == status
    if last_line is not None:
        assert done.stderr.splitlines()[-1] == last_line
    report = recorded(gpumem)  # after os._exit too: what was recorded is on disk
    assert report["peak_bytes"] == 192 * MIB


def test_an_error_is_named_and_an_exit_is_none(gpumem: Gpumem, script: Script) -> None:
    gpumem("run", "--simulate", script("1 / 0"))
    assert recorded(gpumem)["cells"][0]["error"] == "ZeroDivisionError"
    gpumem("run", "--simulate", script("sys.exit(0)"))
    assert recorded(gpumem)["cells"][0]["error"] == ""


def test_arguments_and_path_are_those_of_python(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    show = "import sys; print([*sys.argv, sys.path[0], __name__, __file__, __spec__ is None])"
    (tmp_path / "folder" / "show.py").write_text(show, encoding="utf-8")
    command = [str(pathlib.Path("folder", "show.py")), "-x", "--report", "--", "-h", "--memory"]
    plain = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert gpumem("run", "--simulate", *command).stdout == plain.stdout


def test_a_module(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text("", encoding="utf-8")
    show = "import sys; from . import part; print(sys.argv, sys.path[0], __name__, part.VALUE)"
    (tmp_path / "tool" / "__main__.py").write_text(show, encoding="utf-8")
    (tmp_path / "tool" / "part.py").write_text("VALUE = 5", encoding="utf-8")
    plain = subprocess.run(
        [sys.executable, "-m", "tool", "-v"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert gpumem("run", "--simulate", "-m", "tool", "-v").stdout == plain.stdout


def test_a_directory_with_a_main(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text("import beside; print(beside.VALUE)", encoding="utf-8")
    (tmp_path / "app" / "beside.py").write_text("VALUE = 6", encoding="utf-8")
    assert gpumem("run", "--simulate", "app").stdout == "6\n"


def test_threads_that_outlive_the_script_are_recorded(gpumem: Gpumem, script: Script) -> None:
    ending = """
import threading, time
context = check(cuda.cuCtxGetCurrent())
def late():
    time.sleep(0.5)
    check(cuda.cuCtxSetCurrent(context))
    check(cuda.cuMemAlloc(32 << 20))
threading.Thread(target=late).start()
"""
    done = gpumem("run", "--simulate", script(ending))
    assert done.returncode == 0
    assert "app.py:22 late" in done.stderr
    assert recorded(gpumem)["live_bytes"] == 96 * MIB


def test_idle_workers_of_a_pool_do_not_hang_it(gpumem: Gpumem, script: Script) -> None:
    ending = (
        "from concurrent.futures import ThreadPoolExecutor as P; pool = P(); print(pool.submit(pow, 2, 5).result())"
    )
    done = gpumem("run", "--simulate", script(ending))
    assert (done.returncode, done.stdout) == (0, "32\n")
    assert "app.py:10 keep" in done.stderr


def test_a_forked_child_does_not_report(gpumem: Gpumem, script: Script) -> None:
    ending = "import os; child = os.fork()\nif child: os.waitpid(child, 0)"
    done = gpumem("run", "--simulate", "--no-report", script(ending))
    assert done.returncode == 0
    assert done.stderr.count("the recording is in") == 1


def test_track_in_the_script_nests(gpumem: Gpumem, script: Script) -> None:
    ending = "import gpumem_magic\nwith gpumem_magic.track('inner'): keep()"
    gpumem("run", "--simulate", script(ending))
    labels = [(cell["label"], cell["depth"], cell["delta_bytes"]) for cell in recorded(gpumem)["cells"]]
    assert labels == [("app.py", 0, 128 * MIB), ("inner", 1, 64 * MIB)]


def test_a_script_may_end_the_recording_itself(gpumem: Gpumem, script: Script) -> None:
    done = gpumem("run", "--simulate", script("import gpumem_magic; gpumem_magic.stop()"))
    assert (done.returncode, done.stderr) == (0, "")


def test_no_gpu_is_said_and_the_script_runs(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    if _has_driver():
        pytest.skip("there is a GPU here")
    (tmp_path / "plain.py").write_text("print('ran')", encoding="utf-8")
    done = gpumem("run", "--no-report", "plain.py")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "gpumem run --simulate" in done.stderr.splitlines()[0]


def test_no_memory_at_all_is_refused(gpumem: Gpumem, script: Script) -> None:
    done = gpumem("run", "--simulate", "--memory", "0", script())
    assert done.returncode == 1
    assert done.stderr.startswith("gpumem: memory must be")


def test_no_script(gpumem: Gpumem) -> None:
    done = gpumem("run", "missing.py")
    assert done.returncode == 1
    assert done.stderr == "gpumem: There is no script missing.py. For a module, write `gpumem run -m MODULE`.\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "SCRIPT"),
        (["run", "--devices", "2", "x.py"], "need --simulate"),
        (["run", "--simulate", "--devices", "9", "x.py"], "1 to 8"),
        (["run", "--simulate", "--devices", "-1", "x.py"], "--devices"),
        (["run", "--simulate", "--memory", "lots", "x.py"], "not a size"),
        (["run", "--nonsense", "x.py"], "--nonsense"),
    ],
)
def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_globals_are_handed_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.py").write_text("value = 41 + 1", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert run_as_main(str(tmp_path / "small.py"), [])["value"] == 42


def _has_driver() -> bool:
    from gpumem_magic.capture import driver  # noqa: PLC0415  (loads the driver's library where there is one)

    return driver.is_driver_present()
