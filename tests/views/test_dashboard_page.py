"""The page's script by itself: a store that is told things in odd orders, and tables that somebody uses meanwhile."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.front import page_with_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

EXPORTED = ("Store", "Table", "PanelData", "View", "newId", "loadBokeh", "timeLabels")

MADE = """
window.model = (state, levels) => ({
  sent: [], heard: [],
  get(name) { return {state, levels}[name]; },
  on(event, callback) { if (event === "msg:custom") this.heard.push(callback); },
  send(message) { this.sent.push(message); },
  tell(message, ...buffers) { this.heard.forEach((each) => each(message, buffers)); },
});
window.packed = (text) => new DataView(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
window.state = (seq, rows, more = {}) => ({
  seq, document: {content: {}, roots: {}}, now: 1e12, header: {badges: [], facts: []}, spans: [], marks: [], ended: "",
  config: {devices: [{ordinal: 0, name: "GPU", total: null}], history: {factor: 4, levels: 8, rows: 1024, columns: 11}},
  panels: [{...panel, rows, order: Object.keys(rows), details: {}, sparks: {}}], ...more,
});
window.panel = {
  name: "allocations", title: "Allocations", hint: "", empty: "nothing", rank: "live", groups: [["kind", "kind"]],
  counts: false, columns: [
    {key: "where", title: "Where", kind: "text"}, {key: "live", title: "Live", kind: "bytes", adds: true},
    {key: "spark", title: "Trend", kind: "spark", of: "live", points: 60},
    {key: "growth", title: "Growth", kind: "growth"}, {key: "age", title: "Oldest", kind: "age"}],
};
window.table = (rows, more = {}) => {
  const data = new ours.PanelData().fill({...panel, rows, order: Object.keys(rows), details: {}, sparks: {}, ...more});
  const clock = {now: 1e12};
  const made = new ours.Table({panel: data, onLink: () => {}, now: () => clock.now});
  document.body.replaceChildren(made.element);
  made.draw();
  return {made, data, clock};
};
window.firsts = (made) => [...made.body.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key);
"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page in which ``ours`` has the script's classes."""
    with page_with_script(browser, EXPORTED) as page:
        page.evaluate(f"() => {{ {MADE} }}")
        yield page


def packed(*rows: list[float]) -> str:
    return base64.b64encode(gzip.compress(np.array(rows, "<f8").tobytes())).decode()


def row(index: int, live: int) -> list[float]:
    return [0, 0, index, index * 100, index * 100 + 100, 0, 0, 0, live, 0, live, live, -1]


# ---- the store ----


def test_the_later_of_two_states_that_come_together_counts(page: Page) -> None:
    found = page.evaluate(
        """async ([first, later]) => {
          const model = window.model(state(1, {a: {live: 1}}), packed(first));
          const store = new ours.Store(model);
          let told = 0;
          store.listeners.add((change) => { told += change === "all"; });
          model.tell({kind: "full", state: state(4, {b: {live: 2}})}, packed(first));
          model.tell({kind: "update", seq: 5, rows: []});
          model.tell({kind: "full", state: state(5, {c: {live: 3}})}, packed(later));
          model.tell({kind: "update", seq: 6, now: 7, rows: []});
          await store.ready;
          await new Promise((done) => setTimeout(done, 50));
          return [store.seq, [...store.panels.get("allocations").rows.keys()], store.histories.get(0).last[6],
            told, model.sent];
        }""",
        [packed(row(0, 1)), packed(row(0, 1), row(1, 2))],
    )
    assert found == [6, ["c"], 2, 1, []]


def test_whoever_waited_for_the_first_state_gets_the_later_one(page: Page) -> None:
    seq = page.evaluate(
        """async (levels) => {
          const model = window.model(state(1, {}), packed(levels));
          const store = new ours.Store(model);
          const {ready} = store;
          model.tell({kind: "full", state: state(9, {})}, packed(levels));
          await ready;
          return store.seq;
        }""",
        packed(row(0, 1)),
    )
    assert seq == 9


@pytest.mark.parametrize(("devices", "kept"), [(1, True), (2, False)])
def test_a_view_is_built_anew_only_for_other_devices(page: Page, devices: int, kept: bool) -> None:
    found = page.evaluate(
        """async ([levels, devices]) => {
          const model = window.model(state(1, {a: {live: 1}}), packed(levels));
          const store = new ours.Store(model);
          await store.ready;
          const {document, drawn} = store, panel = store.panels.get("allocations"), {version} = panel;
          const next = JSON.parse(JSON.stringify(state(5, {b: {live: 2}})));
          next.config.devices = Array.from({length: devices}, (_, ordinal) => ({ordinal, name: "GPU", total: null}));
          model.tell({kind: "full", state: next}, packed(levels));
          await store.ready;
          return [store.document === document, store.panels.get("allocations") === panel, panel.version > version,
            store.drawn > drawn, [...panel.rows.keys()]];
        }""",
        [packed(row(0, 1)), devices],
    )
    assert found == [kept, True, True, True, ["b"]]


def test_a_setting_does_not_lose_the_time(page: Page) -> None:
    now = page.evaluate(
        """async (levels) => {
          const model = window.model(state(1, {}), packed(levels));
          const store = new ours.Store(model);
          await store.ready;
          model.tell({kind: "update", seq: 2, config: {settings: {number: 1}}, settings: true});
          return store.now;
        }""",
        packed(row(0, 1)),
    )
    assert now == 1e12


def test_bokeh_that_could_not_be_loaded_is_asked_for_again(page: Page) -> None:
    asked = page.evaluate(
        """async () => {
          let asked = 0;
          const model = {
            get: (name) => (name === "bokeh_version" ? "none" : "IPY_MODEL_x"),
            widget_manager: {get_model: async () => { asked += 1; throw new Error("no kernel"); }},
          };
          for (const _ of [1, 2]) await ours.loadBokeh(model).catch(() => {});
          return asked;
        }"""
    )
    assert asked == 2


def test_names_of_views_need_no_secure_page(page: Page) -> None:
    assert page.evaluate("() => [isSecureContext, new Set([ours.newId(), ours.newId()]).size]") == [False, 2]


def test_however_far_a_reader_zooms_or_pans_something_stays_in_sight(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const view = Object.create(ours.View.prototype);
          const end = 1e12, begin = end - 30e3;
          const store = {histories: new Map([[0, {begin, latest: [0, begin, end]}]]), now: end, config: {since_ms: 0}};
          Object.assign(view, {store, follow: false, range: [begin, end], window: 60e3, redraw() {}, removed: true});
          const ranges = [];
          for (let n = 0; n < 80; n += 1) view.zoom(2);
          ranges.push(view.range.map((each) => each - end));
          view.moved(end + 1e15, end + 1e15 + 1000);
          ranges.push(view.range.map((each) => each - end));
          view.moved(-1e15, -1e15 + 1000);
          ranges.push(view.range.map((each) => each - begin));
          return ranges;
        }"""
    )
    assert found == [[-75000, 45000], [-500, 500], [-500, 500]]


def test_a_paused_picture_stays_where_it_was(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const view = Object.create(ours.View.prototype);
          const store = {histories: new Map([[0, {begin: 0, latest: [0, 0, 600e3]}]]), config: {since_ms: 0}};
          const pauseButton = document.createElement("button");
          Object.assign(view, {store, pauseButton, follow: true, range: null, window: 60e3, redraw() {}, change() {}});
          view.setPaused(true);
          const before = view.shownRange();
          store.histories.get(0).latest = [0, 0, 900e3];
          const paused = view.shownRange();
          view.setPaused(false);
          return [before, paused, view.shownRange()[1] >= 900e3];
        }"""
    )
    assert found[0] == found[1]
    assert found[2]


@pytest.mark.parametrize("step", [1000, 50])
def test_times_on_the_axis(page: Page, step: int) -> None:
    ticks = [1_760_000_000_000 + n * step for n in range(3)]
    texts = page.evaluate("ticks => ours.timeLabels(ticks)", ticks)
    assert texts == (["08:53:20", "08:53:21", "08:53:22"] if step == 1000 else ["53:20.000", "53:20.050", "53:20.100"])


# ---- tables ----


def test_ages_pass_without_news(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const {made, clock} = table({a: {where: "a", live: 1, age: 1e12 - 5000}});
          const cells = () => [...made.body.querySelectorAll("td")].at(-1).textContent;
          const before = cells();
          clock.now += 60e3;
          made.draw();
          return [before, cells()];
        }"""
    )
    assert found == ["5 s", "1 min"]


def test_tables_are_sorted_by_age_and_by_growth(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const {made} = table(
            {a: {where: "a", live: 1, age: 30}, b: {where: "b", live: 9, age: 10}, c: {where: "c", live: 5, age: null}},
            {sparks: {a: [1, 4], b: [5, 6], c: [9, 1]}});
          const orders = [];
          for (const key of ["age", "growth", "growth", "spark"]) {
            made.sortBy(panel.columns.find((column) => column.key === key));
            orders.push(firsts(made).join(""));
          }
          return orders;
        }"""
    )
    assert found == ["bac", "abc", "cba", "bac"]


def test_the_oldest_of_a_group_was_born_first(page: Page) -> None:
    text = page.evaluate(
        """() => {
          const {made} = table({a: {where: "a", kind: "k", age: 1e12 - 9000}, b: {where: "b", kind: "k", age: 1e12}});
          made.change({group: "kind"});
          return [...made.body.querySelectorAll("td")].at(-1).textContent;
        }"""
    )
    assert text == "9 s"


def test_text_that_is_selected_stays_until_it_was_copied(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const {made, data} = table({a: {where: "first", live: 1}});
          const texts = [];
          const look = () => texts.push(made.body.querySelector("tr").textContent.slice(0, 8), made.rest.textContent);
          getSelection().selectAllChildren(made.body.querySelector("th"));
          data.apply({set: {a: {where: "second", live: 2}}});
          made.draw();
          texts.push(String(getSelection()).trim());
          look();
          getSelection().removeAllRanges();
          made.draw();
          look();
          return texts;
        }"""
    )
    assert "first" in found[0]
    assert found[1].startswith("first")
    assert found[2] == "not redrawn while text in it is selected"
    assert found[3].startswith("second")
    assert found[4] == ""


def test_the_focus_stays_and_the_table_does_not_scroll_to_it(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const rows = {}, details = {};
          for (let n = 0; n < 150; n += 1) {
            rows[`k${n}`] = {where: `row ${n}`, live: n, link: {text: "link", hint: ""}};
            details[`k${n}`] = [["f", "x"]];
          }
          const {made, data} = table(rows, {details});
          made.scroller.style.cssText = "height:200px;overflow:auto";
          made.body.querySelector("tr[data-key=k0] .gm-linkbutton").focus();
          made.scroller.scrollTop = 2000;
          const before = made.scroller.scrollTop;
          data.apply({set: {k5: {where: "changed", live: 0}}});
          made.draw();
          const active = document.activeElement;
          const kept = [active.className, active.closest("tr").dataset.key, made.scroller.scrollTop - before];
          data.apply({order: ["k5"]});
          made.draw();
          return [...kept, document.activeElement === made.scroller];
        }"""
    )
    assert found == ["gm-linkbutton", "k0", 0, True]


def test_a_row_that_matches_is_found_though_its_parent_does_not(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const {made} = table(
            {a: {where: "train"}, b: {where: "block", parent: "a"}, c: {where: "block", parent: "x"}});
          const all = firsts(made);
          made.change({filter: "block"});
          return [all, firsts(made)];
        }"""
    )
    assert found == [["a", "c"], ["b", "c"]]


def test_rows_unfold_as_deep_as_they_are_nested(page: Page) -> None:
    found = page.evaluate(
        """() => {
          const {made} = table(
            {a: {where: "cell"}, b: {where: "epoch", parent: "a"}, c: {where: "step", parent: "b"}});
          const shown = [firsts(made)];
          for (const key of ["a", "b"]) {
            made.opened.add(key);
            made.change({});
            shown.push(firsts(made));
          }
          return shown;
        }"""
    )
    assert found == [["a"], ["a", "b"], ["a", "b", "c"]]


def test_text_from_the_kernel_is_never_markup(page: Page) -> None:
    nasty: dict[str, Any] = {
        "where": "<img src=x onerror='window.hit=1'>",
        "title": '"><script>window.hit=1</script>',
        "name": "<b>",
        "badges": [["<i>", 'x" onclick="window.hit=1', "<u>"]],
        "live": 2**60,
    }
    found = page.evaluate(
        """(cells) => {
          const key = 'a"]<b>';
          const {made, data} = table({[key]: cells}, {details: {[key]: [["<b>label</b>", "<b>source</b>"]]}});
          made.body.querySelector("button").focus();
          made.body.querySelector("button").click();
          data.apply({set: {[key]: cells}});
          made.draw();
          return [window.hit ?? null, made.body.querySelectorAll("img, script, b, i, u").length,
            document.activeElement.getAttribute("aria-expanded")];
        }""",
        nasty,
    )
    assert found == [None, 0, "true"]
