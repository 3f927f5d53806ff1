"""Activation, its refusals, and the controls."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time

import pytest
from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, GiB, MiB, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process


@in_fresh_process()
def test_activating_twice_is_fine_until_the_shape_changes_after_use() -> None:
    assert not simulator.is_active()
    simulator.activate(devices=2, memory="1GiB")
    simulator.activate(devices=1, memory=2 * GiB)  # not used yet
    assert simulator.is_active()
    start(devices=1, memory="2GiB")
    simulator.activate(devices=1, memory="2048MiB")
    with pytest.raises(RuntimeError, match="already in use"):
        simulator.activate(devices=2, memory="2GiB")


@in_fresh_process()
def test_a_real_driver_in_the_process_is_refused() -> None:
    folder = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
    library = folder.stdout.strip() + "/libcuda.so.1"
    flags = ["-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", library], check=True)
    ctypes.CDLL(library)
    with pytest.raises(RuntimeError, match="already loaded in this process"):
        simulator.activate()
    assert not simulator.is_active()


@pytest.mark.parametrize("memory", ["lots", "", 0, "-1GiB", "16 pebibytes"])
def test_a_size_that_makes_no_sense_is_refused(memory: int | str) -> None:
    with pytest.raises(ValueError, match="memory"):
        simulator.activate(memory=memory)


@in_fresh_process()
def test_controls_before_activation_say_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="activate"):
        simulator.used_bytes(0)


@in_fresh_process()
def test_a_scripted_process_grows_with_the_clock_and_takes_memory() -> None:
    start(memory="1GiB")
    simulator.use_manual_clock()
    steps = [(0, 100 * MiB), (10, 900 * MiB), (20, 0)]
    simulator.schedule_other_process(0, pid=4242, steps=steps)
    assert used() == 100 * MiB
    simulator.advance_clock(9.9)
    assert used() == 100 * MiB
    simulator.advance_clock(0.2)
    assert used() == 900 * MiB
    assert status(driver.cuMemAlloc(61 * MiB)) == 2
    ok(driver.cuMemAlloc(60 * MiB))
    simulator.advance_clock(10)
    assert used() == 60 * MiB


@in_fresh_process()
def test_another_process_gets_no_more_than_is_left() -> None:
    start(memory="1GiB")
    simulator.set_other_process_bytes(0, pid=7, bytes=5 * GiB)
    assert simulator.used_bytes(0) == GiB
    simulator.set_other_process_bytes(0, pid=7, bytes=0)
    assert simulator.used_bytes(0) == CONTEXT


@in_fresh_process()
def test_armed_failures_come_in_their_turn_and_only_so_often() -> None:
    start()
    simulator.fail_next("cuMemAlloc", 2, after=1, times=2)
    statuses = [status(driver.cuMemAlloc(512)) for _ in range(4)]
    assert statuses == [0, 2, 2, 0]
    with pytest.raises(ValueError, match="cuNoSuch"):
        simulator.fail_next("cuNoSuch", 2)


@in_fresh_process()
def test_a_slow_call_that_holds_the_lock_makes_other_threads_wait() -> None:
    start()

    def seconds_of_a_query() -> float:
        begin = time.monotonic()
        ok(driver.cuMemGetInfo())
        return time.monotonic() - begin

    waited = {}
    for hold_lock in (False, True):
        simulator.set_call_delay("cuMemAlloc", 300_000, hold_lock=hold_lock)
        slow = threading.Thread(target=lambda: driver.cuMemAlloc(512))
        slow.start()
        time.sleep(0.1)
        waited[hold_lock] = seconds_of_a_query()
        slow.join()
    assert waited[False] < 0.1
    assert waited[True] > 0.1
