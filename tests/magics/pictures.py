"""Makes the picture of the out-of-memory card in ``docs/images``: ``python -m tests.magics.pictures``.

A made-up training run on a simulated GPU in a real JupyterLab, whose last step asks for too much.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile

from tests.jupyter import App, CellFailedError, find_chromium, launched_chromium, running_server

IMAGE = pathlib.Path(__file__).parents[2] / "docs" / "images" / "out-of-memory.png"
WORLD = """
import numpy as np
from numba import cuda


def array(mib):
    return cuda.device_array(mib << 20, np.uint8)


class Model:
    def __init__(self):
        self.layers = [array(320) for _ in range(24)]


def attention(batch):
    scores = array(6144)
    return array(9216)


def train_step():
    batch = array(2048)
    losses.append(array(512))
    return attention(batch)


model, losses = Model(), []
"""
STORY = ("%load_ext gpumem_magic", "%gpumem simulate --memory 24GiB", WORLD, "array(1024)")


def main() -> int:
    """Write the picture. Needs Chromium."""
    chromium = find_chromium()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GPUMEM_HOME": f"{folder}/recordings"}
        with (
            running_server(pathlib.Path(folder, "jupyter"), environment) as server,
            launched_chromium(chromium) as browser,
        ):
            app = App(browser, server, "lab", width=1180)
            notebook = app.open()
            for cell in STORY:
                notebook.run(cell)
            with contextlib.suppress(CellFailedError):
                notebook.run("train_step()")
            notebook.page.wait_for_selector("button.jupyter-button")
            card = notebook.page.locator("section.gpumem", has_text="Out of memory in").last
            card.scroll_into_view_if_needed()
            card.screenshot(path=IMAGE)
            app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
