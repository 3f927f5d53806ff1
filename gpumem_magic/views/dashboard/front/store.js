// What the page knows of one dashboard: one store per widget model, shared by all its views, fed by the kernel.
//
// Each message of the kernel has a number. A message that is missed makes the store ask for everything anew; until
// that comes it draws what it has. What arrives while the state is still being unpacked waits its turn.

class Store {
  constructor(model) {
    this.model = model;
    this.listeners = new Set();
    this.waiting = [];
    this.asked = false;
    this.drawn = 0; // changes of what all pictures show beside their histories
    this.heardAt = Date.now();
    this.ended = "";
    model.on("comm:close", () => {
      this.isClosed = true;
      this.release();
    });
    model.on("msg:custom", (message, buffers) => this.receive(message, buffers));
    this.ready = this.load(model.get("state"), model.get("levels"));
  }

  async load(state, packed) {
    this.waiting ??= [];
    const mine = (this.loading = {});
    const numbers = await unpacked(packed);
    if (this.loading !== mine) return this.ready; // a later state came meanwhile: it takes what waits
    // Views are built on the document and the devices. With these as they were, a view keeps what its reader set.
    const shape = JSON.stringify([state.document, state.config.devices]);
    if (this.shape !== shape) this.document = state.document;
    this.shape = shape;
    this.seq = state.seq;
    this.config = state.config;
    this.now = state.now;
    const known = this.panels ?? new Map();
    this.panels = new Map(state.panels.map((panel) =>
      [panel.name, (known.get(panel.name) ?? new PanelData()).fill(panel)]));
    this.header = state.header;
    this.keyed = {spans: new Map(), marks: new Map()};
    this.take("spans", state.spans);
    this.take("marks", state.marks);
    this.ended = state.ended;
    this.histories = historiesFrom(numbers, state.config);
    this.detail = null;
    this.drawn += 1;
    const waiting = this.waiting;
    this.waiting = null;
    for (const message of waiting) this.receive(message);
    this.tell("all");
    return null;
  }

  receive(message, buffers) {
    this.heardAt = Date.now();
    if (message.kind === "detail") {
      this.detail = message;
      this.drawn += 1;
      this.tell(message);
    } else if (message.kind === "full") {
      if (this.waiting === null && message.state.seq < this.seq) return;
      this.asked = false;
      this.ready = this.load(message.state, buffers[0]);
    } else if (this.waiting !== null) {
      this.waiting.push(message);
    } else if (message.seq === this.seq + 1) {
      this.apply(message);
    } else if (message.seq > this.seq && !this.asked) {
      this.asked = true;
      this.send({kind: "resync", seq: this.seq});
    }
  }

  apply(message) {
    this.seq = message.seq;
    this.now = message.now ?? this.now;
    for (const [device, ...row] of message.rows ?? []) this.histories.get(device)?.add(row);
    for (const [device, ...row] of message.open ?? []) this.histories.get(device)?.extend(row);
    for (const [name, change] of Object.entries(message.panels ?? {})) this.panels.get(name)?.apply(change);
    for (const name of ["spans", "marks"]) {
      if (!message[name]) continue;
      this.take(name, message[name]);
      this.drawn += 1;
    }
    for (const name of ["header", "ended"]) if (name in message) this[name] = message[name];
    if (message.config) Object.assign(this.config, message.config);
    this.tell(message);
  }

  // Put in what is new or changed, by key; `this[name]` is the list that is drawn.
  take(name, items) {
    const known = this.keyed[name];
    for (const item of items) known.set(item.key, item);
    this[name] = [...known.values()].slice(-MOST_KEYED);
    if (known.size > 2 * MOST_KEYED) this.keyed[name] = new Map(this[name].map((item) => [item.key, item]));
  }

  tell(change) {
    for (const listener of this.listeners) listener(change);
  }

  // Rows that draw a device's stretch: from the events themselves where the kernel sent them, else from the samples.
  rows(device, begin, end, most) {
    const history = this.histories.get(device);
    const {detail} = this;
    const exact = detail && detail.begin <= begin && detail.end >= end ? detail.devices[device] : null;
    return exact ? detailedRows(history, exact, begin, end) : history.rows(begin, end, most);
  }

  // Whether the kernel should be asked for the events of a stretch.
  wantsDetail(begin, end) {
    if (end - begin > LONGEST_DETAIL_MS) return false;
    const {detail} = this;
    if (!detail || detail.begin > begin || detail.end < end) return true;
    const narrower = end - begin < (detail.end - detail.begin) / 6;
    return narrower && (!detail.exact || !Object.keys(detail.devices).length);
  }

  // Jupyter keeps models that are closed. Once nobody looks any more, what they hold goes.
  release() {
    if (!this.isClosed || this.listeners.size) return;
    this.histories = new Map();
    this.panels = new Map();
    this.detail = null;
    this.model.set("levels", new DataView(new ArrayBuffer(0)));
    this.model.set("state", {config: {}});
  }

  // Whether it went off: there is nobody to send to once the kernel is gone.
  send(message) {
    try {
      this.model.send(message);
      return true;
    } catch {
      return false;
    }
  }
}

// Rows of a table panel by key, and the order in which the kernel ranks them.
class PanelData {
  constructor() {
    this.version = 0;
  }

  // Take everything anew.
  fill({rows, order, details, sparks, ...definition}) {
    this.definition = definition;
    this.rows = new Map(Object.entries(rows));
    this.details = new Map(Object.entries(details));
    this.sparks = new Map(Object.entries(sparks ?? {}));
    this.order = order;
    this.version += 1;
    return this;
  }

  apply({set = {}, order, details = {}}) {
    for (const [key, row] of Object.entries(set)) this.rows.set(key, row);
    for (const [key, detail] of Object.entries(details)) this.details.set(key, detail);
    if (order) {
      const kept = new Set(order);
      for (const map of [this.rows, this.details, this.sparks]) {
        for (const key of map.keys()) if (!kept.has(key)) map.delete(key);
      }
      this.order = order;
    }
    this.definition.columns.forEach((column) => column.kind === "spark" && this.remember(column));
    this.version += 1;
  }

  remember(column) {
    for (const [key, row] of this.rows) {
      const values = this.sparks.get(key) ?? [];
      values.push(row[column.of]);
      if (values.length > column.points) values.shift();
      this.sparks.set(key, values);
    }
  }
}

// One row per event: what lies below the tracked bytes is that of the sample at the time.
function detailedRows(history, [times, bytes], begin, end) {
  const samples = history.rows(begin, end, Infinity);
  const rows = [];
  for (let n = 0; n < times.length && samples.length; n += 1) {
    const until = times[n + 1] ?? Math.max(end, times[n]);
    if (until < begin || times[n] > end) continue;
    const row = history.at(samples, times[n]).slice();
    row[BEGIN] = times[n];
    row[END] = until;
    row[CACHED] = Math.min(row[CACHED], bytes[n]);
    row[LIVE] = bytes[n] - row[CACHED];
    row[LOW] = row[HIGH] = bytes[n];
    rows.push(row);
  }
  return rows;
}

const LONGEST_DETAIL_MS = 120e3;
const HOST = 255;
const MOST_KEYED = 500;

function historiesFrom(numbers, config) {
  const histories = new Map();
  const {columns} = config.history;
  for (const device of [...config.devices.map((each) => each.ordinal), HOST]) {
    histories.set(device, new Levels({...config.history, host: device === HOST}));
  }
  for (let at = 0; at < numbers.length; at += columns + 2) {
    const history = histories.get(numbers[at]);
    history?.place(numbers[at + 1], Array.from(numbers.subarray(at + 2, at + 2 + columns)));
  }
  return histories;
}

// Numbers (float64) out of what the kernel compressed.
async function unpacked(packed) {
  if (!packed || !packed.byteLength) return new Float64Array(0);
  return new Float64Array(await unzipped(packed));
}

async function unzipped(packed) {
  const bytes = new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
