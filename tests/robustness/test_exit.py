"""The interpreter goes away while things are under way: exit code 0, nothing on stderr, a readable recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpumem_magic.capture.recording import open_recording

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from .process import Ended

ENDINGS = {
    "live allocations": "kept = [alloc(4096) for _ in range(100)]",
    "native threads that go on": "assert native_threads().start_threads(4, context) == 0",
    "daemon threads that go on": """
def work():
    use_context()
    while True:
        free(alloc(4096))
for _ in range(4): threading.Thread(target=work, daemon=True).start()
""",
    "daemon threads inside slow calls": """
simulator.set_call_delay("cuMemAlloc", 20000)
def work():
    use_context()
    while True:
        free(alloc(4096))
for _ in range(4): threading.Thread(target=work, daemon=True).start()
""",
    "exit handlers registered before and after": """
import atexit
atexit.register(lambda: free(alloc(4096)))
gpumem.stop()
gpumem.start()
atexit.register(lambda: free(alloc(4096)))
atexit.register(gpumem.stop)
atexit.register(gpumem.snapshot)
""",
    "allocations of destructors at the very end": """
class Late:
    def __del__(self, alloc=alloc, free=free): free(alloc(4096))
sys.late = late = Late()
circle = [Late()]; circle.append(circle)
""",
    "an open span": "gpumem.track('never closed').__enter__()",
    "sys.exit in the middle": "exec('def f():\\n sys.exit(0)\\n'); alloc(4096); f()",
    "no stop and no exit handlers": "alloc(4096); sys.stdout.flush(); os._exit(0)",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_exit(how: str, program: Callable[..., Ended], home: pathlib.Path) -> None:
    ended = program(f"gpumem.start()\nalloc(8192)\n{ENDINGS[how]}\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    recordings = sorted(home.iterdir())
    assert recordings
    for directory in recordings:
        snapshot = open_recording(directory)
        assert snapshot.warnings == ()
        snapshot.self_check()
    assert open_recording(recordings[0]).counters["births"] >= 1


def test_an_exception_at_the_top_ends_as_ever(program: Callable[..., Ended]) -> None:
    ended = program("gpumem.start()\nalloc(4096)\nraise KeyError('mine')\n")
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("KeyError: 'mine'")
