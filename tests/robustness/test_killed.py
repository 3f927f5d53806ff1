"""SIGKILL at any moment loses no driver call that had returned."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture.recording import open_recording

from .process import running

if TYPE_CHECKING:
    import pathlib

# Each thread says one byte for every call that has returned; the pipe outlives it.
ALLOCATE_AND_TELL = """
import signal
gpumem.start()
pipe = int(os.environ["TELL"])
def work(number):
    use_context()
    kept = []
    while True:
        kept.append(alloc(4096 * (1 + number))); os.write(pipe, b"a")
        if len(kept) > 20:
            free(kept.pop(0)); os.write(pipe, b"f")
with gpumem.track("killed"):
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads: thread.start()
    threads[0].join()
"""


@pytest.mark.parametrize("seed", range(6))
def test_every_completed_call_is_in_the_recording(seed: int, home: pathlib.Path) -> None:
    calls = random.Random(seed).choice([1, 100, 3000, 20000])
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    told = b""
    with (
        running(ALLOCATE_AND_TELL, home, close_fds=False, TELL=str(writer)) as child,
        os.fdopen(reader, "rb", buffering=0) as pipe,
    ):
        os.close(writer)
        while len(told) < calls:
            told += pipe.read(65536)
        child.kill()
        child.wait()
        while more := pipe.read(65536):
            told += more
    (directory,) = home.iterdir()
    snapshot = open_recording(directory)
    assert snapshot.warnings == ()
    snapshot.self_check()
    assert snapshot.counters["births"] >= told.count(b"a")
    assert snapshot.counters["deaths"] >= told.count(b"f")
    assert snapshot.counters["missed_frees"] == snapshot.counters["unknown_frees"] == 0
    assert [(cell.label, cell.is_running) for cell in snapshot.cells] == [("killed", True)]
    # A call that was under way may be recorded and not told, at most one to a thread and not much else.
    assert snapshot.counters["births"] + snapshot.counters["deaths"] <= len(told) + 4
    assert len(snapshot.events) == snapshot.counters["events"]
