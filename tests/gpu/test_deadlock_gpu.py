"""The shape that hangs a callback which takes the GIL, on the real allocator that has it.

torch's caching allocator calls the driver while it holds its mutex. Another thread waits for that mutex while it
holds the GIL. A tracker that wanted the GIL inside the driver call would wait for ever.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGpu = Callable[..., dict[str, Any]]

SECONDS = int(os.environ.get("GPUMEM_SOAK_SECONDS", "20"))


def test_allocating_threads_against_one_in_memory_stats(on_gpu: OnGpu) -> None:
    found = on_gpu(
        f"""
        import threading, time
        import torch
        torch.empty(1, device="cuda")
        gpumem.start()
        end = time.monotonic() + {SECONDS}
        counts = [0] * 4
        def allocate(index):
            while time.monotonic() < end:
                kept = [torch.empty(4 << 20, dtype=torch.uint8, device="cuda") for _ in range(4)]
                del kept
                torch.cuda.empty_cache()
                counts[index] += 1
        def ask(index):
            while time.monotonic() < end:
                torch.cuda.memory_stats()
                counts[index] += 1
        threads = [threading.Thread(target=allocate, args=(n,)) for n in range(3)]
        threads.append(threading.Thread(target=ask, args=(3,)))
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        torch.cuda.empty_cache()
        snapshot = gpumem.snapshot()
        answer(counts=counts, events=snapshot.counters["events"], missed=snapshot.counters["missed_frees"])
        """,
        timeout=SECONDS + 90,
    )
    assert min(found["counts"]) > 0
    assert found["events"] > 100
    assert found["missed"] == 0
