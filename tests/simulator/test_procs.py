"""cuGetProcAddress: versions, stream variants, and what there is not."""

from __future__ import annotations

import ctypes

from cuda.bindings import driver

from tests.simulator import cupti
from tests.simulator.driver import ok, raw, start
from tests.simulator.fresh_process import in_fresh_process

FOUND, NO_SUCH_SYMBOL, VERSION_TOO_OLD = 0, 1, 2
PER_THREAD = 2


def ask(name: str, version: int, flags: int = 0) -> tuple[int, int | None, int]:
    """Status, the function's address, and what became of the symbol."""
    function, symbol_status = ctypes.c_void_p(), ctypes.c_int(-1)
    status = raw().cuGetProcAddress_v2(
        name.encode(), ctypes.byref(function), version, ctypes.c_uint64(flags), ctypes.byref(symbol_status)
    )
    return status, function.value, symbol_status.value


def address(symbol: str) -> int | None:
    return ctypes.cast(getattr(raw(), symbol), ctypes.c_void_p).value


@in_fresh_process()
def test_a_version_means_the_newest_function_that_is_no_newer() -> None:
    start()
    assert ask("cuMemAlloc", 12000) == (0, address("cuMemAlloc_v2"), FOUND)
    assert ask("cuMemPrefetchAsync", 8000) == (0, address("cuMemPrefetchAsync"), FOUND)
    assert ask("cuMemPrefetchAsync", 12010) == (0, address("cuMemPrefetchAsync"), FOUND)
    assert ask("cuMemPrefetchAsync", 12020) == (0, address("cuMemPrefetchAsync_v2"), FOUND)
    assert ask("cuCtxCreate", 11030) == (0, address("cuCtxCreate_v2"), FOUND)
    assert ask("cuCtxCreate", 13000) == (0, address("cuCtxCreate_v4"), FOUND)
    assert ask("cuMemAllocAsync", 11000) == (0, None, VERSION_TOO_OLD)
    assert ask("cuNoSuch", 12000) == (0, None, NO_SUCH_SYMBOL)
    assert ask("cuMemAlloc", 13010) == (1, None, -1)


@in_fresh_process()
def test_the_per_thread_flag_asks_for_the_variant() -> None:
    start()
    assert ask("cuMemAllocAsync", 12000, PER_THREAD)[1] == address("cuMemAllocAsync_ptsz")
    assert ask("cuMemcpyHtoD", 12000, PER_THREAD)[1] == address("cuMemcpyHtoD_v2_ptds")
    assert ask("cuMemAlloc", 12000, PER_THREAD)[1] == address("cuMemAlloc_v2")
    assert ask("cuMemAllocAsync", 12000, 7)[0] == 1


@in_fresh_process()
def test_the_first_form_of_the_question_fails_instead() -> None:
    start()
    function = ctypes.c_void_p()
    assert raw().cuGetProcAddress(b"cuNoSuch", ctypes.byref(function), 12000, ctypes.c_uint64(0)) == 500


@in_fresh_process(GPUMEM_SIM_DRIVER="12040")
def test_an_older_driver_lacks_what_came_later() -> None:
    start()
    version = ctypes.c_int()
    raw().cuDriverGetVersion(ctypes.byref(version))
    assert version.value == 12040
    assert ask("cuCtxCreate", 12040) == (0, address("cuCtxCreate_v3"), FOUND)
    assert ask("cuMemGetMemPool", 12040) == (0, None, NO_SUCH_SYMBOL)
    assert ask("cuMemAlloc", 13000)[0] == 1


@in_fresh_process(CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM="1")
def test_per_thread_variants_have_callback_ids_of_their_own() -> None:
    start()
    log: list[int] = []
    subscriber = cupti.Subscriber(lambda _, cbid, __: log.append(cbid))
    subscriber.subscribe()
    subscriber.enable(cupti.DRIVER, cupti.MEM_ALLOC_ASYNC, cupti.MEM_ALLOC_ASYNC_PTSZ)
    ok(driver.cuMemAllocAsync(512, 0))
    assert log == [cupti.MEM_ALLOC_ASYNC_PTSZ] * 2
