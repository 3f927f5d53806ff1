"""The dashboard without a page: what it tells, in which order, and when it stops."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpumem_magic.analysis.bands import BAND_NAMES, bands
from gpumem_magic.model.history import UNKNOWN, HistoryDelta, HistoryLevels
from gpumem_magic.model.snapshot import Mark
from gpumem_magic.views.dashboard import dashboard as module
from gpumem_magic.views.dashboard import viewers
from gpumem_magic.views.dashboard.clock import Clock
from gpumem_magic.views.dashboard.dashboard import Dashboard
from gpumem_magic.views.dashboard.memory_rows import HOST_DEVICE
from gpumem_magic.views.dashboard.panel import Column, Panel, Row, all_panels
from gpumem_magic.views.dashboard.tables import Keyed, PanelRows
from tests.analysis.build import GIB, MIB, SECOND, START_NS, Recording
from tests.analysis.histories import PERIOD_NS, host_samples, samples, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gpumem_magic.model.snapshot import Snapshot

COLUMNS = 13  # device, level, index, begin, end, five bands, low, high, utilization


class PlayedSource:
    """A recording that goes on when it is told to."""

    interval_s = 0.1

    def __init__(self, snapshot: Snapshot, rows: np.ndarray, host: np.ndarray) -> None:
        self.taken = snapshot
        self.rows, self.host = rows, host
        self.position = 0  # samples taken so far
        self.events = 1
        self.busy = False
        self.watched: list[bool] = []
        self.commands: list[str] = []
        self.snapshots = 0

    def wait_for_news(self, events: int, index: int, timeout_s: float) -> tuple[int, int]:
        deadline = time.monotonic() + timeout_s
        while (self.events, self.position) == (events, index) and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.events, self.position

    def history(self, since: int) -> HistoryDelta:
        def between(table: np.ndarray, low: int, high: int) -> np.ndarray:
            return table[(table["index"] >= low) & (table["index"] < high)]

        return HistoryDelta(
            rows=between(self.rows, since, self.position),
            open=between(self.rows, self.position, self.position + 1),
            host=between(self.host, since, self.position),
            host_open=between(self.host, self.position, self.position + 1),
            next_index=self.position,
        )

    def history_levels(self) -> HistoryLevels:
        delta = self.history(0)
        return HistoryLevels(rows=delta.rows, host=delta.host, next_index=self.position)

    def snapshot(self, *, allocations: bool) -> Snapshot:
        self.snapshots += 1
        return self.taken if allocations else dataclasses.replace(self.taken, allocations=self.taken.allocations[:0])

    def header(self) -> Mapping[str, Any]:
        return {"badges": [["on", "info", ""]], "facts": [[f"{self.events} events", ""]]}

    def is_busy(self) -> bool:
        return self.busy

    def thread_name(self, thread: int) -> str:
        return f"thread {thread}"

    def source_line(self, filename: str, line: int) -> str:
        return f"source of {filename.rpartition('/')[2]}:{line}"

    def command(self, name: str) -> None:
        self.commands.append(name)

    def watch(self, *, on: bool) -> None:
        self.watched.append(on)


@dataclasses.dataclass
class Opened:
    """A dashboard whose messages are kept instead of sent."""

    dashboard: Dashboard
    source: PlayedSource
    sent: list[dict[str, Any]]

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.dashboard.problem or "it did not come"
            time.sleep(0.005)

    @property
    def news(self) -> list[dict[str, Any]]:
        """Messages that are about samples; others tell of tables."""
        return [message for message in self.sent if "open" in message]

    def told(self, name: str) -> list[Any]:
        return [message[name] for message in self.sent if name in message]

    def hear(self, **content: Any) -> None:
        self.dashboard.widget._hear(self.dashboard.widget, content, [])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Opened]]:
    """Opens dashboards on a source; closes them."""
    monkeypatch.setattr(module, "REFRESH_S", 0.02)
    opened: list[Opened] = []

    def start(source: PlayedSource, **options: Any) -> Opened:
        made = Opened(Dashboard(source, **options), source, [])
        made.dashboard.widget.send = lambda content, buffers=None: made.sent.append(
            json.loads(json.dumps(content)) | {"buffers": buffers}
        )
        opened.append(made)
        made.dashboard.start()
        return made

    yield start
    for each in opened:
        each.dashboard.close()
        assert not each.dashboard.is_alive
        assert each.dashboard.problem == ""


def played(count: int = 60, devices: int = 1, **process: Any) -> PlayedSource:
    """Devices that hold 100 MiB more with each sample."""
    recording = Recording(*[("GPU", "16GiB")] * devices, started_unix_ns=1_760_000_000 * SECOND, **process)
    with recording.cell(1, "train()"):
        recording.alloc(3 * MIB, ("/home/ada/train.py", "step", 12))
    held = (np.arange(count) + 1) * 100 * MIB
    rows = np.concatenate(
        [
            samples(device, count, tracked_bytes=held, used_bytes=held + GIB, process_bytes=held + 60 * MIB)
            for device in range(devices)
        ]
    )
    rows = rows[np.argsort(rows["index"], kind="stable")]
    source = PlayedSource(recording.snapshot(), rows, host_samples(count, GIB, GIB // 2))
    source.position = 10
    return source


def test_all_that_is_known_comes_with_the_state(play: Callable[..., Opened]) -> None:
    opened = play(played(devices=2))
    state, levels = opened.dashboard.widget._whole()
    table = np.frombuffer(gzip.decompress(levels), "<f8").reshape(-1, COLUMNS)
    assert sorted(set(table[:, 0])) == [0, 1, HOST_DEVICE]
    first = table[table[:, 0] == 1][0]
    # The first sample: 60 MiB of this process beside its allocations, the rest of the device is of others.
    expected = [
        1,
        0,
        0,
        Clock(opened.source.taken.process)(START_NS),
        Clock(opened.source.taken.process)(START_NS + PERIOD_NS),
    ]
    assert first.tolist() == [*expected, GIB - 60 * MIB, 60 * MIB, 0, 100 * MIB, 0, 100 * MIB, 100 * MIB, -1]
    assert [panel["name"] for panel in state["panels"]] == [panel.name for panel in all_panels()]
    assert state["config"]["devices"][1] == {"ordinal": 1, "name": "GPU", "total": 16 * GIB}
    assert state["document"]["roots"].keys() == {"gpu0", "gpu1", "host"}
    json.dumps(state)


def test_each_sample_is_told_once_and_in_order(play: Callable[..., Opened]) -> None:
    opened = play(played())
    for position in range(11, 40):
        opened.source.position = position
        opened.source.events += 1
        time.sleep(0.01)
    opened.until(lambda: opened.news and opened.news[-1]["open"][0][1] == 39)
    indices = [row[1] for rows in opened.told("rows") for row in rows if row[0] == 0]
    assert indices == list(range(10, 39))
    assert [message["seq"] for message in opened.sent] == list(range(1, len(opened.sent) + 1))


def test_an_event_does_not_wait_for_the_next_sample(
    play: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 60.0)
    opened = play(played())
    opened.until(lambda: len(opened.news) > 0)
    before = len(opened.news)
    opened.source.events += 1
    opened.until(lambda: len(opened.news) > before)
    assert opened.news[before]["rows"] == []
    assert opened.news[before]["open"][0][:2] == [0, 10]


def test_an_update_is_as_large_after_a_long_session_as_at_its_begin(play: Callable[..., Opened]) -> None:
    opened = play(played(5000))
    opened.until(lambda: len(opened.sent) > 2)
    early = len(json.dumps(opened.news[-1]["rows"] + opened.news[-1]["open"]))
    opened.source.position = 4990
    opened.source.events += 1
    opened.until(lambda: opened.news[-1]["open"][0][1] == 4990)
    opened.source.position += 1
    opened.source.events += 1
    opened.until(lambda: opened.news[-1]["open"][0][1] == 4991)
    late = len(json.dumps(opened.news[-1]["rows"][-2:] + opened.news[-1]["open"]))
    assert late < early * 1.2 + 250  # one row more than nothing, and longer numbers


def test_a_page_that_missed_something_gets_everything(play: Callable[..., Opened]) -> None:
    opened = play(played())
    opened.until(lambda: len(opened.sent) > 1)
    opened.hear(kind="resync", seq=0)
    full = next(message for message in opened.sent if message["kind"] == "full")
    at = opened.sent.index(full)
    assert full["state"]["seq"] == opened.sent[at - 1]["seq"]
    assert len(full["buffers"]) == 1
    opened.until(lambda: len(opened.sent) > at + 1)
    assert opened.sent[at + 1]["seq"] == full["state"]["seq"] + 1


def test_the_tables_change_when_the_recording_does(play: Callable[..., Opened]) -> None:
    source = played()
    opened = play(source)
    opened.until(lambda: source.snapshots > 2 or len(opened.sent) > 3)
    recording = Recording(("GPU", "16GiB"), started_unix_ns=1_760_000_000 * SECOND)
    with recording.cell(1, "train()"):
        recording.alloc(3 * MIB, ("/home/ada/train.py", "step", 12))
        recording.alloc(5 * MIB, ("/home/ada/train.py", "step", 12))
    with recording.cell(2, "boom()", error="OutOfMemoryError"):
        recording.fail(99 * GIB, ("/home/ada/train.py", "step", 12))
    source.taken = recording.snapshot()
    source.events += 1
    opened.until(lambda: any("spans" in message for message in opened.sent))
    message = next(message for message in opened.sent if "spans" in message)
    assert [(span["label"], span["end"] is None) for span in message["spans"]] == [("[1]", False), ("[2]", False)]
    assert [mark["text"] for mark in message["marks"]] == ["cuMemAlloc of 99.0 GiB on GPU 0: out of memory"]
    changed = message["panels"]["allocations"]["set"]
    assert sorted(row["live"] for row in changed.values()) == [0, 8 * MIB]
    (detail,) = {tuple(map(tuple, lines)) for lines in message["panels"]["allocations"]["details"].values()}
    assert detail == (("train.py:12 step", "source of train.py:12"),)
    cells = message["panels"]["cells"]["set"]
    assert {row["cell"]: row["held"] for row in cells.values()} == {"In [1]": 8 * MIB, "In [2]": 0}
    assert message["panels"]["events"]["order"]


def test_one_cell_alone(play: Callable[..., Opened]) -> None:
    source = played()
    recording = Recording(("GPU", "16GiB"), started_unix_ns=1_760_000_000 * SECOND)
    with recording.cell(1, "before"):
        recording.alloc(100 * MIB, ("/a.py", "before", 1))
    recording.wait(0.5)
    with recording.cell(2, "this one") as mine:
        recording.alloc(3 * MIB, ("/a.py", "inside", 2))
        with recording.cell(None, label="block"):
            recording.alloc(4 * MIB, ("/a.py", "nested", 3))
    source.taken = recording.snapshot()
    opened = play(source, cell=mine, panels=("allocations",), window_s=0)
    state, levels = opened.dashboard.widget._whole()
    (panel,) = state["panels"]
    assert sorted(row["live"] for row in panel["rows"].values()) == [3 * MIB, 4 * MIB]
    assert [span["label"] for span in state["spans"]] == ["[2]"]
    table = np.frombuffer(gzip.decompress(levels), "<f8").reshape(-1, COLUMNS)
    assert table[:, 4].min() > state["config"]["since_ms"]  # the end of the first row
    assert len(table) < 2 * source.position
    assert state["config"]["commands"] == []


def test_nobody_looks_so_it_stops_and_wakes_when_somebody_does(
    play: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewers, "UNSEEN_S", 0.6)
    opened = play(played())
    opened.until(lambda: not opened.dashboard.is_alive)
    assert opened.source.watched == [True, False]
    opened.sent.clear()
    opened.hear(kind="pulse", view="a")
    assert opened.dashboard.is_alive
    assert opened.sent[0]["kind"] == "full"
    opened.source.busy = True  # the page cannot be heard: it may be there
    time.sleep(1.2)
    assert opened.dashboard.is_alive
    opened.source.busy = False
    opened.until(lambda: not opened.dashboard.is_alive)


def test_the_last_page_says_goodbye(play: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = play(played())
    opened.hear(kind="hello", view="a")
    opened.hear(kind="hello", view="b")
    opened.hear(kind="bye", view="a")
    time.sleep(0.3)
    assert opened.dashboard._is_watched()
    opened.hear(kind="bye", view="b")
    opened.until(lambda: not opened.dashboard.is_alive, seconds=4)


def test_a_hello_that_comes_after_its_goodbye_is_none(play: Callable[..., Opened]) -> None:
    opened = play(played())
    opened.hear(kind="bye", view="a")
    opened.hear(kind="hello", view="a")
    opened.hear(kind="pulse", view="a")
    opened.until(lambda: not opened.dashboard.is_alive)
    opened.hear(kind="hello", view="b")
    assert opened.dashboard.is_alive


def test_commands_reach_who_obeys_them(play: Callable[..., Opened]) -> None:
    closed = threading.Event()
    opened = play(played(), on_close=closed.set)
    opened.hear(kind="command", name="mark")
    assert opened.source.commands == ["mark"]
    opened.hear(kind="command", name="clear-cells")
    opened.until(lambda: any(message.get("panels", {}).get("cells", {}).get("order") == [] for message in opened.sent))
    opened.hear(kind="command", name="close")
    assert closed.is_set()
    assert opened.dashboard.is_closed
    assert opened.told("ended")
    assert not opened.dashboard.is_alive


def test_a_mark_is_shown_though_no_driver_call_came(play: Callable[..., Opened]) -> None:
    source = played()
    opened = play(source)
    opened.until(lambda: source.snapshots > 1)
    marked = dataclasses.replace(source.taken, marks=(Mark(time_ns=source.taken.time_ns, name="here"),))
    source.taken = marked
    opened.hear(kind="command", name="mark")
    opened.until(lambda: any(mark["text"] == "here" for told in opened.told("marks") for mark in told))


def test_settings_from_the_kernel(play: Callable[..., Opened]) -> None:
    opened = play(played())
    opened.dashboard.set(window_ms=5000.0)
    opened.dashboard.set(paused=True)
    assert opened.told("config")[-1] == {"settings": {"number": 2, "window_ms": 5000.0, "paused": True}}


@pytest.mark.parametrize(
    "content", [None, "hello", 7, {}, {"kind": 3}, {"kind": "hello", "view": {}}, {"kind": "command"}]
)
def test_nonsense_from_a_page_is_passed_over(play: Callable[..., Opened], content: Any) -> None:
    opened = play(played())
    opened.dashboard.widget._hear(opened.dashboard.widget, content, [])
    assert opened.dashboard.is_alive
    assert opened.dashboard.problem == ""


def test_tracking_was_turned_off(play: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = play(played())

    def refuse(**_: Any) -> Snapshot:
        raise RuntimeError("Nothing is being recorded.")

    monkeypatch.setattr(opened.source, "snapshot", refuse)
    opened.source.events += 1
    before = len(opened.sent)
    opened.until(lambda: len(opened.sent) > before + 2)
    assert opened.dashboard.problem == ""


def test_another_recording_is_shown_from_its_begin(play: Callable[..., Opened]) -> None:
    source = played()
    source.taken = dataclasses.replace(source.taken, history=source.rows)
    opened = play(source)
    opened.until(lambda: len(opened.sent) > 1)
    opened.dashboard._obey("clear-cells")
    second = Recording(("GPU", "16GiB"), started_unix_ns=1_760_000_000 * SECOND)
    with second.cell(7, "again()"):
        second.alloc(5 * MIB, ("/home/ada/train.py", "again", 1))
    rows = source.rows.copy()
    rows["begin_ns"] += 100 * SECOND
    rows["end_ns"] += 100 * SECOND
    source.rows, source.position, source.events = rows, 2, 1
    source.taken = dataclasses.replace(second.snapshot(), history=rows)
    opened.until(lambda: any(message["kind"] == "full" for message in opened.sent))
    at, state = next((at, message["state"]) for at, message in enumerate(opened.sent) if message["kind"] == "full")
    assert [row["live"] for row in state["panels"][0]["rows"].values()] == [5 * MIB]
    assert [span["label"] for span in state["spans"]] == ["[7]"]
    assert [row["cell"] for row in state["panels"][1]["rows"].values()] == ["In [7]"]
    source.position = 4
    opened.until(lambda: opened.news[-1]["open"][0][1] == 4)
    assert [row[1] for message in opened.sent[at + 1 :] for row in message["rows"] if row[0] == 0] == [2, 3]


def test_the_first_sample_makes_no_other_recording(play: Callable[..., Opened]) -> None:
    source = played()
    opened = play(source)
    source.taken = dataclasses.replace(source.taken, history=source.rows)
    for _ in range(3):
        source.events += 1
        before = source.snapshots
        opened.until(lambda before=before: source.snapshots > before)
    assert {message["kind"] for message in opened.sent} == {"update"}


def test_a_birth_is_told_as_a_time_so_that_ages_pass_in_the_page(play: Callable[..., Opened]) -> None:
    source = played()
    opened = play(source)
    (row,) = opened.dashboard.widget._whole()[0]["panels"][0]["rows"].values()
    (birth,) = source.taken.allocations["birth_ns"].tolist()
    assert row["age"] == Clock(source.taken.process)(birth)


@pytest.mark.parametrize("begin", [float("-inf"), float("nan"), -1, True, 10**400])
def test_a_stretch_that_cannot_be_is_passed_over(play: Callable[..., Opened], begin: float) -> None:
    opened = play(played())
    opened.hear(kind="detail", begin=begin, end=float("inf"))
    assert not [message for message in opened.sent if message["kind"] == "detail"]


def test_a_closed_dashboard_leaves_no_widget_behind(play: Callable[..., Opened]) -> None:
    import ipywidgets  # noqa: PLC0415  (what it knows is private, and nothing else here needs it)

    known = ipywidgets.widgets.widget._instances
    play(played()).dashboard.close()  # BokehJS has a widget too, which stays
    before = set(known)
    opened = play(played())
    assert set(known) != before
    opened.dashboard.close()
    assert set(known) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_no_dashboard_and_waits_for_none(play: Callable[..., Opened]) -> None:
    opened = play(played())
    with opened.dashboard._lock:  # in the child nobody would ever release it, were it another thread's
        child = os.fork()
        if child == 0:
            opened.dashboard._lock = None  # whoever touches it fails
            try:
                opened.dashboard.close()
                module._stop_all()
                os._exit(0 if opened.dashboard.is_closed else 3)
            except BaseException:  # noqa: BLE001  (a child of a test must not go on)
                os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not opened.dashboard.is_closed


def test_the_bands_of_several_devices_at_once_are_those_of_each() -> None:
    snapshot = watched(2)
    assert snapshot.history is not None
    rows = snapshot.history[snapshot.history["level"] == 0]
    together = bands(rows, base_bytes=np.where(rows["device"] == 0, 60 * MIB, 7 * MIB))
    for device, base in ((0, 60 * MIB), (1, 7 * MIB)):
        mine = rows["device"] == device
        alone = bands(rows[mine], base_bytes=base)
        for name in BAND_NAMES:
            assert (getattr(together, name)[mine] == getattr(alone, name)).all(), name


def test_an_answer_that_did_not_come_frees_nothing(play: Callable[..., Opened]) -> None:
    source = played()
    for name in ("process_bytes", "used_bytes"):
        source.rows[name][[12, 14]] = UNKNOWN
    opened = play(source)
    for position in range(11, 18):
        source.position = position
        source.events += 1
        opened.until(lambda: opened.news and opened.news[-1]["open"][0][1] == source.position)
    _, levels = opened.dashboard.widget._whole()
    table = np.frombuffer(gzip.decompress(levels), "<f8").reshape(-1, COLUMNS)
    kept = {int(row[2]): row[5:12].tolist() for row in table if row[0] == 0}
    told = {row[1]: row[4:11] for rows in opened.told("rows") for row in rows if row[0] == 0}
    assert told == {index: kept[index] for index in range(10, 17)}
    assert opened.news[-1]["open"][0][4:7] == [GIB - 60 * MIB, 60 * MIB, 0]


def test_the_clock_is_that_of_the_kernels_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        process = Recording(started_unix_ns=1_760_000_000 * SECOND).process
        assert Clock(process)(START_NS + SECOND // 4) == (1_760_000_000 + 9 * 3600) * 1e3 + 250
        assert Clock(process).columns(np.array([START_NS])).tolist() == [(1_760_000_000 + 9 * 3600) * 1e3]
    finally:
        monkeypatch.undo()
        time.tzset()


# ---- rows as they are told ----

NUMBERS = Panel(
    name="numbers",
    title="Numbers",
    hint="",
    empty="",
    columns=(Column(key="live", title="Live", kind="bytes"), Column(key="spark", title="", kind="spark", of="live")),
    make=lambda: lambda _: [],
)


def test_only_what_changed_is_told() -> None:
    table = PanelRows(NUMBERS)
    first = table.update([Row(key="a", cells={"live": 1}, detail=[("f", "x")]), Row(key="b", cells={"live": 2})])
    assert first == {"set": {"a": {"live": 1}, "b": {"live": 2}}, "details": {"a": [("f", "x")]}, "order": ["a", "b"]}
    assert table.update([Row(key="a", cells={"live": 1}), Row(key="b", cells={"live": 3})]) == {
        "set": {"b": {"live": 3}}
    }
    assert table.update([Row(key="b", cells={"live": 3})]) == {"order": ["b"]}
    assert table.whole()["sparks"] == {"b": [2, 3, 3]}
    assert table.whole()["details"] == {}


def test_a_table_without_trends_says_nothing_when_nothing_changed() -> None:
    table = PanelRows(dataclasses.replace(NUMBERS, columns=NUMBERS.columns[:1]))
    rows = [Row(key="a", cells={"live": 1})]
    assert table.update(rows) is not None
    assert table.update(rows) is None


def test_of_a_keyed_list_the_latest_are_kept() -> None:
    kept = Keyed(2)
    assert kept.update([{"key": key, "end": None} for key in (1, 2, 3)]) == [
        {"key": 2, "end": None},
        {"key": 3, "end": None},
    ]
    assert kept.update([{"key": 2, "end": None}, {"key": 3, "end": 5}]) == [{"key": 3, "end": 5}]


def test_each_panel_has_what_the_page_needs() -> None:
    names = [panel.name for panel in all_panels()]
    assert names == ["allocations", "cells", "events"]
    for panel in all_panels():
        definition = json.loads(json.dumps(panel.definition()))
        keys = {column["key"] for column in definition["columns"]}
        assert not panel.rank or panel.rank in keys
        assert all(column["of"] in keys for column in definition["columns"] if column["kind"] == "spark")
