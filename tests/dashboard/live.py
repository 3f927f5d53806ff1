"""What tests see of a dashboard: its numbers, its pictures, and the store that they are drawn from."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Self

from tests.driver_calls import DRIVER_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.jupyter import Notebook


def prelude(devices: int = 1) -> tuple[str, str]:
    """The first two cells of a notebook: they load the extension, and define what the tests' cells use."""
    # Python's simulate() comes before the extension, so that it begins with a GPU.
    return f"import gpumem_magic as gpumem\ngpumem.simulate(devices={devices})\n%load_ext gpumem_magic", _FUNCTIONS


_FUNCTIONS = (
    """
import threading, time
from cuda.bindings import driver as cuda
"""
    + DRIVER_CALLS
    + """

def busy(seconds):
    "Compute in Python, without ever waiting."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(n * n for n in range(2000))

def dashboard_threads():
    return sum(each.name.startswith("gpumem-dashboard") for each in threading.enumerate())

use_device()
"""
)

LIVE, HIGH = 6, 9
"""Places of live bytes and of the highest tracked bytes in a row of the page's store; see front/levels.js."""


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 15) -> None:
    """Ask again and again; an AssertionError says what never came true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"after {timeout_s} s it still does not hold: {what}"
        time.sleep(0.05)


class Live:
    """One view of a dashboard; the first on the page unless told otherwise."""

    def __init__(self, notebook: Notebook, number: int = 0) -> None:
        self.page = notebook.page
        self.root: Locator = notebook.page.locator("section.gm-dashboard").nth(number)

    def wait(self) -> Self:
        """Until it is drawn."""
        self.root.wait_for(state="attached", timeout=30_000)
        self.look()
        self.root.locator(".gm-picture canvas").first.wait_for(timeout=30_000)
        wait_until(lambda: self.summary().get_attribute("data-live") is not None, "the numbers are there")
        return self

    def look(self) -> None:
        """Bring it in sight, as it is not drawn elsewhere: running a cell scrolls to that cell."""
        self.root.evaluate("root => root.scrollIntoView({block: 'start'})")

    def summary(self, device: int = 0) -> Locator:
        """The line of numbers beside the name of a device."""
        return self.root.locator(".gm-device").nth(device).locator(".gm-now")

    def live_bytes(self, device: int = 0) -> int:
        """As the page has it, to the byte."""
        return int(self.summary(device).get_attribute("data-live") or -1)

    def told_bytes(self, device: int = 0) -> int:
        """As a reader sees it who points at the numbers."""
        title = self.summary(device).get_attribute("title") or ""
        found = re.search(r"^live: ([\d,]+) bytes$", title, re.MULTILINE)
        assert found, title
        return int(found[1].replace(",", ""))

    def view(self, expression: str) -> Any:
        """Value of a JavaScript expression in which ``view`` and ``store`` are those of this view."""
        return self.root.evaluate(f"root => {{ const view = root.gpumem, {{store}} = view; return {expression}; }}")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def rows(self, panel: str) -> list[list[str]]:
        """Texts of the table that is shown, cell by cell; ``panel`` is the name of its tab."""
        tab = self.root.get_by_role("tabpanel", name=re.compile(panel))
        found: list[list[str]] = tab.locator("tbody").evaluate(
            "body => [...body.rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        return found

    def check_bytes(self, expected: int, device: int = 0) -> None:
        """That the page comes to say exactly this, in both places."""
        self.look()
        wait_until(
            lambda: self.live_bytes(device) == self.told_bytes(device) == expected,
            f"GPU {device} holds {expected:,} bytes; the page says {self.live_bytes(device):,}",
            timeout_s=30,
        )
