"""Makes the pictures of the dashboard in ``docs/images``: ``python -m tests.dashboard.pictures``.

A made-up training run on simulated GPUs in a real JupyterLab, photographed in light, dark, narrow and with 8 GPUs.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

from tests.dashboard.live import Live, prelude
from tests.jupyter import App, Server, find_chromium, launched_chromium, running_server

IMAGES = pathlib.Path(__file__).parents[2] / "docs" / "images"
DASHBOARD = "section.gm-dashboard"
DARK = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"

WITHOUT_FILES = "window.jupyterapp.commands.execute('application:toggle-left-area')"

WORLD = """
from gpumem_magic import simulator
simulator.schedule_other_process(0, 4711, [(0, 3 << 30), (9, 4 << 30), (15, 3 << 30)])

class Model:
    def __init__(self, layers):
        self.weights = [alloc(160 << 20) for _ in range(layers)]

def load_batch():
    return alloc(384 << 20)

def forward(model, batch):
    made = []
    for _ in model.weights:
        made.append(alloc(96 << 20))
        time.sleep(0.008)
    return made

def backward(activations):
    for pointer in reversed(activations):
        time.sleep(0.005)
        free(pointer)

def train_step(model):
    batch = load_batch()
    activations = forward(model, batch)
    losses.append(alloc(48 << 20))
    backward(activations)
    free(batch)

losses = []
"""
STORY = (
    "model = Model(layers=24)",
    "for step in range(14):\n    train_step(model)\n    time.sleep(0.05)",
    "validation = [alloc(512 << 20) for _ in range(3)]\ntime.sleep(1)\nfree(*validation)",
    "try:\n    free(alloc(3 << 30))\n    huge = alloc(60 << 30)\nexcept AssertionError as error:\n    print(error)",
    "for step in range(10):\n    train_step(model)\n    time.sleep(0.05)",
)
EIGHT = (
    "for device in (0, 1, 2, 3, 6):\n    use_device(device)\n    parts = [alloc(900 << 20) for _ in range(device + 1)]",
    "use_device(1)\nfor size in range(1, 30):\n    free(alloc(size << 26))\n    time.sleep(0.05)",
)


def photograph(
    server: Server, browser: object, name: str, *, devices: int = 2, width: int = 1300, dark: bool = False
) -> None:
    """Run the story, and keep what the dashboard shows at its end."""
    app = App(browser, server, "lab", width=width, height=1500)
    try:
        notebook = app.open(cells=())
        app.page.evaluate(WITHOUT_FILES)
        if dark:
            app.page.evaluate(DARK)
        for cell in (*prelude(devices), WORLD):
            notebook.run(cell)
        notebook.run("%gpumem")
        live = Live(notebook).wait()
        for cell in STORY if devices <= 2 else (*STORY[:2], *EIGHT):
            notebook.run(cell)
        app.page.wait_for_timeout(1500)
        live.look()
        app.page.locator(f"{DASHBOARD} .gm-unfold[aria-expanded]").first.click()
        app.page.mouse.move(5, 5)
        app.page.wait_for_timeout(700)
        app.page.locator(DASHBOARD).first.screenshot(path=IMAGES / f"{name}.png")
    finally:
        app.close()


def main() -> None:
    """Make them all."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("There is no Chromium here. Name one in GPUMEM_CHROMIUM.")
    with tempfile.TemporaryDirectory() as folder, launched_chromium(chromium) as browser:
        environment = {**os.environ, "GPUMEM_HOME": f"{folder}/recordings"}
        with running_server(pathlib.Path(folder, "server"), environment) as server:
            photograph(server, browser, "dashboard")
            photograph(server, browser, "dashboard-narrow", devices=1, width=640)
            photograph(server, browser, "dashboard-8-gpus", devices=8)
            photograph(server, browser, "dashboard-dark", dark=True)  # the server remembers the theme


if __name__ == "__main__":
    main()
