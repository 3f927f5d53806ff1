"""CUPTI callbacks, through a subscriber that is nothing but ctypes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator import cupti
from tests.simulator.cupti import CallbackData, MemAllocParams, Subscriber
from tests.simulator.driver import MiB, ok, raw, start, status, used
from tests.simulator.fresh_process import in_fresh_process


@in_fresh_process()
def test_enter_and_exit_come_with_the_parameters_and_the_result() -> None:
    context = start()
    log = []

    def seen(domain: int, cbid: int, address: int) -> None:
        data = CallbackData.from_address(address)
        params = MemAllocParams.from_address(data.function_params)
        if data.site == cupti.ENTER:
            data.correlation_data[0] = 77
        log.append((domain, cbid, data.site, data.function_name, params.bytesize, data.context, data.context_uid))
        if data.site == cupti.EXIT:
            exits.append((params.dptr[0], data.return_value[0], data.correlation_data[0], data.correlation_id))

    exits: list[tuple[int, ...]] = []
    subscriber = Subscriber(seen)
    assert subscriber.subscribe() == 0
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC)
    pointers = [int(ok(driver.cuMemAlloc(size))) for size in (100, 200)]
    assert status(driver.cuMemAlloc(2**50)) == 2
    ok(driver.cuMemFree(pointers[0]))  # not enabled
    call = (cupti.DRIVER, cupti.MEM_ALLOC)
    where = (int(context), 1)
    assert log == [(*call, site, b"cuMemAlloc_v2", size, *where) for size in (100, 200, 2**50) for site in (0, 1)]
    assert [e[0] for e in exits[:2]] == pointers
    assert [e[1] for e in exits] == [0, 0, 2]
    assert [e[2] for e in exits] == [77, 77, 77]
    assert exits[1][3] == exits[0][3] + 1


@in_fresh_process()
def test_the_exit_callback_can_turn_success_into_failure() -> None:
    start()

    def seen(_domain: int, _cbid: int, address: int) -> None:
        data = CallbackData.from_address(address)
        if data.site == cupti.EXIT:
            params = MemAllocParams.from_address(data.function_params)
            assert raw().cuMemFree_v2(ctypes.c_uint64(params.dptr[0])) == 0
            params.dptr[0] = 0
            data.return_value[0] = 2

    subscriber = Subscriber(seen)
    assert subscriber.subscribe() == 0
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC)
    assert status(driver.cuMemAlloc(8 * MiB)) == 2
    assert used() == 0
    assert subscriber.unsubscribe() == 0
    ok(driver.cuMemAlloc(8 * MiB))


@in_fresh_process()
def test_calls_from_inside_a_callback_are_not_reported() -> None:
    start()
    log = []

    def seen(_domain: int, cbid: int, address: int) -> None:
        site = CallbackData.from_address(address).site
        log.append((cbid, site))
        if site == cupti.EXIT:
            pointer = ctypes.c_uint64()
            assert raw().cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(1)) == 0
            assert raw().cuMemFree_v2(pointer) == 0

    subscriber = Subscriber(seen)
    subscriber.subscribe()
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC, cupti.MEM_FREE)
    pointer = ok(driver.cuMemAlloc(512))
    ok(driver.cuMemFree(pointer))
    assert log == [(243, 0), (243, 1), (245, 0), (245, 1)]


@in_fresh_process()
def test_contexts_streams_and_modules_are_announced() -> None:
    simulator.activate()
    log = []
    subscriber = Subscriber(
        lambda domain, cbid, data: log.append((domain, cbid, ctypes.c_uint64.from_address(data).value))
    )
    assert subscriber.subscribe() == 0  # before cuInit
    assert cupti.library().cuptiEnableDomain(1, subscriber.handle, cupti.RESOURCE) == 0
    context = start()
    stream = ok(driver.cuStreamCreate(0))
    module = ok(driver.cuModuleLoadData(b"image"))
    ok(driver.cuModuleUnload(module))
    ok(driver.cuStreamDestroy(stream))
    ok(driver.cuDevicePrimaryCtxRelease(0))
    handle = int(context)
    expected = [(5, 0), (1, handle), (3, handle), (6, handle), (7, handle), (4, handle), (2, handle)]
    assert log == [(cupti.RESOURCE, cbid, owner) for cbid, owner in expected]


@in_fresh_process()
def test_memory_can_still_be_asked_for_while_its_context_is_about_to_die() -> None:
    start()
    ok(driver.cuMemAlloc(8 * MiB))
    seen_used = []
    subscriber = Subscriber(lambda *_: seen_used.append(used()))
    subscriber.subscribe()
    subscriber.enable(cupti.RESOURCE, cupti.CONTEXT_DESTROY_STARTING)
    ok(driver.cuDevicePrimaryCtxReset(0))
    assert seen_used == [8 * MiB]


@in_fresh_process()
def test_there_is_one_subscriber_and_finalize_silently_ends_it() -> None:
    start()
    log: list[int] = []
    first, second = Subscriber(lambda *_: log.append(1)), Subscriber(lambda *_: log.append(2))
    assert first.subscribe() == 0
    assert second.subscribe() == cupti.MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED
    assert second.subscribe_v2(share=True) == cupti.MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED
    first.enable(cupti.DRIVER, cupti.DRIVER_GET_VERSION)
    ok(driver.cuDriverGetVersion())  # the heartbeat
    assert log == [1, 1]
    assert cupti.library().cuptiFinalize() == 0
    ok(driver.cuDriverGetVersion())
    assert log == [1, 1]
    assert first.unsubscribe() == 1
    assert second.subscribe() == 0
    assert second.unsubscribe() == 0
    assert second.unsubscribe() == 1


@in_fresh_process(GPUMEM_SIM_CUPTI="13.2")
def test_from_13_2_on_those_who_allow_it_share() -> None:
    start()
    log: list[str] = []
    both = [Subscriber(lambda *_, name=name: log.append(name)) for name in "ab"]
    for subscriber in both:
        assert subscriber.subscribe_v2(share=True) == 0
        subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC)
    assert Subscriber(lambda *_: None).subscribe() == cupti.MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED
    ok(driver.cuMemAlloc(1))
    assert log == ["a", "b", "a", "b"]


@in_fresh_process()
def test_unsubscribing_waits_for_callbacks_of_other_threads() -> None:
    context = start()
    inside, events = threading.Event(), []

    def seen(_domain: int, _cbid: int, address: int) -> None:
        if CallbackData.from_address(address).site == cupti.ENTER:
            inside.set()
            time.sleep(0.3)
            events.append("callback over")

    def allocate() -> None:
        ok(driver.cuCtxSetCurrent(context))
        ok(driver.cuMemAlloc(1))

    subscriber = Subscriber(seen)
    subscriber.subscribe()
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC)
    thread = threading.Thread(target=allocate)
    thread.start()
    inside.wait()
    assert subscriber.unsubscribe() == 0
    events.append("unsubscribed")
    thread.join()
    assert events == ["callback over", "unsubscribed"]


@in_fresh_process()
def test_a_forked_child_does_not_wait_for_its_parents_callbacks() -> None:
    context = start()
    inside, leave = threading.Event(), threading.Event()

    def seen(_domain: int, _cbid: int, _address: int) -> None:
        inside.set()
        leave.wait()

    def allocate() -> None:
        ok(driver.cuCtxSetCurrent(context))
        ok(driver.cuMemAlloc(1))

    subscriber = Subscriber(seen)
    subscriber.subscribe()
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC)
    thread = threading.Thread(target=allocate)
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # ends a child that waits for ever
        os._exit(subscriber.unsubscribe())
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
    thread.join()


@in_fresh_process()
def test_contexts_have_ids() -> None:
    context = start(devices=2)
    cuda_cupti = cupti.library()
    device, uid, version = ctypes.c_uint32(9), ctypes.c_uint32(), ctypes.c_uint32()
    handle = ctypes.c_void_p(int(context))
    assert cuda_cupti.cuptiGetDeviceId(handle, ctypes.byref(device)) == 0
    assert cuda_cupti.cuptiGetContextId(handle, ctypes.byref(uid)) == 0
    assert cuda_cupti.cuptiGetVersion(ctypes.byref(version)) == 0
    assert (device.value, uid.value, version.value) == (0, 1, 130000)
    assert cuda_cupti.cuptiGetDeviceId(ctypes.c_void_p(1), ctypes.byref(device)) == 3
