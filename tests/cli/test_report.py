"""``gpumem report``: recordings of other processes, in three forms, and sentences for what is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import gpumem_magic
from gpumem_magic.cli import main, parser

if TYPE_CHECKING:
    import pathlib
    import subprocess
    from collections.abc import Callable

    Gpumem = Callable[..., subprocess.CompletedProcess[str]]
    Script = Callable[..., str]


@pytest.fixture
def recording(gpumem: Gpumem, script: Script, recordings_home: pathlib.Path) -> pathlib.Path:
    """A finished recording of ``app.py``."""
    gpumem("run", "--simulate", "--no-report", script())
    (directory,) = recordings_home.iterdir()
    return directory


def test_the_last_recording_is_the_default(gpumem: Gpumem, recording: pathlib.Path) -> None:
    named, last = gpumem("report", recording), gpumem("report")
    assert named.returncode == last.returncode == 0
    assert named.stdout == last.stdout
    assert f"Recording {recording.name}" in last.stdout
    assert "192 MiB" in last.stdout
    assert "app.py:10 keep" in last.stdout
    assert last.stdout.splitlines()[-1] == f"The recording is in {recording}"


def test_html_is_a_whole_page(gpumem: Gpumem, recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = gpumem("report", "--html", "page.html")
    assert (done.returncode, done.stdout) == (0, "Wrote page.html\n")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert recording.name in page
    assert "<svg" in page
    assert "<script" not in page


def test_html_that_cannot_be_written(gpumem: Gpumem, recording: pathlib.Path) -> None:
    done = gpumem("report", recording, "--html", "missing/page.html")
    assert done.returncode == 1
    assert done.stderr == (
        "gpumem: The page cannot be written to missing/page.html (No such file or directory). Name another file.\n"
    )


def test_json_names(gpumem: Gpumem, recording: pathlib.Path) -> None:
    report = json.loads(gpumem("report", "--json").stdout)
    assert report["recording"] == str(recording)
    assert set(report) == {
        *("recording", "simulated", "degraded", "process", "duration_s", "live_bytes", "peak_bytes", "events"),
        *("failures", "devices", "cells", "outside_cells_bytes", "still_live", "still_live_left_out", "failed"),
        *("gaps", "oddities", "warnings"),
    }
    assert report["devices"][0]["total_bytes"] == 16 << 30
    assert (report["gaps"], report["oddities"], report["warnings"]) == ([], [], [])


def test_a_reader_that_goes_away_is_no_error(gpumem: Gpumem, recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "head.py").write_text(
        "import subprocess, sys\n"
        "report = subprocess.Popen([sys.executable, '-m', 'gpumem_magic', 'report', '--json'],\n"
        "                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)\n"
        "report.stdout.close(); print(report.stderr.read().decode(), report.wait())\n",
        encoding="utf-8",
    )
    assert gpumem("run", "--no-report", "head.py", GPUMEM_HOME=str(recording.parent)).stdout == " 1\n"


def test_there_is_none(gpumem: Gpumem, recordings_home: pathlib.Path) -> None:
    done = gpumem("report")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gpumem: There is no earlier recording in {recordings_home}.\n"


def test_what_is_no_recording(gpumem: Gpumem, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file.txt").write_text("", encoding="utf-8")
    for name in ("missing", "file.txt", "."):
        done = gpumem("report", name)
        assert done.returncode == 1
        assert done.stderr.startswith("gpumem: ")
        assert "is no recording" in done.stderr
        assert "Traceback" not in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"gpumem_magic {gpumem_magic.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["report", "--json", "--html", "x"], ["report", "a", "b"]])
def test_wrong_command_lines(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("verb", ["doctor", "report", "run"])
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"gpumem {verb}" in capsys.readouterr().out
    assert verb in parser().format_help()
