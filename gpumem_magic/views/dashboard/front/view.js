// One view of a dashboard: its header, its pictures, its panels, and what the reader can set. All settings belong to
// the view and act in the page; what needs the kernel is sent to it and waits there if it is busy.

const WINDOWS = [[60e3, "1 min"], [300e3, "5 min"], [1800e3, "30 min"], [7200e3, "2 h"], [28800e3, "8 h"], [0, "all"]];
const SILENCE_MS = 4000;
const PULSE_MS = 10000;
const ASK_AFTER_MS = 150;
const FEW_DEVICES = 2; // with more, the host is folded too
const MOST_UNFOLDED = 4; // without being asked

// crypto.randomUUID is there only in pages that came by https or from this machine.
const newId = () => `gm-${Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("")}`;

class View {
  constructor({store, root, Bokeh, onFailure}) {
    this.store = store;
    this.root = root;
    root.gpumem = this; // for those who look into a page
    this.id = newId();
    this.paused = false;
    this.follow = true;
    this.window = store.config.window_ms;
    this.range = null;
    this.dirty = false;
    this.visible = true;
    this.build();
    this.pictures = new Pictures({
      Bokeh, store, places: this.places,
      onMove: (begin, end) => this.moved(begin, end),
      onPoint: (name, x, sx) => this.point(name, x, sx),
    });
    this.pictures.views.catch(onFailure);
    this.document = store.document;
    this.recolour();
    this.listen();
    this.change("all");
  }

  // ---- building ----

  build() {
    const {config} = this.store;
    this.places = new Map();
    this.summaries = new Map();
    this.touched = new Set(); // devices that the reader folded or unfolded
    this.head = element("div", {class: "gm-head gm-livehead"});
    this.status = element("p", {class: "gm-note gm-warning", hidden: true, role: "status"});
    const devices = config.devices.map((device, n) => this.section(
      `gpu${device.ordinal}`, `GPU ${device.ordinal}`, device.name, n === 0));
    const host = this.section("host", "Host", "memory of this process", config.devices.length <= FEW_DEVICES);
    this.tip = element("div", {class: "gm-tip", hidden: true, role: "tooltip"});
    this.root.replaceChildren(
      this.head, this.controls(), this.status, this.legend(), ...devices, host, this.tabs(), this.tip);
  }

  section(name, title, subtitle, open) {
    const place = element("div", {
      class: "gm-picture", tabindex: 0, role: "img",
      onkeydown: (event) => this.key(event),
    });
    const summary = element("span", {class: "gm-now"});
    const fill = element("span", {class: "gm-devicebar", "aria-hidden": "true"});
    this.places.set(name, place);
    this.summaries.set(name, {summary, fill, place});
    return element("details", {class: "gm-device", open, ontoggle: () => this.redraw()},
      element("summary", {onclick: () => this.touched.add(name)},
        element("span", {class: "gm-devicename"}, element("b", {}, title), " ", subtitle),
        fill, summary),
      place);
  }

  controls() {
    this.pauseButton = element("button", {
      class: "gm-button", "aria-pressed": false, title: "Stop drawing; recording goes on (%gpumem watch --pause)",
      onclick: () => this.setPaused(!this.paused),
    }, "Pause");
    this.followButton = element("button", {
      class: "gm-button", "aria-pressed": true, title: "Keep the newest moment in sight (End)",
      onclick: () => this.setFollow(),
    }, "Follow");
    this.windowSelect = element("select", {
      class: "gm-select", "aria-label": "How much time is shown", title: "%gpumem watch --window 5min",
      onchange: () => this.setWindow(Number(this.windowSelect.value)),
    });
    this.fillWindows();
    const zoom = (factor, text, label) => element("button", {
      class: "gm-button gm-square", "aria-label": label, title: label, onclick: () => this.zoom(factor),
    }, text);
    const commands = this.store.config.commands.map(({name, text, hint}) => element("button", {
      class: "gm-button", title: hint, onclick: () => this.command(name),
    }, text));
    return element("div", {class: "gm-controls", role: "toolbar", "aria-label": "Dashboard"},
      this.pauseButton, this.followButton, this.windowSelect,
      zoom(0.5, "+", "Zoom in (+, or Ctrl and the wheel)"), zoom(2, "−", "Zoom out (-)"),
      element("span", {class: "gm-grow"}), ...commands);
  }

  command(name) {
    if (!this.store.send({kind: "command", name})) {
      this.store.ended ||= "The kernel that this view belongs to is gone. %gpumem opens a new one; " +
        "%gpumem last shows what was recorded.";
      this.lookForSilence();
    }
  }

  fillWindows() {
    const known = WINDOWS.some(([length]) => length === this.window);
    const options = known ? WINDOWS : [[this.window, formatSeconds(this.window / 1000)], ...WINDOWS];
    this.windowSelect.replaceChildren(...options.map(([length, label]) =>
      element("option", {value: length, selected: length === this.window}, label)));
  }

  legend() {
    const entries = Object.entries(this.store.config.bands).map(([name, {label, hint}]) =>
      element("li", {title: hint}, element("span", {class: `gm-swatch gm-swatch-${name}`, "aria-hidden": "true"}), label));
    const high = element("li", {title: "the highest moment within a pixel, exact at every allocation"},
      element("span", {class: "gm-swatch gm-swatch-high", "aria-hidden": "true"}), "peaks");
    return element("ul", {class: "gm-legend"}, ...entries, high);
  }

  tabs() {
    this.tables = new Map();
    const buttons = [], bodies = [];
    for (const [name, panel] of this.store.panels) {
      const table = new Table({panel, onLink: (link) => this.followLink(link), now: () => this.now()});
      const id = `${this.id}-${name}`;
      const button = element("button", {
        role: "tab", id: `${id}-tab`, "aria-controls": id, class: "gm-tab", onclick: () => this.select(name),
        onkeydown: (event) => this.tabKey(event, name),
      }, panel.definition.title, element("span", {class: "gm-tabcount"}));
      const body = element("div", {role: "tabpanel", id, "aria-labelledby": `${id}-tab`, hidden: true}, table.element);
      this.tables.set(name, {table, button, body});
      buttons.push(button);
      bodies.push(body);
    }
    const made = element("div", {class: "gm-tabs"},
      element("div", {role: "tablist", "aria-label": "Tables"}, ...buttons), ...bodies);
    this.select([...this.tables.keys()][0]);
    return made;
  }

  // ---- settings ----

  select(name) {
    this.selected = name;
    for (const [each, {table, button, body}] of this.tables) {
      button.setAttribute("aria-selected", each === name);
      button.tabIndex = each === name ? 0 : -1;
      body.hidden = each !== name;
      if (each === name) table.draw();
    }
  }

  tabKey(event, name) {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const names = [...this.tables.keys()];
    const next = names[(names.indexOf(name) + step + names.length) % names.length];
    this.select(next);
    this.tables.get(next).button.focus();
    event.preventDefault();
  }

  followLink({panel, column, value, label}) {
    this.select(panel);
    this.tables.get(panel).table.link({column, value, label});
  }

  setPaused(paused) {
    if (paused && !this.paused) this.pausedAt = this.now();
    this.paused = paused;
    this.pauseButton.setAttribute("aria-pressed", paused);
    setText(this.pauseButton, paused ? "Resume" : "Pause");
    if (!paused) this.change("all");
  }

  setFollow() {
    this.follow = true;
    this.range = null;
    this.redraw();
  }

  setWindow(length) {
    this.window = length;
    this.fillWindows();
    this.setFollow();
  }

  zoom(factor) {
    const [begin, end] = this.shownRange();
    if (this.follow) {
      this.setWindow(Math.min(Math.max((end - begin) * factor, NARROWEST_MS), this.widest()));
      return;
    }
    const middle = (begin + end) / 2, half = Math.max((end - begin) * factor, NARROWEST_MS) / 2;
    this.moved(middle - half, middle + half);
  }

  oldest() {
    const now = this.now();
    return Math.min(...[...this.store.histories.values()].map((history) => history.begin), now - 1000);
  }

  // A stretch that is longer shows nothing more, and dates beyond the end of the calendar cannot be written.
  widest() {
    return Math.max(4 * (this.now() - this.oldest()), WINDOWS[0][0]);
  }

  // Some of what is known stays in sight, however far the reader moves.
  moved(begin, end) {
    const length = Math.min(Math.max(end - begin, NARROWEST_MS), this.widest());
    const middle = Math.min(Math.max((begin + end) / 2, this.oldest()), this.now());
    this.follow = false;
    this.range = [middle - length / 2, middle + length / 2];
    this.redraw();
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.askForDetail(), ASK_AFTER_MS);
  }

  // The page's samples are a tenth of a second apart, older ones more. The events themselves are with the kernel.
  askForDetail() {
    if (this.follow || this.removed) return;
    const [begin, end] = this.range, around = (end - begin) / 2;
    const until = Math.min(end + around, this.now() - 500);
    if (this.store.wantsDetail(begin, Math.min(end, until))) {
      this.store.send({kind: "detail", begin: begin - around, end: until});
    }
  }

  key(event) {
    const [begin, end] = this.shownRange();
    const step = (end - begin) / 8;
    const actions = {
      ArrowLeft: () => this.moved(begin - step, end - step),
      ArrowRight: () => this.moved(begin + step, end + step),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      End: () => this.setFollow(),
      Home: () => this.setWindow(0),
    };
    if (!actions[event.key]) return;
    actions[event.key]();
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- drawing ----

  listen() {
    this.listener = (change) => this.change(change);
    this.store.listeners.add(this.listener);
    this.timer = setInterval(() => this.lookForSilence(), 1000);
    this.pulse = setInterval(() => this.hello("pulse"), PULSE_MS);
    this.sight = new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible) this.redraw();
    });
    this.sight.observe(this.root);
    this.theme = new MutationObserver(() => this.recolour());
    for (const node of [document.documentElement, document.body]) {
      this.theme.observe(node, {attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "class"]});
    }
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", (this.onScheme = () => this.recolour()));
    this.hello("hello");
  }

  hello(kind) {
    this.store.send({kind, view: this.id});
  }

  recolour() {
    const style = getComputedStyle(this.root);
    this.pictures.paint((token) => style.getPropertyValue(`--gm-${token}`).trim() || "#888888", style.fontFamily);
  }

  change(change) {
    if (this.document !== this.store.document) {
      this.rebuilt?.();
      return;
    }
    if (change.settings || change === "all") this.applySettings();
    if (this.paused && this.hasDrawn) return;
    this.redraw();
  }

  applySettings() {
    const {settings} = this.store.config;
    if (!settings || settings.number === this.settingsNumber) return;
    this.settingsNumber = settings.number;
    if ("window_ms" in settings) this.setWindow(settings.window_ms);
    if ("paused" in settings) this.setPaused(settings.paused);
    if ("devices" in settings) this.openOnly(settings.devices);
  }

  openOnly(devices) {
    for (const [name, {place}] of this.summaries) {
      if (name === "host") continue;
      this.touched.add(name);
      place.closest("details").open = devices.includes(Number(name.slice(3)));
    }
  }

  redraw() {
    if (this.dirty || !this.pictures) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      if (this.removed || !this.visible) return;
      this.draw();
    });
  }

  draw() {
    const began = performance.now();
    const [begin, end] = this.shownRange();
    const open = [...this.places].filter(([, place]) => place.closest("details").open).map(([name]) => name);
    this.pictures.show(begin, end, open, this.now());
    this.followButton.setAttribute("aria-pressed", this.follow);
    if (!this.paused || !this.hasDrawn) this.drawNumbers();
    this.hasDrawn = true;
    this.drawnIn = performance.now() - began;
    this.store.onDrawn?.(this);
  }

  drawNumbers() {
    this.drawHead();
    for (const device of this.store.config.devices) this.drawSummary(device);
    this.drawHost();
    for (const [name, {table, button}] of this.tables) {
      if (name === this.selected) table.draw();
      setText(button.lastChild, formatCount(table.panel.definition.counts ? table.panel.order.length : 0).replace(/^0$/, ""));
    }
  }

  shownRange() {
    if (!this.follow && this.range) return this.range;
    const end = this.now();
    const start = Math.max(this.oldest(), this.store.config.since_ms);
    const length = this.window || end - start;
    const edge = stepAfter(end, length);
    if (!this.window) return [start, edge];
    // A young session is not shown at the right edge of an empty picture.
    return end - start < this.window * 0.25 ? [start, start + this.window * 0.25] : [Math.max(edge - this.window, start), edge];
  }

  // The latest moment that is known; while drawing is paused, that of the pause.
  now() {
    if (this.paused) return this.pausedAt;
    return Math.max(...[...this.store.histories.values()].map((history) => history.latest?.[END] ?? 0), this.store.now ?? 0);
  }

  drawHead() {
    const {header} = this.store;
    const text = JSON.stringify(header);
    if (this.headText === text) return;
    this.headText = text;
    this.head.replaceChildren(
      element("span", {class: "gm-label"}, "GPU memory"),
      ...header.badges.map(([label, severity, hint]) => badge(label, severity, hint)),
      element("span", {class: "gm-meta"}, ...header.facts.flatMap(([fact, hint], n) =>
        [n ? " · " : "", element("span", {title: hint || null}, fact)])));
  }

  drawSummary(device) {
    const {summary, fill, place} = this.summaries.get(`gpu${device.ordinal}`);
    const row = this.store.histories.get(device.ordinal).latest;
    if (!row) return;
    const parts = [["live", row[LIVE]], ["cached", row[CACHED]]].filter(([name, value]) => name === "live" || value > 0);
    const used = total(row);
    const texts = parts.map(([name, value]) => `${name} ${formatSize(value)}`);
    texts.push(`used ${formatSize(used)}${device.total ? ` of ${formatSize(device.total)}` : ""}`);
    if (row[UTILIZATION] >= 0) texts.push(`busy ${Math.round(row[UTILIZATION])} %`);
    setText(summary, texts.join(" · "));
    summary.title = [...BANDS.map(([name, at]) => `${this.store.config.bands[name].label}: ${exactBytes(row[at])}`),
      `used: ${exactBytes(used)}`].join("\n");
    summary.dataset.live = row[LIVE] + row[CACHED];
    this.unfoldUsed(`gpu${device.ordinal}`, place.closest("details"), row);
    this.drawBar(fill, row, device.total || used);
    place.setAttribute("aria-label", `Memory of GPU ${device.ordinal} over time. Now: ${texts.join(", ")}`);
  }

  unfoldUsed(name, details, row) {
    if (details.open || this.touched.has(name) || !(row[LIVE] + row[CACHED])) return;
    const unfolded = this.root.querySelectorAll("details.gm-device[open]").length;
    if (unfolded < MOST_UNFOLDED) details.open = true;
    else this.touched.add(name);
  }

  drawBar(fill, row, whole) {
    if (fill.children.length !== BANDS.length) {
      fill.replaceChildren(...BANDS.map(([name]) => element("span", {class: `gm-swatch-${name}`})));
    }
    BANDS.forEach(([, at], n) => { fill.children[n].style.width = `${(100 * row[at]) / Math.max(whole, 1)}%`; });
  }

  drawHost() {
    const row = this.store.histories.get(HOST).latest;
    const host = this.summaries.get("host");
    if (!row) return;
    const texts = [`heap ${formatSize(row[ANONYMOUS])}`, `resident ${formatSize(row[RSS])}`];
    setText(host.summary, texts.join(" · "));
    host.summary.title = `heaps of Python and of native code: ${exactBytes(row[ANONYMOUS])}\nresident: ${exactBytes(row[RSS])}`;
    host.place.setAttribute("aria-label", `Host memory over time. Now: ${texts.join(", ")}`);
  }

  lookForSilence() {
    const silent = Date.now() - this.store.heardAt;
    const text = this.store.ended ||
      (silent > SILENCE_MS ? `No news from the kernel for ${formatSeconds(Math.round(silent / 1000))}. It is stopped, or ` +
        "in a call that does not let other threads run. What was recorded is safe: %gpumem last shows it after a restart." : "");
    this.status.hidden = !text;
    setText(this.status, text);
  }

  // ---- the tooltip ----

  point(name, x, sx) {
    const row = name && this.rowAt(name, x);
    this.tip.hidden = !row;
    if (!row) return;
    const lines = name === "host" ?
      [["heap", row[ANONYMOUS_MAX]], ["resident", row[RSS_MAX]]] :
      [...BANDS.map(([band, at]) => [this.store.config.bands[band].label, row[at]]).filter(([, value]) => value),
        ["used", total(row)], ...(peak(row) > total(row) ? [["peak in here", peak(row)]] : [])];
    const span = this.store.spans.find((each) => each.begin <= x && (each.end ?? Infinity) >= x);
    this.tip.replaceChildren(
      element("div", {class: "gm-tiphead"}, formatClock(row[END], true), span ? ` · ${span.label}` : ""),
      element("dl", {}, ...lines.flatMap(([label, value]) =>
        [element("dt", {}, label), element("dd", {}, formatSize(value)), element("dd", {}, exactBytes(value))])));
    const place = this.places.get(name).getBoundingClientRect(), root = this.root.getBoundingClientRect();
    const right = sx + 20 + this.tip.offsetWidth < root.width;
    this.tip.style.top = `${place.top - root.top + 8}px`;
    this.tip.style.left = `${Math.max(right ? sx + 20 : sx - 20 - this.tip.offsetWidth, 0)}px`;
  }

  rowAt(name, x) {
    const history = this.store.histories.get(name === "host" ? HOST : Number(name.slice(3)));
    const [begin, end] = this.shownRange();
    const rows = name === "host" ? history.rows(begin, end, MOST_POINTS) :
      this.store.rows(Number(name.slice(3)), begin, end, MOST_POINTS);
    return rows.length && x <= rows[rows.length - 1][END] + 1 ? history.at(rows, x) : null;
  }

  remove() {
    this.removed = true;
    this.store.listeners.delete(this.listener);
    clearInterval(this.timer);
    clearInterval(this.pulse);
    clearTimeout(this.asking);
    this.sight.disconnect();
    this.theme.disconnect();
    this.scheme.removeEventListener("change", this.onScheme);
    this.hello("bye");
    this.pictures.remove();
  }
}
