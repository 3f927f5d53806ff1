"""The dashboard's script by itself, in a page without Jupyter."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gpumem_magic.views.dashboard.widget import script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, Page


@contextlib.contextmanager
def page_with_script(browser: Browser, names: Sequence[str]) -> Iterator[Page]:
    """A page in which ``ours`` has those of the script's functions and classes."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    ours, _, _ = script().rpartition("export default")
    page.evaluate("text => { window.ours = new Function(text)() }", f"{ours}\nreturn {{{', '.join(names)}}};")
    yield page
    context.close()
