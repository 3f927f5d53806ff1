"""Where recordings go: a place that cannot be had is a sentence, and tracking goes on in memory."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture.recording import open_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended

TRACK = """
status = gpumem.start()
with gpumem.track("cell"):
    kept = alloc(4096)
    free(alloc(8192))
snapshot = gpumem.snapshot()
snapshot.self_check()
status = gpumem.status()
answer(recording=status.recording, warnings=status.warnings, live=snapshot.live_bytes, events=len(snapshot.events),
       births=snapshot.counters["births"])
gpumem.stop()
"""


def a_file(home: pathlib.Path) -> pathlib.Path:
    home.write_text("not a directory")
    return home


def inside_a_file(home: pathlib.Path) -> pathlib.Path:
    home.write_text("not a directory")
    return home / "deeper"


def refused_by_the_system(_: pathlib.Path) -> pathlib.Path:
    return pathlib.Path("/proc/gpumem")  # nobody may make directories there, not even root


def a_dangling_link(home: pathlib.Path) -> pathlib.Path:
    home.symlink_to(home / "nowhere")
    return home


def a_name_that_is_too_long(home: pathlib.Path) -> pathlib.Path:
    return home / ("x" * 300)


@pytest.mark.parametrize(
    "place", [a_file, inside_a_file, refused_by_the_system, a_dangling_link, a_name_that_is_too_long]
)
def test_a_home_that_cannot_be_had(
    place: Callable[[pathlib.Path], pathlib.Path], program: Callable[..., Ended], home: pathlib.Path
) -> None:
    wanted = place(home)
    found = program(TRACK, home=wanted).answer
    assert found["recording"] == "in memory"
    (warning,) = found["warnings"]
    assert str(wanted) in warning
    assert "Set GPUMEM_HOME" in warning
    assert "in memory" in warning
    assert (found["live"], found["births"]) == (4096, 2)
    assert found["events"] == 5  # two births, one death, the span's begin and end


def test_a_home_whose_parents_are_missing(program: Callable[..., Ended], home: pathlib.Path) -> None:
    deep = home / "a" / "b" / "c"
    found = program(TRACK, home=deep).answer
    assert found["warnings"] == []
    assert pathlib.Path(found["recording"]).parent == deep
    assert open_recording(found["recording"]).live_bytes == 4096
    assert pathlib.Path(found["recording"]).stat().st_mode & 0o777 == 0o700


def test_a_home_that_is_taken_away_meanwhile(program: Callable[..., Ended]) -> None:
    ended = program(
        """
        import shutil
        gpumem.start()
        alloc(4096)
        shutil.rmtree(os.environ["GPUMEM_HOME"])
        alloc(8192)
        snapshot = gpumem.snapshot()
        answer(live=snapshot.live_bytes)
        gpumem.stop()
        """,
    )
    assert ended.answer == {"live": 12288}
    assert ended.stderr == ""


def on_small_disk(megabytes: int) -> str:
    """Statements that put a small file system at GPUMEM_HOME, seen by the program alone."""
    return f"""
import gpumem_magic
libc = ctypes.CDLL(None, use_errno=True)
home = os.environ["GPUMEM_HOME"]
os.makedirs(home)
CLONE_NEWNS, CLONE_NEWUSER, MS_REC_PRIVATE = 0x20000, 0x10000000, 0x44000
assert libc.unshare(CLONE_NEWNS | (0 if os.getuid() == 0 else CLONE_NEWUSER)) == 0, os.strerror(ctypes.get_errno())
assert libc.mount(None, b"/", None, MS_REC_PRIVATE, None) == 0
assert libc.mount(b"none", home.encode(), b"tmpfs", 0, b"size={megabytes}m") == 0, os.strerror(ctypes.get_errno())
"""


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    flags = ["-m"] if os.getuid() == 0 else ["-rm"]
    tried = subprocess.run([unshare, *flags, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="this system allows no mounts in a namespace of one's own")


@needs_mount
def test_a_disk_that_is_full_from_the_beginning(program: Callable[..., Ended]) -> None:
    found = program(on_small_disk(1) + TRACK).answer
    (warning,) = found["warnings"]
    assert "No space left on device" in warning
    assert "Free some space" in warning
    assert (found["live"], found["events"]) == (4096, 5)


@needs_mount
def test_a_disk_with_room_for_all_but_the_memory_over_time(program: Callable[..., Ended]) -> None:
    """The segments of events and tables take 12 MiB, the history of one device 1.6 MiB."""
    found = program(
        on_small_disk(13)
        + """
from gpumem_magic import api
from gpumem_magic.capture.recording import open_recording
gpumem.start()
assert api.session()._sampler.refresh(30)
alloc(4096)
warnings, directory = gpumem.status().warnings, gpumem.status().recording
sampled = len(gpumem.snapshot().history)
gpumem.stop()
opened = open_recording(directory)
answer(warnings=warnings, sampled=sampled, births=opened.counters["births"], left=opened.history is None,
       said=opened.warnings)
""",
    ).answer
    (warning,) = found["warnings"]
    assert warning.startswith("Memory over time cannot be kept on disk (No space left on device).")
    assert found["sampled"] > 0
    assert (found["births"], found["left"], found["said"]) == (1, True, [])


@needs_mount
def test_a_disk_that_fills_up(program: Callable[..., Ended]) -> None:
    found = program(
        on_small_disk(24)
        + """
from gpumem_magic.capture.recording import open_recording
gpumem.start()
directory = gpumem.status().recording
threads = native_threads()
assert threads.start_threads(4, context) == 0
while _core.health()["events"] < 1_000_000: pass
threads.stop_threads()
snapshot = gpumem.snapshot()
snapshot.self_check()
warnings = gpumem.status().warnings
gpumem.stop()
kept = open_recording(directory)
kept.self_check()
times = kept.events.between(0, 2**63)["time_ns"]
answer(warnings=warnings, live=snapshot.live_bytes, truth=totals(threads), lost=_core.health()["lost_events"],
       kept_events=len(kept.events), kept_first=kept.events.first_index, order=bool((times[1:] >= times[:-1]).all()))
""",
        timeout=120,
    ).answer
    (warning,) = found["warnings"]
    assert "No space left on device" in warning
    assert found["truth"][3] == 0  # no driver call failed because of us
    assert found["live"] == found["truth"][2]
    assert found["lost"] == 0
    assert (found["kept_first"], found["kept_events"]) == (0, 2 << 17)  # what fitted, from the first event on
    assert found["order"] is True


@needs_mount
def test_a_home_on_a_read_only_file_system(program: Callable[..., Ended]) -> None:
    script = on_small_disk(1) + 'assert libc.mount(b"none", home.encode(), b"tmpfs", 0x20 | 1, None) == 0\n' + TRACK
    found = program(script).answer
    (warning,) = found["warnings"]
    assert "Read-only file system" in warning
    assert found["live"] == 4096


def test_recordings_of_one_process_tell_each_of_itself(program: Callable[..., Ended]) -> None:
    found = program(
        """
        from gpumem_magic import api
        from gpumem_magic.capture.recording import open_recording
        gpumem.start()
        with gpumem.track("first"):
            alloc(4096)
        api.session().pause()
        api.session().resume()
        first = gpumem.status().recording
        gpumem.stop()
        gpumem.start()
        with gpumem.track("second"):
            alloc(8192)
        second = gpumem.status().recording
        live = gpumem.snapshot()
        gpumem.stop()
        first, second = open_recording(first), open_recording(second)
        answer(gaps=[len(first.gaps), len(live.gaps), len(second.gaps)],
               cells=[[cell.label for cell in each.cells] for each in (first, live, second)],
               bytes=[each.live_bytes for each in (first, live, second)],
               named=[frames(each, each.allocations[0]["stack"])[1][1] for each in (first, live, second)])
        """,
    ).answer
    assert found == {
        "gaps": [1, 0, 0],
        "cells": [["first"], ["second"], ["second"]],
        "bytes": [4096, 8192, 8192],
        "named": ["<module>"] * 3,
    }


def test_read_by_another_process_while_it_is_written_and_folded(program: Callable[..., Ended]) -> None:
    found = program(
        """
        from gpumem_magic.capture.recording import open_recording
        from gpumem_magic.session import Session
        session = Session(budget_bytes=16 << 20)
        session.start()
        threads = native_threads()
        assert threads.start_threads(4, context) == 0
        warnings, seen, folded = set(), 0, 0
        while seen < 1_500_000:
            committed = _core.health()["events"]
            snapshot = open_recording(session.directory)  # as another process would: from the files alone
            snapshot.self_check()
            warnings |= set(snapshot.warnings)
            assert snapshot.counters["events"] >= committed - 1
            assert len(snapshot.events) >= seen
            seen = len(snapshot.events)
            folded = max(folded, snapshot.events.first_index)
        threads.stop_threads()
        session.stop()
        answer(warnings=sorted(warnings), folded=folded)
        """,
        timeout=200,
    ).answer
    assert found["warnings"] == []
    assert found["folded"] > 0
