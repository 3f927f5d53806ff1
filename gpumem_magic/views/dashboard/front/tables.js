// Tables of the panels: sorted, filtered and grouped in the page, so that they answer while the kernel is busy.

const MOST_ROWS = 200;

const FORMATS = {
  bytes: (value) => formatSize(value),
  signed: (value) => formatSize(value, true),
  count: formatCount,
  seconds: formatSeconds,
};
const NUMERIC = new Set([...Object.keys(FORMATS), "age", "spark", "growth", "clock"]);

class Table {
  // `now` tells the kernel's time in ms.
  constructor({panel, onLink, now}) {
    this.panel = panel;
    this.definition = panel.definition;
    this.onLink = onLink;
    this.now = now;
    this.ages = []; // [element, birth]
    this.sort = null; // [column key, 1 or -1]; as the kernel ranks them when null
    this.group = "";
    this.filter = "";
    this.only = null; // {column, value} set by a link from another panel
    this.opened = new Set();
    this.shown = {version: -1};
    this.element = this.build();
  }

  build() {
    const {title, columns, groups, hint} = this.definition;
    this.search = element("input", {
      type: "search", class: "gm-search", placeholder: "filter", "aria-label": `Filter ${title}`,
      oninput: () => this.change({filter: this.search.value.toLowerCase()}),
    });
    this.grouping = groups.length ? element("select", {
      class: "gm-select", "aria-label": `Group ${title} by`,
      onchange: () => this.change({group: this.grouping.value}),
    }, element("option", {value: ""}, "no grouping"),
      ...groups.map(([key, label]) => element("option", {value: key}, `by ${label}`))) : null;
    this.chip = element("button", {class: "gm-chip", hidden: true, onclick: () => this.change({only: null})});
    this.heads = columns.map((column) => this.head(column));
    this.body = element("tbody");
    this.rest = element("p", {class: "gm-quiet"});
    const table = element("table", {class: "gm-table gm-livetable"},
      element("caption", {}, hint), element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    this.scroller = element("div", {class: "gm-scroll gm-tall", tabindex: 0, role: "group", "aria-label": title}, table);
    return element("div", {class: "gm-tablepanel"},
      element("div", {class: "gm-tools"}, this.search, this.grouping, this.chip,
        element("span", {class: "gm-quiet gm-hint"}, hint)),
      this.scroller, this.rest);
  }

  head(column) {
    const button = element("button", {
      class: "gm-sort", title: column.hint, onclick: () => this.sortBy(column),
    }, column.title);
    return element("th", {scope: "col", class: this.kindClass(column)}, button);
  }

  kindClass(column) {
    const classes = [NUMERIC.has(column.kind) ? "num" : "", column.bar ? "bars" : "", column.wide ? "wide" : "",
      column.minor ? "gm-minor" : "", column.spare ? "gm-spare" : ""];
    return classes.filter(Boolean).join(" ") || null;
  }

  sortBy(column) {
    const first = NUMERIC.has(column.kind) ? -1 : 1;
    const [key, direction] = this.sort ?? [];
    const next = key !== column.key ? [column.key, first] : direction === first ? [column.key, -first] : null;
    this.change({sort: next});
  }

  change(settings) {
    Object.assign(this, settings);
    this.shown.version = -1;
    this.draw();
  }

  link(filter) {
    this.change({only: filter});
  }

  // Draw what changed since it was drawn last; a table out of sight is not drawn.
  draw() {
    if (!this.element.isConnected) return;
    const changed = this.shown.version !== this.panel.version;
    // To ask for the selection makes the browser lay out the page, so it is asked only if something hangs on it.
    if ((changed || this.held) && this.isHeld()) return;
    if (this.shown.version === this.panel.version) {
      for (const [cell, birth] of this.ages) setText(cell, this.age(birth));
      return;
    }
    this.shown.version = this.panel.version;
    this.ages = [];
    const rows = this.arranged();
    this.heads.forEach((head, n) => {
      const [key, direction] = this.sort ?? [];
      const mine = this.definition.columns[n].key === key;
      head.setAttribute("aria-sort", mine ? (direction > 0 ? "ascending" : "descending") : "none");
    });
    this.chip.hidden = !this.only;
    if (this.only) setText(this.chip, `${this.only.label} ×`);
    const focus = this.focused();
    const wholes = this.wholes(rows);
    this.body.replaceChildren(...rows.slice(0, MOST_ROWS).flatMap((row) => this.rowElements(row, wholes)));
    if (!rows.length) this.body.append(this.emptyRow());
    const more = rows.length - MOST_ROWS;
    setText(this.rest, more > 0 ? `and ${formatCount(more)} more: filter or group to see them` : "");
    if (focus) this.refocus(focus);
  }

  // Rows in which text is selected stay, so that it can be copied; unless the reader asked for others.
  isHeld() {
    const selection = document.getSelection();
    const held = this.shown.version !== -1 && selection && !selection.isCollapsed &&
      this.body.contains(selection.anchorNode);
    if (held) setText(this.rest, "not redrawn while text in it is selected");
    else if (this.held) this.shown.version = -1;
    this.held = held;
    return held;
  }

  // Which button of which row has the focus.
  focused() {
    const active = document.activeElement;
    const row = this.body.contains(active) ? active.closest("tr") : null;
    return row && {key: row.dataset.key, place: [...row.querySelectorAll("button")].indexOf(active)};
  }

  // Give it back, and do not scroll to it: the reader may look elsewhere.
  refocus({key, place}) {
    const row = this.body.querySelector(`tr[data-key="${CSS.escape(key)}"]`);
    (row?.querySelectorAll("button")[place] ?? this.scroller).focus({preventScroll: true});
  }

  age(birth) {
    return formatAge(Math.max(this.now() - birth, 0) / 1000);
  }

  emptyRow() {
    const text = this.panel.order.length ? "Nothing matches the filter." : this.definition.empty;
    return element("tr", {}, element("td", {class: "gm-quiet", colspan: this.definition.columns.length}, text));
  }

  wholes(rows) {
    const highest = {};
    for (const column of this.definition.columns) {
      if (column.bar) highest[column.key] = Math.max(0, ...rows.map((row) => Math.abs(row.cells[column.key] ?? 0)));
    }
    return highest;
  }

  // Rows as they are shown: {key, cells, detail, children}.
  arranged() {
    const {panel} = this;
    const tops = [], children = new Map();
    const found = new Set(panel.order.filter((key) => panel.rows.has(key) && this.matches(panel.rows.get(key))));
    for (const key of found) {
      const cells = panel.rows.get(key);
      const row = {key, cells, detail: panel.details.get(key), spark: panel.sparks.get(key), children: []};
      if (found.has(cells.parent) && !this.group) {
        children.set(cells.parent, [...(children.get(cells.parent) ?? []), row]);
      } else {
        tops.push(row);
      }
    }
    const nest = (rows) => rows.forEach((row) => {
      row.children = this.sorted(children.get(row.key) ?? []);
      nest(row.children);
    });
    nest(tops);
    return this.sorted(this.group ? this.grouped(tops) : tops);
  }

  matches(cells) {
    if (this.only && cells[this.only.column] !== this.only.value) return false;
    if (!this.filter) return true;
    return Object.values(cells).some((value) => typeof value === "string" && value.toLowerCase().includes(this.filter));
  }

  sorted(rows) {
    if (!this.sort) return rows;
    const [key, direction] = this.sort;
    const column = this.definition.columns.find((each) => each.key === key);
    const values = new Map(rows.map((row) => [row, this.sortValue(row, column)]));
    return [...rows].sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
      return direction * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
    });
  }

  // What a row is sorted by; null where it has nothing.
  sortValue(row, {key, kind}) {
    if (kind === "growth") return growth(row.spark);
    if (kind === "spark") return row.spark?.at(-1) ?? null;
    const value = row.cells[key] ?? null;
    return kind === "age" && value !== null ? -value : value; // the later it was born, the less old it is
  }

  // One row per value of the chosen attribute: numbers that add up are added, of the others the largest is kept; of
  // births the earliest.
  grouped(rows) {
    const groups = new Map();
    for (const row of rows) {
      const name = row.cells[this.group] ?? "";
      groups.set(name, [...(groups.get(name) ?? []), row]);
    }
    const made = [...groups].map(([name, members]) => {
      const cells = {[this.definition.columns[0].key]: name || "(unknown)"};
      for (const column of this.definition.columns.slice(1)) {
        const values = members.map((row) => row.cells[column.key]).filter((value) => typeof value === "number");
        if (!values.length) continue;
        const most = column.kind === "age" ? Math.min : Math.max;
        cells[column.key] = column.adds ? values.reduce((sum, value) => sum + value, 0) : most(...values);
      }
      const spark = added(members.map((row) => row.spark ?? []));
      return {key: `group ${name}`, cells, spark, children: members};
    });
    const rank = this.definition.rank;
    return made.sort((a, b) => (b.cells[rank] ?? 0) - (a.cells[rank] ?? 0));
  }

  rowElements(row, wholes, depth = 0) {
    const open = this.opened.has(row.key);
    const unfolds = row.children?.length > 0 || row.detail?.length > 0;
    const made = this.definition.columns.map((column, n) => {
      const content = this.cell(column, row, wholes);
      const cell = element(n ? "td" : "th", {class: this.kindClass(column), scope: n ? null : "row"});
      if (n === 0) cell.append(this.firstCell(row, content, {open, unfolds, depth}));
      else cell.append(...content);
      const value = row.cells[column.key];
      if (column.kind === "age" && typeof value === "number") this.ages.push([cell, value]);
      if (typeof value === "number" && ["bytes", "signed"].includes(column.kind)) cell.title = exactBytes(value);
      return cell;
    });
    const elements = [element("tr", {dataset: {key: row.key}, class: depth ? "gm-nested" : null}, ...made)];
    if (open && row.detail?.length) elements.push(this.detailRow(row));
    if (open) for (const child of row.children ?? []) elements.push(...this.rowElements(child, wholes, depth + 1));
    return elements;
  }

  firstCell(row, content, {open, unfolds, depth}) {
    const toggle = () => {
      if (!this.opened.delete(row.key)) this.opened.add(row.key);
      this.change({});
    };
    const name = element("span", {class: "gm-code", title: row.cells.title ?? null}, ...content);
    const marks = (row.cells.badges ?? []).map(([text, severity, hint]) => badge(text, severity, hint));
    const link = row.cells.link ? element("button", {
      class: "gm-linkbutton", title: row.cells.link.hint, onclick: () => this.onLink(row.cells.link),
    }, row.cells.link.text) : null;
    const button = unfolds ? element("button", {
      class: "gm-unfold", "aria-expanded": open, "aria-label": `${open ? "Fold" : "Unfold"} ${row.cells.name ?? ""}`,
      onclick: toggle,
    }, open ? "▾" : "▸") : element("span", {class: "gm-unfold", "aria-hidden": true});
    const wrapped = element("span", {class: "gm-first", style: `padding-left:${depth * 16}px`});
    wrapped.append(button, name, ...marks, ...(link ? [link] : []));
    return wrapped;
  }

  detailRow(row) {
    const lines = row.detail.map(([label, text]) => element("li", {},
      element("span", {class: "gm-code"}, label),
      text ? element("code", {class: "gm-source"}, text) : null));
    return element("tr", {class: "gm-detail"},
      element("td", {colspan: this.definition.columns.length}, element("ol", {class: "gm-stack"}, ...lines)));
  }

  cell(column, row, wholes) {
    if (column.kind === "spark") return [sparkline(row.spark ?? [])];
    const value = column.kind === "growth" ? growth(row.spark) : row.cells[column.key];
    if (value === null || value === undefined) return ["–"];
    if (column.kind === "growth") return [value ? formatSize(value, true) : "0"];
    if (column.kind === "clock") return [formatClock(value)];
    if (column.kind === "age") return [this.age(value)];
    const text = FORMATS[column.kind]?.(value) ?? String(value);
    return column.bar ? barCell(text, Math.abs(value), wholes[column.key], column.bar) : [text];
  }
}

const growth = (spark) => (spark?.length > 1 ? spark[spark.length - 1] - spark[0] : null);

function added(lists) {
  const length = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({length}, (_, n) =>
    lists.reduce((sum, list) => sum + (list[list.length - length + n] ?? 0), 0));
}
