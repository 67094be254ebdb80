// The data, the state of the page, and words that the other parts share.
const data = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(data.metrics.map((m) => [m.name, m]));
const byId = (id) => document.getElementById(id);
const state = {
  filter: "",
  metric: metrics.has(data.main) ? data.main : data.metrics[0].name,
  protocol: "last",
};
const watchers = [];
const changed = () => watchers.forEach((watcher) => watcher());

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

const summaryOf = (group, metric) => group.values[state.protocol][metric];
const known = (value) => value !== null && value !== undefined;
const plainly = (value) =>
  !known(value) ? "\u2013" : typeof value === "number" ? String(+value.toPrecision(6)) : Array.isArray(value) ? value.join(", ") : String(value);

function show(value, metric, digits = metric.digits) {
  if (!known(value)) return "\u2013";
  const text = Math.abs(value * metric.scale).toFixed(digits);
  const grouped = digits === 0 ? text.replace(/\B(?=(\d{3})+$)/g, "\u202f") : text;
  return (value < 0 && /[1-9]/.test(text) ? "\u2212" : "") + grouped; // zero has no sign
}

// two digits of the spread, as in the tables
function digitsOf(summary, metric) {
  const spread = known(summary[1]) ? summary[1] * metric.scale : 0;
  return spread > 0 ? Math.min(metric.digits, Math.max(0, 1 - Math.floor(Math.log10(spread)))) : metric.digits;
}

function showSummary(summary, metric) {
  if (!summary) return "\u2013";
  const digits = digitsOf(summary, metric);
  return show(summary[0], metric, digits) + (known(summary[1]) ? " \u00b1 " + show(summary[1], metric, digits) : "");
}

// "kd temperature>=4 n>2": every word must fit; a word without a comparison is looked for in the names
function matches(group, text) {
  const name = (group.label + " " + Object.values(group.facts).map(plainly).join(" ") + (group.teaches ? " is-teacher" : "")).toLowerCase();
  return text.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const found = /^(.+?)(>=|<=|!=|=|>|<)(.*)$/.exec(word);
    if (!found) return name.includes(word);
    const [, key, sign, wanted] = found;
    if (wanted === "") return true; // not typed yet
    const value = lookUp(group, key);
    if (value === undefined) return sign === "!=";
    const [a, b] = [Number(value), Number(wanted)];
    const numbers = value !== null && !Number.isNaN(a) && !Number.isNaN(b);
    const same = numbers ? a === b : plainly(value).toLowerCase() === wanted;
    if (sign === "=") return same;
    if (sign === "!=") return !same;
    return numbers && { ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b }[sign];
  });
}

function lookUp(group, key) {
  if (key === "n") return group.n;
  const knob = data.knobs.find((k) => k.path === key);
  const fact = Object.keys(group.facts).find((name) => name.toLowerCase() === key || (knob && knob.label === name));
  if (fact !== undefined && known(group.facts[fact])) return group.facts[fact];
  const common = data.common[key];
  if (common !== undefined) return common;
  // "top1>96.5" compares what the table shows
  const metric = data.metrics.find((m) => m.name === key || m.name.endsWith("/" + key));
  const summary = metric && summaryOf(group, metric.name);
  return summary ? summary[0] * metric.scale : undefined;
}

let visible = data.groups.map((_, i) => i);
function refilter() {
  visible = data.groups.map((_, i) => i).filter((i) => matches(data.groups[i], state.filter));
}

// a metric of the test set is ordered by its value on validation, where that was measured: choosing on test is optimistic
const orderOf = (metric) => (metric.startsWith("test/") && metrics.has("val/" + metric.slice(5)) ? "val/" + metric.slice(5) : metric);

// the groups in view, best first; teachers come after the runs that learn from them
function ranked(metric) {
  const sign = (metrics.get(metric) || { better: 1 }).better || 1;
  const by = orderOf(metric);
  const place = (i) => (summaryOf(data.groups[i], by) ? -sign * summaryOf(data.groups[i], by)[0] : Infinity);
  return visible
    .filter((i) => summaryOf(data.groups[i], metric))
    .sort((a, b) => data.groups[a].teaches - data.groups[b].teaches || (place(a) === place(b) ? a - b : place(a) - place(b)));
}

const tip = byId("tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16;
  tip.style.left = Math.max(8, x) + "px";
  tip.style.top = y + "px";
}
const hideTip = () => { tip.hidden = true; };
function tipped(node, text) {
  node.addEventListener("pointermove", (event) => showTip(event, text));
  node.addEventListener("pointerleave", hideTip);
  return node;
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text)));
}
