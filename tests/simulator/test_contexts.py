"""Contexts: what is current, who holds the primary one, what dies with them."""

from __future__ import annotations

import os
import threading

from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, MiB, new_context, ok, raw, start, status, used
from tests.simulator.fresh_process import in_fresh_process

NOT_INITIALIZED, INVALID_CONTEXT, DESTROYED = 3, 201, 709


@in_fresh_process()
def test_nothing_works_before_init() -> None:
    simulator.activate()
    assert status(driver.cuMemAlloc(1)) == NOT_INITIALIZED
    assert status(driver.cuDeviceGetCount()) == NOT_INITIALIZED
    assert ok(driver.cuDriverGetVersion()) == 13000
    ok(driver.cuInit(0))
    assert status(driver.cuMemAlloc(1)) == INVALID_CONTEXT


@in_fresh_process()
def test_the_primary_context_lives_as_long_as_it_is_held() -> None:
    context = start()
    assert int(ok(driver.cuDevicePrimaryCtxRetain(0))) == int(context)
    ok(driver.cuMemAlloc(8 * MiB))
    ok(driver.cuDevicePrimaryCtxRelease(0))
    assert used() == 8 * MiB
    ok(driver.cuDevicePrimaryCtxRelease(0))
    assert used() == -CONTEXT
    assert status(driver.cuMemAlloc(1)) == DESTROYED
    assert status(driver.cuDevicePrimaryCtxRelease(0)) == INVALID_CONTEXT
    assert int(ok(driver.cuDevicePrimaryCtxRetain(0))) == int(context)
    ok(driver.cuMemAlloc(1))


@in_fresh_process()
def test_a_reset_frees_what_the_context_owned() -> None:
    start()
    stream = ok(driver.cuStreamCreate(0))
    pointer = ok(driver.cuMemAlloc(8 * MiB))
    ok(driver.cuMemAllocAsync(8 * MiB, stream))
    assert used() == 40 * MiB
    ok(driver.cuDevicePrimaryCtxReset(0))
    assert used() == 32 * MiB - CONTEXT  # the pool's
    assert status(driver.cuMemFree(pointer)) == 1


@in_fresh_process()
def test_stream_ordered_memory_outlives_the_primary_context() -> None:
    start()
    ok(driver.cuMemAllocAsync(MiB, 0))
    ok(driver.cuDevicePrimaryCtxRelease(0))
    assert used() == 32 * MiB - CONTEXT


@in_fresh_process()
def test_a_destroyed_context_frees_what_it_owns_and_answers_so() -> None:
    primary = start()
    made = new_context()
    pointer = ok(driver.cuMemAlloc(8 * MiB))
    stream = ok(driver.cuStreamCreate(0))
    assert used() == CONTEXT + 8 * MiB
    ok(driver.cuCtxDestroy(made))
    assert used() == 0
    assert int(ok(driver.cuCtxGetCurrent())) == int(primary)
    assert status(driver.cuMemFree(pointer)) == 1
    assert status(driver.cuStreamSynchronize(stream)) == 400
    assert status(driver.cuCtxDestroy(made)) == DESTROYED
    ok(driver.cuCtxSetCurrent(made))
    assert status(driver.cuMemAlloc(1)) == DESTROYED
    assert status(driver.cuMemGetInfo()) == DESTROYED
    assert status(driver.cuCtxDestroy(primary)) == INVALID_CONTEXT


@in_fresh_process()
def test_the_stack_of_current_contexts() -> None:
    first = start()
    second = new_context()
    assert int(ok(driver.cuCtxPopCurrent())) == int(second)
    assert int(ok(driver.cuCtxGetCurrent())) == int(first)
    ok(driver.cuCtxPushCurrent(second))
    ok(driver.cuCtxSetCurrent(first))
    ok(driver.cuCtxPopCurrent())
    ok(driver.cuCtxPopCurrent())
    assert status(driver.cuCtxPopCurrent()) == INVALID_CONTEXT
    assert status(driver.cuCtxGetDevice()) == INVALID_CONTEXT


@in_fresh_process()
def test_a_forked_child_cannot_use_the_driver() -> None:
    start()
    pid = os.fork()
    if pid == 0:
        cuda = raw()
        statuses = {cuda.cuInit(0), cuda.cuMemFree_v2(0), cuda.cuCtxSetCurrent(None)}
        os._exit(0 if statuses == {NOT_INITIALIZED} else 1)
    assert os.waitpid(pid, 0)[1] == 0


@in_fresh_process()
def test_a_child_of_a_process_that_has_not_used_the_driver_can() -> None:
    simulator.activate()
    pid = os.fork()
    if pid == 0:
        start()
        ok(driver.cuMemAlloc(1))
        os._exit(0 if used() == 2 * MiB else 1)
    assert os.waitpid(pid, 0)[1] == 0


@in_fresh_process()
def test_forking_while_other_threads_allocate_leaves_no_lock_held() -> None:
    context = start()
    stop = threading.Event()

    def churn() -> None:
        ok(driver.cuCtxSetCurrent(context))
        while not stop.is_set():
            ok(driver.cuMemFree(ok(driver.cuMemAlloc(512))))

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    cuda = raw()
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            in_use = bytes(32)
            cuda.gsim_usage(0, in_use)  # takes the lock
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert used() == 0
