"""Stream-ordered pools: growth, reuse, what goes back and when."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver

from tests.simulator.driver import GiB, MiB, device_prop, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process

ATTRIBUTE = driver.CUmemPool_attribute
RESERVED = ATTRIBUTE.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT
RESERVED_HIGH = ATTRIBUTE.CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH
USED = ATTRIBUTE.CU_MEMPOOL_ATTR_USED_MEM_CURRENT
USED_HIGH = ATTRIBUTE.CU_MEMPOOL_ATTR_USED_MEM_HIGH
THRESHOLD = ATTRIBUTE.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD


def figures(pool: Any) -> tuple[int, ...]:
    """Reserved, its high mark, used, its high mark: MiB."""
    attributes = (RESERVED, RESERVED_HIGH, USED, USED_HIGH)
    return tuple(int(ok(driver.cuMemPoolGetAttribute(pool, a))) // MiB for a in attributes)


def set_threshold(pool: Any, size: int) -> None:
    ok(driver.cuMemPoolSetAttribute(pool, THRESHOLD, driver.cuuint64_t(size)))


def new_pool(max_size: int = 0) -> Any:
    props = driver.CUmemPoolProps()
    prop = device_prop()
    props.allocType, props.location = prop.type, prop.location
    props.maxSize = max_size
    return ok(driver.cuMemPoolCreate(props))


@in_fresh_process()
def test_a_pool_grows_in_steps_and_gives_back_at_a_synchronise() -> None:
    start()
    pool = ok(driver.cuDeviceGetDefaultMemPool(0))
    for size, reserved in [(20, 32), (33, 64), (65, 96), (100, 128)]:
        pointer = ok(driver.cuMemAllocAsync(size * MiB, 0))
        assert figures(pool)[::2] == (reserved, size)
        ok(driver.cuMemFreeAsync(pointer, 0))
        assert figures(pool)[::2] == (reserved, 0)
        assert used() == reserved * MiB
        ok(driver.cuStreamSynchronize(0))
        assert used() == 0
    assert figures(pool) == (0, 128, 0, 100)


@in_fresh_process()
def test_used_counts_what_was_asked_for() -> None:
    start()
    pool = ok(driver.cuDeviceGetDefaultMemPool(0))
    first = int(ok(driver.cuMemAllocAsync(100, 0)))
    second = int(ok(driver.cuMemAllocAsync(1, 0)))
    assert second - first == 512
    assert int(ok(driver.cuMemPoolGetAttribute(pool, USED))) == 101


@in_fresh_process()
def test_a_threshold_keeps_memory_until_trimmed_or_needed() -> None:
    start(memory="1GiB")
    pool = ok(driver.cuDeviceGetDefaultMemPool(0))
    set_threshold(pool, GiB)
    pointer = ok(driver.cuMemAllocAsync(600 * MiB, 0))
    ok(driver.cuMemFreeAsync(pointer, 0))
    ok(driver.cuCtxSynchronize())
    assert used() == 608 * MiB
    needed = ok(driver.cuMemAlloc(600 * MiB))  # the pool makes room
    assert used() == 600 * MiB
    ok(driver.cuMemFree(needed))
    ok(driver.cuMemFreeAsync(ok(driver.cuMemAllocAsync(MiB, 0)), 0))
    ok(driver.cuMemPoolTrimTo(pool, 32 * MiB))
    assert used() == 32 * MiB
    ok(driver.cuMemPoolTrimTo(pool, 0))
    assert used() == 0


@in_fresh_process()
def test_a_pool_out_of_steps_is_out_of_memory() -> None:
    start(memory="1GiB")
    ok(driver.cuMemAlloc(GiB - 64 * MiB - 16 * MiB))
    assert status(driver.cuMemAllocAsync(MiB, 0)) == 2
    ok(driver.cuMemAlloc(16 * MiB))


@in_fresh_process()
def test_a_pool_may_have_a_largest_size() -> None:
    start()
    pool = new_pool(max_size=64 * MiB)
    ok(driver.cuMemAllocFromPoolAsync(40 * MiB, pool, 0))
    assert status(driver.cuMemAllocFromPoolAsync(40 * MiB, pool, 0)) == 2


@in_fresh_process()
def test_a_destroyed_pool_lives_until_its_last_allocation() -> None:
    start()
    pool = new_pool()
    pointer = ok(driver.cuMemAllocFromPoolAsync(MiB, pool, 0))
    ok(driver.cuMemPoolDestroy(pool))
    assert used() == 32 * MiB
    assert status(driver.cuMemAllocFromPoolAsync(MiB, pool, 0)) == 1
    ok(driver.cuMemFreeAsync(pointer, 0))
    assert used() == 0
    default = ok(driver.cuDeviceGetDefaultMemPool(0))
    assert status(driver.cuMemPoolDestroy(default)) == 1


@in_fresh_process()
def test_the_current_pool_of_a_device_can_be_another() -> None:
    start()
    pool = new_pool()
    ok(driver.cuDeviceSetMemPool(0, pool))
    assert int(ok(driver.cuDeviceGetMemPool(0))) == int(pool)
    ok(driver.cuMemAllocAsync(MiB, 0))
    assert figures(pool)[2] == 1
    assert figures(ok(driver.cuDeviceGetDefaultMemPool(0)))[2] == 0


@in_fresh_process()
def test_high_marks_can_only_be_reset_to_zero() -> None:
    start()
    pool = ok(driver.cuDeviceGetDefaultMemPool(0))
    ok(driver.cuMemFreeAsync(ok(driver.cuMemAllocAsync(MiB, 0)), 0))
    ok(driver.cuStreamSynchronize(0))
    five, zero = driver.cuuint64_t(5), driver.cuuint64_t(0)
    assert status(driver.cuMemPoolSetAttribute(pool, RESERVED_HIGH, five)) == 1
    assert status(driver.cuMemPoolSetAttribute(pool, RESERVED, zero)) == 1
    assert figures(pool) == (0, 32, 0, 1)
    ok(driver.cuMemPoolSetAttribute(pool, RESERVED_HIGH, zero))
    ok(driver.cuMemPoolSetAttribute(pool, USED_HIGH, zero))
    assert figures(pool) == (0, 0, 0, 0)
