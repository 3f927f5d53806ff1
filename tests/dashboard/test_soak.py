"""Nothing grows: over many dashboards in one kernel, and over hours of one dashboard.

Short by default. ``GPUMEM_SOAK_SECONDS``, with any number, makes it 200 dashboards.
"""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING

import pytest

from tests.dashboard.live import Live, wait_until
from tests.dashboard.played import PlayedDashboard, PlayedSource, page_memory

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.jupyter import Notebook

CYCLES = 200 if "GPUMEM_SOAK_SECONDS" in os.environ else 8
HOURS = 8
MIB = 1 << 20

COUNT = """
import comm, gc, psutil
from bokeh.document import Document

def kept():
    gc.collect()
    return {
        "resident": psutil.Process().memory_info().rss,
        "threads": threading.active_count(),
        "comms": len(comm.get_comm_manager().comms),
        "documents": sum(isinstance(each, Document) for each in gc.get_objects()),
        "dashboards": sum(type(each).__name__ == "Dashboard" for each in gc.get_objects()),
    }
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_dashboards_leave_nothing(lab: Notebook) -> None:
    lab.run(COUNT)
    opening = lab.run("%gpumem")
    closing = lab.run("%gpumem close")

    def cycle(count: int) -> None:
        for _ in range(count):
            opening.start()
            opening.wait()
            Live(lab).wait()
            closing.start()
            closing.wait()
            wait_until(lambda: lab.page.locator("section.gm-dashboard").count() == 0, "it is closed")

    warm_up = max(CYCLES // 5, 3)
    cycle(warm_up)
    before, page_before = lab.evaluate("kept()"), page_memory(lab.page)
    cycle(CYCLES - warm_up)
    after, page_after = lab.evaluate("kept()"), page_memory(lab.page)
    print(f"\n{CYCLES} dashboards\nkernel: {before} -> {after}\npage: {page_before} -> {page_after}")
    for name in ("threads", "comms", "documents", "dashboards"):
        assert after[name] <= before[name], name
    rounds = CYCLES - warm_up
    assert after["resident"] - before["resident"] < 4 * MIB + rounds * 20_000
    assert page_after["JSHeapUsedSize"] - page_before["JSHeapUsedSize"] < 6 * MIB + rounds * 20_000
    assert page_after["Nodes"] - page_before["Nodes"] < 1000 + rounds * 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hours_cost_what_a_minute_does(browser: Browser) -> None:
    played = PlayedDashboard(PlayedSource(HOURS + 0.01))
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"{error}\n{error.stack}"))
    for _ in range(600 - 200):
        played.turn(1)
    played.show(page)
    played.sent.clear()
    early = [played.turn(1) for _ in range(200)]
    played.tell(page)
    for _ in range(300):  # until each level that matters is full, memory grows and should
        played.turn(200)
    played.tell(page)
    filled = page_memory(page)
    while played.source.played < HOURS * 36000 - 400:
        played.turn(200)
        if len(played.sent) > 100:
            played.tell(page)
    late = [played.turn(1) for _ in range(200)]
    played.tell(page)
    page.wait_for_timeout(300)
    after = page_memory(page)
    print(
        f"\nan update: {statistics.mean(early):,.0f} bytes after a minute, {statistics.mean(late):,.0f} after {HOURS} h\n"
        f"the whole: {played.whole_bytes():,} bytes\npage: {filled} -> {after}"
    )
    assert problems == []
    assert statistics.mean(late) == pytest.approx(statistics.mean(early), rel=0.2)
    assert (
        page.evaluate("document.querySelector('section.gm-dashboard').gpumem.store.seq") == played.dashboard.widget.seq
    )
    assert after["JSHeapUsedSize"] < filled["JSHeapUsedSize"] + 8 * MIB
    assert after["Nodes"] < filled["Nodes"] + 2000
    context.close()
