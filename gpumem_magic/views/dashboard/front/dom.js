// Elements. Text is always text: nothing that came from the kernel is ever read as markup.

const FOCUSABLE = new Set(["button", "select", "input", "summary"]);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || (value === false && !key.startsWith("aria-"))) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : value);
  }
  // Or JupyterLab takes a key that is pressed here for a command of its own: "x" would cut the cell.
  if (FOCUSABLE.has(name) || "tabindex" in attributes) made.setAttribute("data-lm-suppress-shortcuts", "true");
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svgElement(name, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function badge(text, severity, hint) {
  return element("span", {class: `gm-badge gm-${severity}`, title: hint}, text);
}

function sparkline(values, width = 72, height = 18) {
  const svg = svgElement("svg", {width, height, class: "gm-spark", "aria-hidden": "true"});
  if (values.length < 2) return svg;
  const top = Math.max(...values, 1);
  const step = width / (values.length - 1);
  const y = (value) => (height - 1.5 - (height - 3) * (value / top)).toFixed(1);
  let path = `M0 ${y(values[0])}`;
  values.slice(1).forEach((value, n) => { path += `H${((n + 1) * step).toFixed(1)}V${y(value)}`; });
  svg.append(
    svgElement("path", {d: `${path}V${height}H0Z`, class: "gm-area"}),
    svgElement("path", {d: path, class: "gm-step", fill: "none"}),
  );
  return svg;
}

// A bar whose length is the share of `whole`, after its number.
function barCell(text, value, whole, kind) {
  const share = whole > 0 ? Math.min(Math.max(value / whole, 0), 1) : 0;
  const fill = share ? element("span", {class: `gm-fill gm-${kind}`, style: `width:${(100 * share).toFixed(1)}%`}) : "";
  return [element("span", {}, text), element("span", {class: "gm-bar", "aria-hidden": "true"}, fill)];
}
