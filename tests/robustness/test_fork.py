"""A tracked process forks: the child starts afresh and the parent's recording goes on exact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gpumem_magic.capture.recording import open_recording

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from .process import Ended


def test_multiprocessing_fork(program: Callable[..., Ended], home: pathlib.Path) -> None:
    found = program(
        """
        import multiprocessing
        gpumem.start()
        parents = str(gpumem.status().recording)
        alloc(4096)
        def work(queue):
            before = gpumem.status().state
            status = gpumem.start()
            with gpumem.track("in the child") as cell:
                pass
            gpumem.stop()
            queue.put([before, status.state, status.reason, status.recording, threading.Thread.start.__module__])
        with gpumem.track("parent"):
            fork = multiprocessing.get_context("fork")
            queue = fork.SimpleQueue()
            child = fork.Process(target=work, args=(queue,))
            child.start()
            alloc(8192)
            told = queue.get()
            child.join()
        snapshot = gpumem.snapshot()
        snapshot.self_check()
        recording = gpumem.status().recording
        gpumem.stop()
        answer(told=told, code=child.exitcode, live=snapshot.live_bytes, parents=parents, recording=recording,
               pid=os.getpid())
        """,
    ).answer
    before, state, reason, recording, patched = found["told"]
    assert found["code"] == 0
    assert before == "off"
    # CUDA works in no forked child of a process that uses it; that is said, and nothing breaks.
    assert (state, "forked" in reason) == ("no GPU", True)
    assert recording != found["recording"] == found["parents"]
    assert patched == "threading"
    assert found["live"] == 4096 + 8192
    # The parent's files say what the parent did, and only that.
    written = json.loads((home / found["parents"] / "session.json").read_text())
    assert (written["process"]["pid"], written["ended"]) == (found["pid"], True)
    parent = open_recording(found["parents"])
    assert (parent.live_bytes, parent.warnings) == (4096 + 8192, ())
    assert [cell.label for cell in parent.cells] == ["parent"]


def test_fifty_forks_while_threads_allocate(program: Callable[..., Ended]) -> None:
    found = program(
        """
        gpumem.start()
        threads = native_threads()
        assert threads.start_threads(4, context) == 0
        def chatter():  # forks must also meet threads that are inside Python and inside the tracker
            use_context()
            while not done.is_set():
                with gpumem.track("chatter"):
                    free(alloc(4096))
                done.wait(0.001)
        done = threading.Event()
        talker = threading.Thread(target=chatter)
        talker.start()
        codes = []
        for number in range(50):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    assert _core.health()["on"] is False
                    assert gpumem.status().state == "off"
                    if number % 5 == 0:
                        gpumem.start(); gpumem.stop()
                    code = 0
                finally:
                    os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        done.set()
        talker.join()
        threads.stop_threads()
        snapshot = gpumem.snapshot()
        snapshot.self_check()
        answer(codes=codes, totals=totals(threads), live=snapshot.live_bytes, warnings=snapshot.warnings,
               counters=dict(snapshot.counters))
        gpumem.stop()
        """,
        timeout=120,
    ).answer
    assert found["codes"] == [0] * 50
    assert found["live"] == found["totals"][2]
    assert found["counters"]["births"] - found["counters"]["deaths"] == found["totals"][0] - found["totals"][1]
    assert found["counters"]["missed_frees"] == found["counters"]["unknown_frees"] == 0
    assert found["warnings"] == []


def test_a_child_that_exits_normally_leaves_the_parents_recording_alone(
    program: Callable[..., Ended], home: pathlib.Path
) -> None:
    found = program(
        """
        gpumem.start()
        recording = gpumem.status().recording
        alloc(4096)
        if os.fork() == 0:
            sys.exit(0)  # runs the exit handlers, which the parent registered
        os.wait()
        with open(recording + "/session.json") as file:
            written = json.load(file)
        alloc(4096)
        answer(pid=os.getpid(), written=written["process"]["pid"], ended=written["ended"],
               live=gpumem.snapshot().live_bytes)
        """,
    ).answer
    assert found["written"] == found["pid"]
    assert found["ended"] is False
    assert found["live"] == 8192
