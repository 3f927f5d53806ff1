"""How quick the live dashboard is, and what it costs, in a real browser: ``python -m benchmarks.dashboard``.

From the moment before an allocation, by the kernel's clock, to the start of the frame after the one in which the
picture with it was painted, by the page's; both read the clock of one machine. Needs Chromium and the package's extra
``test``. The GPUs are simulated: what is measured does not touch them, and there can be eight.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import gpumem_magic
from tests.driver_calls import DRIVER_CALLS
from tests.jupyter import App, find_chromium, launched_chromium, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.jupyter import Notebook

PRELUDE = (
    """
import json, random, threading, time
import gpumem_magic
gpumem_magic.simulate(devices={devices}, memory="64GiB")
%load_ext gpumem_magic
import numpy
from cuda.bindings import driver as cuda
"""
    + DRIVER_CALLS
    + """
for ordinal in reversed(range({devices})):
    use_device(ordinal)
held, events = [], []

def event():
    "Allocate on GPU 0, and note when, and what is live afterwards."
    began = time.time()
    held.append(alloc(1 << 20))
    events.append((began * 1e3, len(held) << 20))

def python_loop(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(n * n for n in range(2000))

matrix = numpy.random.default_rng(0).random((256, 256))

def numpy_loop(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        matrix @ matrix

def sporadic(wait, count):
    "Events at moments that nobody can foresee, so that they fall anywhere between two updates."
    events.clear()
    use_device(0)
    for _ in range(count):
        wait(random.uniform(0.2, 0.6))
        event()

def steady(seconds):
    "Ten events a second, nothing else; returns the processor time of the whole process per second."
    use_device(0)
    began, cpu = time.monotonic(), time.process_time()
    for n in range(round(seconds * 10)):
        event()
        time.sleep(max(began + (n + 1) / 10 - time.monotonic(), 0))
    return (time.process_time() - cpu) / (time.monotonic() - began)
"""
)
MANY = """
def many(count):
    use_device(0)
    for _ in range(count // 2):
        check(cuda.cuMemFreeAsync(check(cuda.cuMemAllocAsync(1024, 0)), 0))

many({events})
"""
HISTORY_PLACES = {"live": 6, "cached": 7}
WATCH = """
root => {
    const {store} = root.gpumem;
    window.drawn = [];
    store.onDrawn = () => {
        const row = store.histories.get(0).latest;
        const bytes = row[LIVE] + row[CACHED];
        // Bokeh paints in the next frame; the one after it begins when that has been shown.
        requestAnimationFrame(() => requestAnimationFrame(
            () => window.drawn.push([performance.timeOrigin + performance.now(), bytes])));
    };
}
""".replace("LIVE", str(HISTORY_PLACES["live"])).replace("CACHED", str(HISTORY_PLACES["cached"]))
BUDGET_MS, BUDGET_SHARE = 150, 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: ``count`` events for each latency, ``rounds`` of ``seconds`` for the cost."""

    count: int
    seconds: float
    rounds: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What updates cost while ten events a second come. Shares are of one core, less those without a dashboard."""

    updates: float  # a second
    drawings: float  # a second
    update_bytes: float
    update_frames: float  # of the WebSocket, per update
    kernel: float
    page: float


class Bench:
    """One notebook with its dashboard open, and what goes over its WebSocket."""

    def __init__(self, app: App, *, devices: int = 1, events: int = 0) -> None:
        self.notebook: Notebook = app.open()
        self.page = self.notebook.page
        self.root: Locator = self.page.locator("section.gm-dashboard")
        self.notebook.run(PRELUDE.format(devices=devices))
        if events:
            self.notebook.run(MANY.format(events=events), timeout_s=300)
        self.opened_s = self.show()

    def show(self) -> float:
        """Open the dashboard; returns the seconds until it is drawn."""
        began = time.monotonic()
        self.notebook.run("%gpumem")
        self.root.locator(".gm-picture canvas").first.wait_for()
        taken = time.monotonic() - began
        self.look()
        self.root.evaluate(WATCH)
        return taken

    def look(self) -> None:
        """Bring it in sight: elsewhere it is not drawn."""
        self.root.evaluate("root => root.scrollIntoView({block: 'start'})")

    def latency_ms(self, wait: str, count: int, *, threaded: bool = False) -> list[float]:
        """Event to pixel, ``count`` times. ``threaded``: no cell runs meanwhile."""
        call = f"sporadic({wait}, {count})"
        if threaded:
            call = f"thread = threading.Thread(target=sporadic, args=({wait}, {count}))\nthread.start()"
        cell = self.notebook.start(call)
        self.page.evaluate("() => { window.drawn = [] }")
        self.look()
        if threaded:
            self.page.wait_for_timeout(count * 600 + 1000)
        cell.wait(count + 60)
        self.page.wait_for_timeout(1000)
        drawn: list[tuple[float, int]] = self.page.evaluate("window.drawn")
        events: list[tuple[float, int]] = self.notebook.evaluate("events")
        return [next(at for at, seen in drawn if seen >= live) - began for began, live in events]

    def cost(self, seconds: float, rounds: int) -> Cost:
        """While ten events a second come: with the dashboard, and the same cell without it, in alternating rounds."""
        found: list[Cost] = []
        for _ in range(rounds):
            with_it, counted = self._steady(seconds), self._counted()
            self.notebook.run("%gpumem close")
            without = self._steady(seconds)
            updates = max(counted["updates"], 1)
            found.append(
                Cost(
                    updates=counted["updates"] / seconds,
                    drawings=counted["drawings"] / seconds,
                    update_bytes=counted["bytes"] / updates,
                    update_frames=counted["frames"] / updates,
                    kernel=with_it[0] - without[0],
                    page=with_it[1] - without[1],
                )
            )
            self.show()
        return _medians(found)

    def _steady(self, seconds: float) -> tuple[float, float]:
        """Shares of a core that the kernel and the page's main thread take while ten events a second come."""
        self.notebook.run("steady(1)")
        client = self.page.context.new_cdp_session(self.page)
        client.send("Performance.enable")
        cell = self.notebook.start(f"share = steady({seconds})")
        if self.root.count():
            self.look()
            self.root.evaluate("root => { window.drawn = []; window.sizes = []; window.began = root.gpumem.store.seq }")
        began, worked = time.monotonic(), _task_seconds(client)
        cell.wait(seconds + 30)
        page = (_task_seconds(client) - worked) / (time.monotonic() - began)
        client.detach()
        self._last = self.page.evaluate(
            """() => {
                const store = document.querySelector('section.gm-dashboard')?.gpumem.store;
                return [store ? store.seq - window.began : 0, window.drawn.length, window.sizes];
            }"""
        )
        return float(self.notebook.evaluate("share")), page

    def _counted(self) -> dict[str, float]:
        """What the last steady cell brought."""
        updates, drawings, sizes = self._last
        return {"updates": updates, "drawings": drawings, "bytes": sum(sizes), "frames": len(sizes)}


def _medians(costs: list[Cost]) -> Cost:
    names = [field.name for field in dataclasses.fields(Cost)]
    return Cost(**{name: statistics.median(getattr(cost, name) for cost in costs) for name in names})


def _task_seconds(client: Any) -> float:
    metrics = client.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


COUNT_FRAMES = """
(() => {
    // Every frame of the kernel's WebSocket that belongs to our widget is noted by its size.
    window.sizes = [];
    const Original = window.WebSocket;
    window.WebSocket = class extends Original {
        constructor(...args) {
            super(...args);
            this.addEventListener('message', async ({data}) => {
                const bytes = typeof data === 'string' ? new TextEncoder().encode(data)
                    : new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data);
                const text = new TextDecoder().decode(bytes.subarray(0, 2000));
                if (text.includes('comm_msg') && text.includes('"update"')) window.sizes.push(bytes.length);
            });
        }
    };
})();
"""


def quantiles(values: list[float]) -> str:
    """``p50 / p95``."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):6.0f} {ordered[min(round(0.95 * len(ordered)), len(ordered) - 1)]:6.0f}"


def measure(app: App, effort: Effort, *, devices: int = 1, events: int = 0) -> None:
    """Print the lines of one scenario."""
    bench = Bench(app, devices=devices, events=events)
    name = f"{devices} GPU{'s' * (devices > 1)}{f', {events:,} events' if events else ''}"
    print(f"\n{name}: opened in {bench.opened_s:.2f} s")
    print(f"  {'event to pixel, ms':<24} {'p50':>6} {'p95':>6} {'most':>6} {'events':>7}")
    for label, wait, threaded in (
        ("idle", "time.sleep", True),
        ("busy Python loop", "python_loop", False),
        ("NumPy loop", "numpy_loop", False),
    ):
        values = bench.latency_ms(wait, effort.count, threaded=threaded)
        print(f"  {label:<24} {quantiles(values)} {max(values):6.0f} {len(values):7}", flush=True)
    cost = bench.cost(effort.seconds, effort.rounds)
    print(
        f"  at 10 events a second: {cost.updates:.1f} updates/s, {cost.drawings:.1f} drawings/s, "
        f"{cost.update_bytes:,.0f} bytes and {cost.update_frames:.2f} frames an update, "
        f"kernel {cost.kernel:.1%} of a core, page {cost.page:.1%}",
        flush=True,
    )


def print_environment(app: App) -> None:
    """Versions, machine and command, as they belong beside any number."""
    packages = ("gpumem_magic", "bokeh", "anywidget", "ipywidgets", "ipykernel", "jupyterlab", "notebook")
    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages if _is_installed(package)]
    print(f"command: {' '.join(sys.orig_argv)}")
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}; simulated GPUs; {app.app}")
    print(f"browser: {app.page.evaluate('navigator.userAgent')}")
    print(f"python:  {platform.python_version()}, {', '.join(versions)}")
    print(
        f"budgets: {BUDGET_MS} ms p95 from event to pixel while a cell runs, "
        f"{BUDGET_SHARE:.0%} of a core for the kernel"
    )


def _is_installed(package: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(package))
    return False


def main() -> None:
    """Run every scenario."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few events: to see that it works, not to quote")
    parser.add_argument("--app", choices=("lab", "notebook"), default="lab")
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 4, 8], help="simulated GPUs, 1 to 8 (1 4 8)")
    parser.add_argument("--events", type=int, default=1_000_000, help="in the long session; 0 for none (1000000)")
    arguments = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("There is no Chromium here; name one in GPUMEM_CHROMIUM.")
    effort = Effort(count=5, seconds=3.0, rounds=1) if arguments.quick else Effort(count=40, seconds=8.0, rounds=3)
    package = str(pathlib.Path(gpumem_magic.__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": package, "GPUMEM_HOME": str(pathlib.Path(folder, "recordings"))}
        jupyter = pathlib.Path(folder, "jupyter")
        with running_server(jupyter, environment) as server, launched_chromium(chromium) as browser:
            app = App(browser, server, arguments.app)
            app.page.add_init_script(COUNT_FRAMES)
            print_environment(app)
            for devices in arguments.devices:
                measure(app, effort, devices=devices)
            if arguments.events:
                measure(app, effort, events=arguments.events)
            if app.problems:
                print("\nThe page complained:", json.dumps(app.problems[:5], indent=2))
            app.close()


if __name__ == "__main__":
    main()
