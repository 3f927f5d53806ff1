"""Many threads at once: nothing is lost, nothing hangs."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from cuda.bindings import driver

from tests.simulator.cupti import DRIVER, MEM_ALLOC, MEM_ALLOC_ASYNC, Subscriber
from tests.simulator.driver import MiB, ok, start, used
from tests.simulator.fresh_process import in_fresh_process

THREADS, ROUNDS = 8, 3000


def churn(context: Any, seed: int) -> None:
    """Allocates and frees at random, and leaves nothing."""
    choose = random.Random(seed)
    ok(driver.cuCtxSetCurrent(context))
    stream = ok(driver.cuStreamCreate(0))
    live: list[Any] = []
    for _ in range(ROUNDS):
        size = choose.choice([1, 4096, MiB, 2 * MiB, 5 * MiB])
        if choose.random() < 0.5:
            live.append((driver.cuMemFree, (ok(driver.cuMemAlloc(size)),)))
        else:
            live.append((driver.cuMemFreeAsync, (ok(driver.cuMemAllocAsync(size, stream)), stream)))
        if len(live) > 10:
            free, arguments = live.pop(choose.randrange(len(live)))
            ok(free(*arguments))
    for free, arguments in live:
        ok(free(*arguments))
    ok(driver.cuStreamSynchronize(stream))


@in_fresh_process()
def test_churning_threads_leave_nothing_while_subscribers_come_and_go() -> None:
    context = start()
    calls: list[None] = []
    threads = [threading.Thread(target=churn, args=(context, seed)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        subscriber = Subscriber(lambda *_: calls.append(None))
        assert subscriber.subscribe() == 0
        subscriber.enable(DRIVER, MEM_ALLOC, MEM_ALLOC_ASYNC)
        time.sleep(0.005)
        assert subscriber.unsubscribe() == 0
    for thread in threads:
        thread.join()
    ok(driver.cuCtxSynchronize())
    assert used() == 0
    assert calls
