"""What remains of a dashboard: notebooks that were saved, opened without a kernel, turned into HTML; static reports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.dashboard.live import Live, wait_until

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.jupyter import Notebook

STILL = "section.gpumem:not(.gm-dashboard)"
HELD = 300 << 20
NUMBERS = ("300 MiB", "16.0 GiB")


@pytest.fixture
def saved(lab: Notebook, live: Live) -> Notebook:
    """A notebook that was saved with its dashboard open, after 300 MiB were allocated."""
    lab.run(f"held = alloc({HELD})")
    live.check_bytes(HELD)
    said = lab.page.locator(STILL).first
    wait_until(lambda: NUMBERS[0] in (said.text_content() or ""), "the still picture says it too", timeout_s=30)
    lab.save()
    return lab


def check_still(page: Page, *, trusted: bool = True) -> None:
    """The still form is in sight, with the right numbers, and of the live one nothing but words."""
    still = page.locator(STILL).first
    still.wait_for(state="visible")
    for number in NUMBERS:
        assert number in still.inner_text()
    if trusted:  # what others sent is shown without pictures: Lab takes every SVG out
        heights = still.locator("svg").evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
        assert max(heights) > 60
    assert page.locator("section.gm-dashboard").count() == 0


def test_the_still_picture_is_hidden_while_the_live_one_is_there(saved: Notebook, live: Live) -> None:
    assert saved.page.locator(STILL).count() == 1
    assert not saved.page.locator(STILL).first.is_visible()
    live.button("Close").click()
    check_still(saved.page)


def test_reopened_another_day(saved: Notebook) -> None:
    """There is a kernel, but not the one that knew the widget."""
    saved.app.show(saved.name)
    saved.wait_for_kernel()
    saved.app.problems.clear()
    check_still(saved.page)
    check_no_data(saved.page)


def test_reopened_without_a_kernel(saved: Notebook) -> None:
    text = saved.path.read_text(encoding="utf-8")
    name = f"without-{saved.name}"
    (saved.path.parent / name).write_text(re.sub(r'"name": "ipykernel-[\d.]+"', '"name": "none"', text), "utf-8")
    saved.app.show(name)
    dialog = saved.page.locator(".jp-Dialog")
    dialog.locator("select").select_option(label="No Kernel")
    dialog.get_by_role("button", name=re.compile("Select")).click()
    dialog.wait_for(state="detached")
    check_still(saved.page, trusted=False)
    check_no_data(saved.page)


def check_no_data(page: Page) -> None:
    """Where the live view was, there is something short to read, if anything."""
    said = page.locator(".jp-Cell-outputArea").filter(has=page.locator(STILL)).last.inner_text()
    assert "model_id" not in said
    assert "{" not in said


@pytest.fixture
def offline(browser: Browser) -> Iterator[Page]:
    """A page that cannot load anything."""
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    yield context.new_page()
    context.close()


def test_as_html(saved: Notebook, offline: Page, tmp_path: pathlib.Path) -> None:
    nbconvert = pytest.importorskip("nbconvert")
    path = tmp_path / "saved.html"
    path.write_text(nbconvert.HTMLExporter().from_filename(str(saved.path))[0], encoding="utf-8")
    offline.goto(path.as_uri(), wait_until="domcontentloaded")
    check_still(offline)
    assert "300 MiB" in offline.locator("body").inner_text()


def test_plain_text_is_saved_too(saved: Notebook) -> None:
    """What a reader without HTML sees: a diff, a terminal, a screen reader."""
    (cell,) = (each for each in saved.save()["cells"] if "%gpumem" in "".join(each["source"]).split("\n"))
    still, live = cell["outputs"]
    assert "300 MiB" in "".join(still["data"]["text/plain"])
    assert "live" in "".join(live["data"]["text/plain"]).lower()


def test_a_live_cell_turns_into_its_report(lab: Notebook) -> None:
    cell = lab.start(
        "%%gpumem --live\nheld = []\nfor _ in range(15):\n    held.append(alloc(2 << 20))\n    busy(0.1)\n"
        "free(*held[5:])"
    )
    live = Live(lab).wait()
    wait_until(lambda: live.live_bytes() > 4 << 20, "the cell's numbers are there while it runs")
    assert cell.is_running
    cell.wait()
    wait_until(lambda: lab.page.locator("section.gm-dashboard").count() == 0, "the live view is gone")
    report = cell.area.locator("section.gpumem")
    assert report.count() == 1
    assert "10.0 MiB" in report.inner_text(), "what stays"
    assert "30.0 MiB" in report.inner_text(), "the peak"
    assert lab.evaluate("dashboard_threads()") == 0
    (cell_saved,) = (each for each in lab.save()["cells"] if "--live" in "".join(each["source"]))
    (output,) = cell_saved["outputs"]
    assert "text/html" in output["data"]
    assert "application/vnd.jupyter.widget-view+json" not in output["data"]


def test_a_live_cell_that_fails(lab: Notebook) -> None:
    cell = lab.start("%%gpumem --live\nheld = alloc(2 << 20)\nbusy(1)\nraise ValueError('on purpose')")
    Live(lab).wait()
    wait_until(lambda: not cell.is_running, "the cell ended")
    wait_until(lambda: lab.page.locator("section.gm-dashboard").count() == 0, "the live view is gone")
    assert "2.00 MiB" in cell.area.locator("section.gpumem").inner_text()
    assert [each["ename"] for each in cell.outputs if each["output_type"] == "error"] == ["ValueError"]
