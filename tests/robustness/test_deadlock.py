"""The shape that hangs a tracker whose callback takes the GIL.

An allocator calls the driver while it holds its mutex, and another thread waits for that mutex while it holds the GIL.
``GPUMEM_SOAK_SECONDS`` says for how long; the watchdog makes a hang a failure.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended

SECONDS = int(os.environ.get("GPUMEM_SOAK_SECONDS", "5"))

COLLIDE = f"""
import time
simulator.set_call_delay("cuMemAlloc", 100, hold_lock=True)
allocator, patient = native_threads(), native_threads(holding_the_gil=True)
end = time.monotonic() + {SECONDS}
cycles, waits = [0] * 3, 0
def allocate(number):
    use_context()
    while time.monotonic() < end:
        assert allocator.cycle_under_mutex() == 0
        cycles[number] += 1
threads = [threading.Thread(target=allocate, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
while time.monotonic() < end:
    waits = patient.wait_for_mutex()
for thread in threads: thread.join()
"""


def test_allocating_threads_against_one_that_waits_with_the_gil(program: Callable[..., Ended]) -> None:
    found = program(
        f"""
        gpumem.start()
        {COLLIDE.replace(chr(10), chr(10) + "        ")}
        counters = gpumem.snapshot().counters
        answer(cycles=cycles, waits=waits, births=counters["births"], deaths=counters["deaths"],
               missed=counters["missed_frees"])
        """,
        timeout=SECONDS + 40,
    ).answer
    assert min(found["cycles"]) > 0
    assert found["waits"] > 0
    assert found["births"] == found["deaths"] == sum(found["cycles"])
    assert found["missed"] == 0


def test_a_callback_that_takes_the_gil_does_hang(program: Callable[..., Ended]) -> None:
    """The control: were this to pass, the test above would show nothing."""
    with pytest.raises(subprocess.TimeoutExpired):
        program(
            f"""
            cupti = ctypes.CDLL("libcupti.so.13")
            subscriber = ctypes.c_void_p()
            @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
            def callback(user, domain, cbid, data):
                pass
            assert cupti.cuptiSubscribe(ctypes.byref(subscriber), callback, None) == 0
            assert cupti.cuptiEnableCallback(1, subscriber, 1, 243) == 0  # cuMemAlloc_v2
            {COLLIDE.replace(chr(10), chr(10) + "            ")}
            """,
            timeout=SECONDS + 3,
        )
