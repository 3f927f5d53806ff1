"""A dashboard's life in JupyterLab: several views, reloads, restarts, deaths, and that closing it ends the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dashboard.live import Live, wait_until
from tests.jupyter import CURRENT

if TYPE_CHECKING:
    from tests.jupyter import Notebook

THREE_THREADS = """
def work(part):
    use_device(0)
    for n in range(60):
        held.append(alloc((part + 1) * 65536 + n))
        if n % 3 == 0:
            free(held.pop())
        time.sleep(0.02)

held = []
threads = [threading.Thread(target=work, args=(part,), name=f"loader {part}") for part in range(3)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_three_threads(lab: Notebook, live: Live) -> None:
    cell = lab.start(THREE_THREADS)
    live.look()
    wait_until(lambda: live.live_bytes() > 0, "the threads' allocations are seen", timeout_s=30)
    assert cell.is_running
    cell.wait()
    expected = lab.evaluate("gpumem.snapshot().live_bytes")
    assert expected > 3 * 30 * 65536
    live.check_bytes(expected)
    counts = "[...store.panels.get('allocations').rows.values()].reduce((sum, row) => sum + row.count, 0)"
    wait_until(lambda: live.view(counts) == 180, "the table counts 180 allocations", timeout_s=30)


@pytest.mark.parametrize("lab", [8], indirect=True)
def test_eight_devices(lab: Notebook, live: Live) -> None:
    lab.run("for n in range(8):\n    use_device(n)\n    alloc((n + 1) << 20)")
    for device in range(8):
        live.check_bytes((device + 1) << 20, device)
    opened = live.root.locator("details.gm-device[open]")
    assert opened.count() == 4, "the others are folded at first"
    last = live.root.locator(".gm-device").nth(7)
    last.locator("summary").click()
    last.locator("canvas").first.wait_for()
    drawn = "view.pictures.plots.get('gpu7').sources.get('bands').data"
    wait_until(
        lambda: live.view(f"{drawn}.live.at(-1) - {drawn}.unexplained.at(-1)") == 8 << 20,
        "the last device's picture is filled once it is unfolded",
        timeout_s=30,
    )


def test_a_second_view_begins_with_now(lab: Notebook) -> None:
    cell = lab.run("%gpumem")
    first = Live(lab).wait()
    lab.run("alloc(12345678)")
    first.check_bytes(12345678)
    cell.select()
    lab.command("notebook:create-output-view")
    wait_until(lambda: first.page.locator("section.gm-dashboard").count() == 2, "there are two views")
    views = [Live(lab, n).wait() for n in range(2)]
    for view in views:
        view.check_bytes(12345678)
    lab.activate()
    assert lab.evaluate("dashboard_threads()") == 1, "one dashboard however many views"
    views[1].button("Pause").click()
    lab.activate()
    lab.run("alloc(1 << 20)")
    views[0].check_bytes(12345678 + (1 << 20))
    assert views[1].live_bytes() == 12345678, "a setting belongs to one view"


def test_a_reload_shows_now(lab: Notebook, live: Live) -> None:
    lab.run("alloc(7654321)")
    live.check_bytes(7654321)
    lab.save()
    lab.reload()
    live = Live(lab).wait()
    live.check_bytes(7654321)
    lab.run("alloc(1 << 20)")
    live.check_bytes(7654321 + (1 << 20))


def test_the_cell_is_run_again(lab: Notebook) -> None:
    cell = lab.run("%gpumem")
    Live(lab).wait()
    lab.run("alloc(1 << 20)")
    for _ in range(3):
        cell.start()
        cell.wait()
    live = Live(lab).wait()
    live.check_bytes(1 << 20)
    assert lab.page.locator("section.gm-dashboard").count() == 1
    lab.run("alloc(1 << 20)")
    live.check_bytes(2 << 20)
    assert lab.evaluate("dashboard_threads()") == 1


def test_its_output_is_cleared(lab: Notebook) -> None:
    cell = lab.start(
        "from IPython.display import clear_output\n%gpumem\nbusy(2)\nclear_output()\nbusy(1)\nprint('left')"
    )
    Live(lab).wait()
    wait_until(lambda: lab.page.locator("section.gm-dashboard").count() == 0, "the view is gone")
    cell.wait()
    assert cell.text == "left\n"
    wait_until(lambda: lab.evaluate("dashboard_threads()") == 0, "nobody looks, so nothing is sent", timeout_s=30)
    lab.run("%gpumem")
    live = Live(lab).wait()
    lab.run("alloc(1 << 20)")
    live.check_bytes(1 << 20)


def test_closing_ends_its_work(lab: Notebook, live: Live) -> None:
    assert lab.evaluate("dashboard_threads()") == 1
    live.button("Close").click()
    wait_until(lambda: "closed" in lab.page.locator(".jp-Notebook").inner_text(), "a sentence says so", timeout_s=30)
    wait_until(lambda: lab.evaluate("dashboard_threads()") == 0, "the thread ended", timeout_s=30)
    assert lab.page.locator("section.gm-dashboard").count() == 0
    assert lab.page.locator("section.gumem:visible, section.gpumem:visible").count() >= 1, "the still picture stays"


def test_the_cell_is_deleted(lab: Notebook) -> None:
    cell = lab.run("%gpumem")
    Live(lab).wait()
    cell.select()
    lab.command("notebook:delete-cell")
    wait_until(lambda: lab.evaluate("dashboard_threads()") == 0, "nobody looks, so nothing is sent", timeout_s=30)


def test_unloading_ends_everything(lab: Notebook, live: Live) -> None:
    lab.run("%unload_ext gpumem_magic")
    names = lab.evaluate("[each.name for each in threading.enumerate()]")
    assert not any("gpumem" in name for name in names), names
    assert lab.page.locator("section.gm-dashboard").count() == 0
    assert "closed" in lab.page.locator(".jp-Notebook").inner_text()
    lab.run("%load_ext gpumem_magic")
    lab.run("%gpumem")
    live.wait()
    lab.run("alloc(1 << 20)")
    live.check_bytes(1 << 20)


def test_a_restarted_kernel_leaves_a_readable_page(lab: Notebook, live: Live) -> None:
    lab.run("alloc(3 << 20)")
    live.check_bytes(3 << 20)
    lab.page.evaluate(f"{CURRENT}.sessionContext.session.kernel.restart()")
    _check_readable(lab, live)


def test_a_killed_kernel_leaves_a_readable_page(lab: Notebook, live: Live) -> None:
    lab.run("alloc(3 << 20)")
    live.check_bytes(3 << 20)
    lab.start("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    lab.page.locator(".jp-Dialog").get_by_role("button").last.click()  # Lab says that the kernel died
    _check_readable(lab, live)


def _check_readable(lab: Notebook, live: Live) -> None:
    """The last numbers stay, and a sentence says that they are not news."""
    said = live.root.get_by_role("status")
    wait_until(lambda: "No news from the kernel" in said.inner_text(), "a sentence says what is the matter")
    assert live.live_bytes() == 3 << 20
    live.look()
    assert live.root.locator(".gm-picture canvas").first.is_visible()
    live.button("Mark").click()  # there is nobody to hear it, which is no error
