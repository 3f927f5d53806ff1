"""The core of it, in each application with each kind of kernel: what happens is in the page while a cell runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dashboard.conftest import IPYKERNELS, check_page
from tests.dashboard.live import HIGH, Live, prelude, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.jupyter import App, Notebook

SPIKE = """
size = 3 << 30
for attempt in range(50):  # each a little larger, until the machine lets one be quick
    size += 4096
    began = time.perf_counter()
    free(alloc(size))
    took = time.perf_counter() - began
    if took < 1e-3:
        break
else:
    raise RuntimeError(f"allocating and freeing took {took * 1e3:.1f} ms each time")
"""
COMBINATIONS = [(app, version) for app in ("lab", "notebook") for version in IPYKERNELS]


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def opened(request: pytest.FixtureRequest, apps: Callable[[str], App]) -> Notebook:
    """A notebook that the tests of one combination share."""
    app, version = request.param
    notebook = apps(app).open(f"ipykernel-{version}")
    for cell in prelude():
        notebook.run(cell)
    assert notebook.evaluate("__import__('ipykernel').__version__").startswith(version)
    return notebook


@pytest.fixture
def notebook(opened: Notebook) -> Iterator[Notebook]:
    yield opened
    check_page(opened.app)


def test_a_busy_cell_is_watched_from_its_first_moment(notebook: Notebook) -> None:
    """The cell that opens the dashboard goes on computing, so no message of the page is answered meanwhile."""
    cell = notebook.start("%gpumem\nheld = []\nfor _ in range(80):\n    busy(0.1)\n    held.append(alloc(1 << 20))")
    live = Live(notebook).wait()
    seen: set[int] = set()
    wait_until(lambda: seen.add(live.live_bytes()) or len(seen) >= 4, "four different numbers", timeout_s=30)
    assert cell.is_running
    cell.wait()
    live.check_bytes(80 << 20)


def test_numbers_follow_a_busy_cell_and_are_exact(notebook: Notebook) -> None:
    notebook.run("%gpumem")
    live = Live(notebook).wait()
    cell = notebook.start("for n in range(60):\n    busy(0.1)\n    held.append(alloc((1 << 20) + 4096 * n + 7))")
    live.look()
    seen: list[int] = []
    wait_until(lambda: _noted(seen, live.live_bytes()) >= 8, "eight different numbers", timeout_s=30)
    assert cell.is_running
    assert seen == sorted(seen), "only more was allocated"
    cell.wait()
    live.check_bytes(notebook.evaluate("gpumem.snapshot().live_bytes"))


def _noted(seen: list[int], number: int) -> int:
    if seen[-1:] != [number]:
        seen.append(number)
    return len(seen)


def test_a_spike_of_a_millisecond_is_in_the_picture(notebook: Notebook) -> None:
    notebook.run("%gpumem")
    live = Live(notebook).wait()
    before = notebook.evaluate("gpumem.snapshot().live_bytes")
    notebook.run(SPIKE)
    spike = notebook.evaluate("size")
    highest = f"Math.max(...store.histories.get(0).levels[0].map(row => row[{HIGH}]))"
    wait_until(lambda: live.view(highest) == before + spike, "a row's highest is the spike's", timeout_s=30)
    live.check_bytes(before)
    drawn = "Math.max(...view.pictures.plots.get('gpu0').sources.get('bands').data.high)"
    wait_until(lambda: live.view(drawn) >= before + spike, "the spike is drawn", timeout_s=30)
