// The pictures over time of one view: Bokeh models from the kernel's document, filled from the store's histories.

const MOST_POINTS = 1100; // about one per pixel of a wide notebook
const HOST_MS = 500; // the host's memory changes all the time, and a little: it is painted no more often
const LEAST_TOP = 2 ** 20;
const AXIS_HEIGHT = 30; // below the plot
const LOW_PICTURE = 110; // pixels: lower ones have fewer labels
const NARROWEST_MS = 50;
const AXIS_WIDTH = 70; // beside the plot, as pictures.py has it
const TICK_WIDTH = 110; // pixels for a time on the axis
const LABEL_WIDTH = 34; // pixels that a cell's number needs

// A picture moves on in steps, not with every message: most then need no painting in between.
const STEPS = 50;
function stepAfter(ms, length) {
  const step = 2 ** Math.floor(Math.log2(length / STEPS));
  return Math.ceil(ms / step) * step;
}

class Pictures {
  // `places`: element by picture name. `onMove` is told when the reader moved the time axis by hand.
  constructor({Bokeh, store, places, onMove, onPoint}) {
    const {Document} = Bokeh.require("document");
    const {add_document_standalone: embed} = Bokeh.require("embed/standalone");
    this.store = store;
    this.documents = Bokeh.documents; // of the whole page: each document puts itself there
    this.onMove = onMove;
    this.document = Document.from_json(structuredClone(store.document.content));
    this.models = [...this.document._all_models.values()];
    this.time = this.models.find((model) => model.name === "time");
    this.plots = new Map();
    const elements = []; // in the order of the document's roots
    for (const [name, id] of Object.entries(store.document.roots)) {
      const plot = this.document.get_model_by_id(id);
      this.plots.set(name, new Picture(plot, places.get(name), name === "host"));
      elements.push(places.get(name));
      plot.on_event("mousemove", (event) => onPoint(name, event.x, event.sx));
      plot.on_event("mouseleave", () => onPoint(null));
    }
    this.moving = false;
    this.shown = new Map();
    this.time.change.connect(() => { if (!this.moving) this.onMove(this.time.start, this.time.end); });
    this.views = embed(this.document, elements[0], elements).then((views) => {
      // The place of a picture takes the focus, and has a name; what Bokeh puts into it has none.
      for (const view of views) view.canvas_view?.events_el?.removeAttribute("tabindex");
      return views;
    });
  }

  // Colours of the page's theme, by token, and its font.
  paint(colour, font) {
    this.shown.clear();
    for (const model of this.models) {
      if ("major_label_text_font" in model) model.major_label_text_font = font;
      if ("text_font" in model) model.text_font = font;
      for (const tag of model.tags ?? []) {
        const [property, token] = tag.split("=");
        model[property] = colour(token);
      }
    }
  }

  // Show the stretch from `begin` to `end` (ms) in the pictures named in `visible`. One in which nothing changed is
  // left as it is until the stretch moves on: painting is what costs a page most.
  show(begin, end, visible, now) {
    this.moving = true;
    this.time.setv({start: begin, end});
    this.moving = false;
    for (const name of visible) {
      const {changes} = this.store.histories.get(name === "host" ? HOST : Number(name.slice(3)));
      const stretch = [begin, end, Math.min(stepAfter(now, end - begin), end), this.store.drawn].join();
      const at = performance.now();
      const shown = this.shown.get(name);
      if (shown?.stretch === stretch && (shown.changes === changes || (name === "host" && at < shown.at + HOST_MS))) continue;
      this.shown.set(name, {stretch, changes, at});
      this.fill(name, begin, end);
    }
  }

  fill(name, begin, end) {
    const picture = this.plots.get(name);
    const {config, histories, spans, marks} = this.store;
    picture.setTicks();
    if (picture.isHost) {
      picture.showHost(histories.get(HOST).rows(begin, end, MOST_POINTS));
      return;
    }
    const device = config.devices.find((each) => name === `gpu${each.ordinal}`);
    picture.showDevice(this.store.rows(device.ordinal, begin, end, MOST_POINTS), device.total);
    const mine = marks.filter((each) => each.device === device.ordinal || each.device === HOST);
    picture.showMarks(mine, begin, end);
    picture.showCells(spans, begin, end);
  }

  // BokehJS keeps every document and every view until it is told otherwise, and with them what they draw on.
  remove() {
    // There may be no views yet, and never any. They go first: of a document that is empty they find no part any more.
    const clear = () => this.document.clear();
    this.views.then((views) => views.clear()).then(clear, clear);
    const at = this.documents.indexOf(this.document);
    if (at >= 0) this.documents.splice(at, 1);
  }
}

// The page's numbers have the kernel's offset from UTC in them: what ISO says of them is the kernel's clock.
function timeLabels(ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1000;
  return ticks.map((tick) => {
    const at = new Date(tick).toISOString();
    if (step < 1000) return at.slice(14, step < 100 ? 23 : 21);
    return at.slice(11, at.slice(17, 19) === "00" ? 16 : 19);
  });
}

class Picture {
  constructor(plot, place, isHost) {
    this.plot = plot;
    this.place = place;
    this.isHost = isHost;
    this.range = plot.y_range;
    this.sources = new Map();
    for (const renderer of plot.renderers) {
      if (renderer.data_source?.name) this.sources.set(renderer.data_source.name, renderer.data_source);
    }
    this.axis = plot.left.find((each) => each.name === "byte axis");
    this.capacity = plot.center.find((each) => each.name === "capacity");
    // A formatter of the document's own would be text, and pages may forbid to make code of text.
    const time = plot.below.find((each) => each.name === "time axis");
    if (time) time.formatter.doFormat = timeLabels;
    this.ticker = time?.ticker;
    this.labels = plot.renderers.find((each) => each.name === "cell labels");
    this.top = 0;
    this.isLow = plot.height < LOW_PICTURE;
    // Below the line of 0 bytes a strip shows how busy the device is; with a label where there is room for one.
    const frame = plot.height - AXIS_HEIGHT;
    const strip = isHost ? 0 : this.isLow ? 9 : 22;
    this.below = strip / (frame - strip);
    const {extra_y_ranges: extra} = plot; // a Map or an object, by BokehJS's version
    const busy = extra instanceof Map ? extra.get("busy") : extra.busy;
    if (busy) busy.end = (100 * frame) / (strip - (this.isLow ? 2 : 8));
  }

  // As many times on the axis as there is room for.
  setTicks() {
    const wanted = Math.max(Math.floor((this.place.clientWidth - AXIS_WIDTH) / TICK_WIDTH), 2);
    if (this.ticker && this.ticker.desired_num_ticks !== wanted) this.ticker.desired_num_ticks = wanted;
  }

  showDevice(rows, capacity) {
    if (!rows.length) return; // an area needs two points: what stood there stays
    const columns = {x: [], bottom: [], busy: [], high: [], "high edge": []};
    for (const [name] of BANDS) columns[name] = [], columns[`${name} edge`] = [];
    let highest = 0;
    const push = (x, row) => {
      columns.x.push(x);
      columns.bottom.push(0);
      columns.busy.push(Math.max(row[UTILIZATION], 0));
      let sum = 0;
      for (const [name, place] of BANDS) {
        sum += row[place];
        columns[name].push(sum);
        columns[`${name} edge`].push(row[place] ? sum : NaN); // the edge of nothing would hide the one below it
      }
      const top = peak(row);
      columns.high.push(top);
      columns["high edge"].push(top > sum ? top : NaN);
      highest = Math.max(highest, top);
    };
    push(rows[0][BEGIN], rows[0]);
    for (const row of rows) push(row[END], row);
    this.sources.get("bands").data = columns;
    const near = capacity && highest >= 0.6 * capacity;
    this.setTop(near ? Math.max(highest, capacity) * 1.12 : highest * 1.18);
    this.capacity.setv({location: capacity ?? 0, visible: Boolean(near)});
  }

  showHost(rows) {
    if (!rows.length) return;
    const columns = {x: [], bottom: [], anonymous: [], rss: []};
    const push = (x, row) => {
      columns.x.push(x);
      columns.bottom.push(0);
      columns.anonymous.push(row[ANONYMOUS_MAX]);
      columns.rss.push(row[RSS_MAX]);
    };
    push(rows[0][BEGIN], rows[0]);
    for (const row of rows) push(row[END], row);
    this.sources.get("bands").data = columns;
    this.setTop(Math.max(...columns.rss, 0) * 1.18);
  }

  // The scale keeps still while the curve moves a little: it grows when it must and shrinks only when much too large.
  setTop(wanted) {
    const needed = Math.max(wanted, LEAST_TOP);
    if (needed <= this.top && needed > this.top * 0.7) return;
    this.top = needed * (needed > this.top ? 1.04 : 1);
    this.range.setv({start: -this.below * this.top, end: this.top});
    const ticks = byteTicks(this.top, this.isLow ? 2 : 4);
    if (!this.isHost && !this.isLow) ticks.push([-this.below * 0.68 * this.top, "busy"]);
    this.axis.ticker.ticks = ticks.map(([at]) => at);
    this.axis.major_label_overrides = new Map(ticks);
  }

  showMarks(marks, begin, end) {
    const within = (each) => (each.end ?? end) >= begin && each.at <= end;
    const of = (kind) => marks.filter((each) => each.kind === kind && within(each));
    const gaps = of("gap");
    const points = (list) => ({x: list.map((each) => each.at), y: list.map(() => this.top * 0.93)});
    this.sources.get("gaps").data = {left: gaps.map((gap) => gap.at), right: gaps.map((gap) => gap.end ?? end)};
    this.sources.get("marks").data = points(of("mark"));
    this.sources.get("refusals").data = points(of("refusal"));
  }

  showCells(spans, begin, end) {
    const columns = {left: [], right: [], middle: [], label: [], shade: []};
    const pixels = (this.place.clientWidth - AXIS_WIDTH) / (end - begin);
    let free = -Infinity; // right edge of the last label
    for (const [count, span] of spans.entries()) {
      const left = Math.max(span.begin, begin), right = Math.min(span.end ?? end, end);
      if (right < begin || left > end) continue;
      const middle = (left + right) / 2;
      const fits = (right - left) * pixels > LABEL_WIDTH && (middle - free) * pixels > LABEL_WIDTH / 2;
      columns.left.push(left);
      columns.right.push(right);
      columns.middle.push(middle);
      columns.label.push(fits ? span.label : "");
      columns.shade.push(count % 2 ? 0.05 : 0.11);
      if (fits) free = middle + LABEL_WIDTH / 2 / pixels;
    }
    this.sources.get("cells").data = columns;
    this.labels.glyph.y = {value: this.top};
  }
}
