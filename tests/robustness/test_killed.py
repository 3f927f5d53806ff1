"""SIGKILL at any moment loses no driver call that had returned."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpumem_magic.capture.recording import open_recording
from gpumem_magic.model.history import LEVELS, by_device

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


SAMPLE_AND_TELL = """
import time
from gpumem_magic import api
gpumem.start()
session = api.session()
session.sampling_rate(100)
kept = alloc(64 << 20)
passing = alloc(128 << 20); free(passing)
assert session._sampler.refresh(30)
while session.history(0).next_index < 30:
    time.sleep(0.01)
answer(next=session.history(0).next_index, levels=session.history_levels().rows.tobytes().hex())
time.sleep(60)
"""


def test_memory_over_time_is_in_the_recording(home: pathlib.Path) -> None:
    with running(SAMPLE_AND_TELL, home) as child:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline().removeprefix("ANSWER "))
        (directory,) = home.iterdir()
        meanwhile = open_recording(directory)  # a recorder at work is no damage
        child.kill()
        child.wait()
    snapshot = open_recording(directory)
    assert meanwhile.warnings == snapshot.warnings == ()
    assert meanwhile.history is not None
    assert snapshot.history is not None
    assert snapshot.host_history is not None
    (rows,) = by_device(snapshot.history).values()
    samples = rows[rows["level"] == 0]
    assert told["next"] <= len(samples)
    assert told["next"] <= len(meanwhile.history)
    assert samples["index"].tolist() == list(range(len(samples)))
    assert (samples["tracked_max"].max(), samples["tracked_bytes"][-1]) == (192 << 20, 64 << 20)
    assert set(rows["level"].tolist()) == set(range(LEVELS))
    assert (rows["samples"][rows["level"] == LEVELS - 1]).tolist() == [len(samples)]
    known = np.frombuffer(bytes.fromhex(told["levels"]), rows.dtype)
    before = known[known["level"] == 0]
    assert samples[: len(before)].tobytes() == before.tobytes()
    assert snapshot.host_history["rss_bytes"].min() > 0
