"""Controls act at once, in the page, while a cell computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dashboard.live import LIVE, Live, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.jupyter import Notebook

ROWS = """
def attention(): return alloc(5 << 20)
def embedding(): return alloc(9 << 20)
def scratch(): return alloc(2 << 20)
held = [make() for make in (attention, embedding, scratch, attention)]
"""
AT_ONCE_S = 5.0  # the cell computes six times as long: whatever happens in this time did not wait for its end


@pytest.fixture
def busy(lab: Notebook, live: Live) -> Iterator[Live]:
    """The dashboard while a cell computes and allocates; at the end it must be computing still."""
    lab.run(ROWS)
    live.look()
    wait_until(lambda: len(live.rows("Allocations")) == 3, "three stacks are in the table", timeout_s=30)
    cell = lab.start("more = []\nfor _ in range(300):\n    busy(0.1)\n    more.append(alloc(1 << 20))")
    live.look()
    wait_until(lambda: live.live_bytes() > 21 << 20, "the cell's first numbers are there", timeout_s=30)
    yield live
    assert cell.is_running, "this was to be tested while a cell runs"
    lab.page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    wait_until(lambda: not cell.is_running, "the cell was interrupted")


def now(holds: object, what: str) -> None:
    wait_until(holds, what, AT_ONCE_S)


def test_pause_and_resume(busy: Live) -> None:
    busy.button("Pause").click()
    now(lambda: busy.button("Resume").get_attribute("aria-pressed") in ("true", ""), "it says that it is paused")
    held = busy.live_bytes()
    busy.page.wait_for_timeout(600)
    assert busy.live_bytes() == held, "paused, it draws nothing"
    assert busy.view(f"store.histories.get(0).latest[{LIVE}]") > held, "and goes on listening"
    busy.button("Resume").click()
    now(lambda: busy.live_bytes() > held, "it draws what came meanwhile")


def test_window_zoom_and_follow(busy: Live) -> None:
    def length() -> float:
        return float(busy.view("view.pictures.time.end - view.pictures.time.start"))

    busy.root.get_by_label("How much time is shown").select_option("all")
    now(lambda: length() == busy.view("view.shownRange()[1] - view.shownRange()[0]"), "the window is all there is")
    whole = length()
    busy.button("Zoom in (+, or Ctrl and the wheel)").click()
    now(lambda: length() == pytest.approx(whole / 2, rel=0.1), "half the time is shown")
    picture = busy.root.locator(".gm-picture").first
    picture.focus()
    picture.press("ArrowLeft")
    now(lambda: busy.button("Follow").get_attribute("aria-pressed") in ("false", None), "it stands still")
    end = busy.view("view.pictures.time.end")
    busy.page.wait_for_timeout(400)
    assert busy.view("view.pictures.time.end") == end
    busy.button("Follow").click()
    now(lambda: busy.view("view.pictures.time.end") > end, "it follows again")


def test_a_drag_moves_the_time(busy: Live) -> None:
    box = busy.root.locator(".gm-picture canvas").first.bounding_box()
    assert box is not None
    begin = busy.view("view.shownRange()[0]")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    busy.page.mouse.move(x, y)
    busy.page.mouse.down()
    busy.page.mouse.move(x + 120, y, steps=4)
    busy.page.mouse.up()
    now(lambda: busy.view("view.shownRange()[0]") < begin, "earlier times are shown")
    assert busy.view("view.follow") is False


def test_sort_filter_and_group(busy: Live) -> None:
    def functions() -> list[str]:
        return [row[0] for row in busy.rows("Allocations")]

    busy.button("Births").click()
    head = busy.root.get_by_role("columnheader", name="Births")
    now(lambda: head.get_attribute("aria-sort") == "descending", "the column says how it is sorted")
    births = [int(row[6].replace(",", "")) for row in busy.rows("Allocations")]
    assert births == sorted(births, reverse=True)
    busy.root.get_by_label("Filter Allocations").fill("embedding")
    now(lambda: len(functions()) == 1 and "embedding" in functions()[0], "one row matches")
    busy.root.get_by_label("Filter Allocations").fill("")
    busy.root.get_by_label("Group Allocations by").select_option(label="by cell")
    now(lambda: len(functions()) == 2, "one row per cell")


def test_a_row_unfolds(busy: Live) -> None:
    busy.root.get_by_label("Filter Allocations").fill("embedding")
    busy.root.get_by_role("tabpanel").locator("tbody .gm-unfold").first.click()
    source = busy.root.locator(".gm-detail .gm-source", has_text="def embedding(): return alloc(9 << 20)")
    now(source.first.is_visible, "the line of source is there")


@pytest.mark.parametrize("place", ["button", ".gm-picture", "select", "summary"])
def test_keys_pressed_in_it_are_no_commands_of_jupyterlab(lab: Notebook, live: Live, place: str) -> None:
    count = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
    cells = lab.page.evaluate(count)
    lab.page.keyboard.press("Escape")  # command mode, in which single keys are commands
    live.look()
    live.root.locator(place).first.focus()
    for key in "bax":
        lab.page.keyboard.press(key)
    lab.page.wait_for_timeout(300)
    assert lab.page.evaluate(count) == cells


def test_a_picture_takes_the_focus_once(lab: Notebook, live: Live) -> None:
    live.look()
    live.root.locator(".gm-picture").first.focus()
    lab.page.keyboard.press("Tab")
    assert lab.page.evaluate("document.activeElement.shadowRoot?.activeElement ?? null") is None
