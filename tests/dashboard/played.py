"""Hours of a dashboard in seconds: a source with a clock of its own, and a page that shows it without Jupyter."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumem_magic.model.history import HistoryDelta, HistoryLevels, merged_host
from gpumem_magic.views.dashboard.dashboard import Dashboard
from gpumem_magic.views.dashboard.widget import script
from tests.analysis.build import GIB, IPYTHON, LINEAR, MIB, START_NS, Recording, notebook
from tests.analysis.histories import PERIOD_NS, all_levels, host_samples, samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.sync_api import Page

    from gpumem_magic.model.snapshot import Snapshot

SITES = 40
"""Stacks that allocate; as a program does, it goes on calling from the same places."""


class PlayedSource:
    """Implements ``views.dashboard.source.Source``. Time passes when ``play`` is called."""

    interval_s = 0.1

    def __init__(self, hours: float) -> None:
        count = round(hours * 36000)
        random = np.random.default_rng(3)
        live = (random.random(count).cumsum() % 60 * GIB).astype(np.int64)
        self._rows = samples(
            0, count, tracked_bytes=live, process_bytes=live + GIB, used_bytes=live + 2 * GIB, utilization=50.0
        )
        self._rows["tracked_max"] += random.integers(0, GIB, count)
        resident = (2 * GIB + random.integers(0, GIB, count)).astype(np.int64)
        self._host = host_samples(count, resident, resident // 2)
        self._recording = Recording(started_unix_ns=1_760_000_000_000_000_000)
        self._held: list[int] = []
        self.played = 0  # samples so far
        self._cells = self._births = 0

    def play(self, count: int) -> None:
        """Let ``count`` samples pass, with one allocation; every ten minutes a cell ends and the next one begins."""
        recording = self._recording
        self.played += count
        recording.now = START_NS + self.played * PERIOD_NS
        self._births += 1
        place = notebook(1, self._births % SITES)
        if self.played // 6000 > self._cells:
            self._cells = self.played // 6000
            with recording.cell(self._cells, f"step({self._cells})"):
                self._held.append(recording.alloc(MIB, LINEAR, place, IPYTHON))
        else:
            self._held.append(recording.alloc(MIB, LINEAR, place, IPYTHON))
        if len(self._held) > SITES:
            recording.free(self._held.pop(0))

    def wait_for_news(self, events: int, index: int, timeout_s: float) -> tuple[int, int]:
        return len(self._recording.events), self.played

    def history(self, since: int) -> HistoryDelta:
        last = slice(self.played, self.played + 1)
        return HistoryDelta(
            rows=self._rows[since : self.played],
            open=self._rows[last],
            host=self._host[since : self.played],
            host_open=self._host[last],
            next_index=self.played,
        )

    def history_levels(self) -> HistoryLevels:
        end = max(self.played, 1)
        return HistoryLevels(
            rows=all_levels(self._rows[:end]),
            host=all_levels(self._host[:end], merge=merged_host),
            next_index=end,
        )

    def snapshot(self, *, allocations: bool) -> Snapshot:
        return dataclasses.replace(self._recording.snapshot(), time_ns=self._recording.now)

    def header(self) -> Mapping[str, Any]:
        return {"badges": [("on", "info", "every call is seen")], "facts": [("NVIDIA H200", "")]}

    def is_busy(self) -> bool:
        return False

    def thread_name(self, thread: int) -> str:
        return f"thread {thread}"

    def source_line(self, filename: str, line: int) -> str:
        return f"{filename}:{line}"

    def command(self, name: str) -> None:
        raise AssertionError(f"nobody clicked {name}")

    def watch(self, *, on: bool) -> None:
        """There are no frameworks to ask."""


class PlayedDashboard:
    """A dashboard whose messages are kept, one per ``turn``, for a page to be told."""

    def __init__(self, source: PlayedSource) -> None:
        self.source = source
        self.dashboard = Dashboard(source)
        self.sent: list[tuple[dict[str, Any], Any]] = []
        self.dashboard.widget.send = lambda content, buffers=None: self.sent.append((content, buffers))  # type: ignore[method-assign]

    def turn(self, samples_passed: int) -> int:
        """Let time pass, and the dashboard tell it, tables included; returns the size of the messages as JSON."""
        self.source.play(samples_passed)
        self.dashboard._refresh_due = 0.0
        count = len(self.sent)
        self.dashboard._turn(self.dashboard._stopping)
        told = self.sent[count:]
        assert 1 <= len(told) <= 2, "one message a tick, and one for the tables"
        return sum(len(json.dumps(content, separators=(",", ":"))) for content, _ in told)

    def whole_bytes(self) -> int:
        """Size of what a page gets that comes now."""
        state, packed = self.dashboard.widget._current()
        return len(json.dumps(state)) + len(packed)

    def show(self, page: Page) -> None:
        """Draw it in a page; ``window.tell`` takes messages there."""
        widget = self.dashboard.widget
        widget.bundle()  # brings its state up to now
        page.set_content("<body style='width:1100px'></body>")
        page.evaluate(
            _SHOW,
            {
                "script": script(),
                "state": widget.state,
                "levels": base64.b64encode(widget.levels).decode(),
                "bokeh": base64.b64encode(_bokeh_script(widget)).decode(),
                "traits": {name: getattr(widget, name) for name in ("sheet", "bokeh_version", "bokeh_script")},
            },
        )
        page.locator("section.gm-dashboard .gm-picture canvas").first.wait_for()

    def tell(self, page: Page) -> None:
        """Give the page everything that was sent since."""
        page.evaluate("messages => messages.forEach(each => window.tell(each))", [content for content, _ in self.sent])
        self.sent.clear()


def _bokeh_script(widget: Any) -> bytes:
    from gpumem_magic.views.dashboard.widget import _shared_script  # noqa: PLC0415

    carrier = _shared_script()
    assert widget.bokeh_script.endswith(carrier.model_id or "")
    return bytes(carrier.script)


_SHOW = """
async ({script, state, levels, bokeh, traits}) => {
    const binary = text => new DataView(Uint8Array.from(atob(text), each => each.charCodeAt(0)).buffer);
    const values = {...traits, state, levels: binary(levels)};
    const carrier = {get: () => binary(bokeh)};
    const model = {
        get: name => values[name],
        on: (event, heard) => { if (event === 'msg:custom') window.tell = message => heard(message, []) },
        set: () => {},
        off: () => {},
        send: () => {},
        widget_manager: {get_model: async () => carrier},
    };
    const {default: factory} = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
    window.show = async element => {
        const made = factory();
        made.initialize({model});
        return made.render({model, el: element});
    };
    await window.show(document.body);
}
"""


def page_memory(page: Page) -> dict[str, float]:
    """Bytes of JavaScript's heap and counts of what else a page may collect, after its garbage was taken out."""
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")
    for _ in range(2):
        client.send("HeapProfiler.collectGarbage")
    found = {each["name"]: each["value"] for each in client.send("Performance.getMetrics")["metrics"]}
    client.detach()
    return {name: found[name] for name in ("JSHeapUsedSize", "Nodes", "Documents", "JSEventListeners")}
