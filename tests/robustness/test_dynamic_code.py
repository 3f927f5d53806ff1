"""Code that comes and goes: captured stacks name the code that ran, not the one whose address it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended

# Each function is named after the size it allocates and allocates on the line of that number. Wrong stacks show.
MADE_UP = """
addresses = set()
reused = 0
def make(size):
    global reused
    name = f"alloc_{size}"
    namespace = {"alloc": alloc}
    line = size // 4096
    exec(compile("\\n" * (line - 2) + f"def {name}():\\n return alloc({size})\\n", f"<cell {size}>", "exec"), namespace)
    function = namespace.pop(name)
    address = id(function.__code__)
    reused += address in addresses
    addresses.add(address)
    return function

def wrong_sites(snapshot):
    wrong = []
    for site in snapshot.sites:
        if site["kind"] != Kind.ALLOC: continue
        filename, function, line = frames(snapshot, site["stack"])[1]  # [0] is the helper alloc()
        size = int(site["allocated_bytes"]) // int(site["allocated_count"])
        if (filename, function, line) != (f"<cell {size}>", f"alloc_{size}", size // 4096):
            wrong.append([size, filename, function, line])
    return wrong
"""


def test_code_objects_that_reuse_addresses_on_many_threads(program: Callable[..., Ended]) -> None:
    found = program(
        MADE_UP
        + """
gpumem.start()
def work(number):
    use_context()
    for step in range(700):
        function = make(4096 * (2 + (step * 7 + number * 131) % 997))
        for _ in range(1 + step % 2): free(function())
        del function
threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
snapshot = gpumem.snapshot()
snapshot.self_check()
answer(wrong=wrong_sites(snapshot)[:5], sites=len(snapshot.sites), reused=reused, status=gpumem.status().stacks,
       births=snapshot.counters["births"])
""",
        timeout=120,
    ).answer
    assert found["status"] == ""
    assert found["births"] == 6 * 1050
    assert found["reused"] > 100  # or this test shows nothing
    assert found["wrong"] == []


def test_code_that_died_while_nobody_watched(program: Callable[..., Ended]) -> None:
    found = program(
        MADE_UP
        + """
wrong = []
functions = []
for number in range(20):
    gpumem.start()
    functions = [make(4096 * (2 + number * 30 + each)) for each in range(20)]
    for function in functions: free(function())
    wrong += wrong_sites(gpumem.snapshot())
    gpumem.stop()
    del functions, function  # in the gap: their addresses go to the next ones
answer(wrong=wrong[:5], reused=reused)
""",
    ).answer
    assert found["reused"] > 50
    assert found["wrong"] == []


def test_a_cell_that_is_run_again_keeps_its_stacks(program: Callable[..., Ended]) -> None:
    found = program(
        """
        gpumem.start()
        for _ in range(50):
            exec(compile("free(alloc(4096))", "<cell>", "exec"))
        snapshot = gpumem.snapshot()
        # By their lines: before and after it specialises, 3.11 makes one call from two instructions.
        answer(stacks=len({str(frames(snapshot, row["stack"])) for row in snapshot.sites if row["kind"] == Kind.ALLOC}))
        """,
    ).answer
    assert found["stacks"] == 1


def test_stacks_stay_right_while_the_collector_runs(program: Callable[..., Ended]) -> None:
    found = program(
        MADE_UP
        + """
import gc
gpumem.start()
done = threading.Event()
def collect():
    while not done.is_set(): gc.collect()
collector = threading.Thread(target=collect)
collector.start()
for step in range(400):
    function = make(4096 * (2 + step))
    circle = [function]; circle.append(circle)  # dies in the collector, on its thread
    free(function())
    del function, circle
done.set()
collector.join()
snapshot = gpumem.snapshot()
answer(wrong=wrong_sites(snapshot)[:5], births=snapshot.counters["births"])
""",
        timeout=120,
    ).answer
    assert (found["births"], found["wrong"]) == (400, [])
