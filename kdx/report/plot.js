// Plots as SVG at the size they are shown in, so that type stays the same on any screen.
const SERIES = [["#2a6f97", ""], ["#1b242c", ""], ["#8d98a3", ""], ["#7fb2d0", ""], ["#2a6f97", "5 3"], ["#1b242c", "5 3"], ["#8d98a3", "5 3"], ["#7fb2d0", "5 3"]];

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) if (known(value)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= rough - 1e-12);
  const list = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) list.push(+(k * step).toPrecision(12));
  return list;
}

function logTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const list = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    for (const k of [1, 2, 5]) if (k * power >= low * 0.999 && k * power <= high * 1.001) list.push(k * power);
  return list.length > 1 ? list : [low, high];
}

const tickText = (value) => (Math.abs(value) >= 10000 ? value.toLocaleString("en").replaceAll(",", "\u202f") : String(+value.toPrecision(6))).replace("-", "\u2212");

function extent(values, pad) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - (Math.abs(low) * 0.1 || 1), high + (Math.abs(high) * 0.1 || 1)];
  return [low - (high - low) * pad, high + (high - low) * pad];
}

// a sweep over 1, 2, 4, 8 or 0.1, 0.3, 1 reads best on a logarithmic axis
function isLogarithmic(values) {
  const sorted = [...new Set(values)].sort((a, b) => a - b);
  return sorted[0] > 0 && sorted.length > 2 && sorted.at(-1) / sorted[0] >= 8;
}

// spec: {title, x: {label, log, ticks, range}, y: {label, range}, series: [{label, points: [{x, y, sx, sy, tip}], dots, line, label}], diagonal, height}
function plot(host, spec) {
  const figure = el("figure");
  const draw = () => {
    const width = Math.max(240, figure.clientWidth || host.clientWidth || 480);
    const height = spec.height || Math.min(340, Math.max(230, width * 0.62));
    const points = spec.series.flatMap((s) => s.points);
    const log = spec.x.log;
    const fx = (v) => (log ? Math.log(v) : v);
    const single = points.flatMap((p) => p.each || []);
    const xs = spec.x.range || extent([...points.flatMap((p) => [fx(p.x) - (p.sx || 0), fx(p.x) + (p.sx || 0)]), ...single.map(([x]) => fx(x))], spec.series.some((s) => s.line) ? 0.02 : 0.06);
    const ys = spec.y.range || extent([...points.flatMap((p) => [p.y - (p.sy || 0), p.y + (p.sy || 0)]), ...single.map(([, y]) => y)], 0.06);
    const yTicks = ticks(ys[0], ys[1], height / 55);
    const left = 14 + 7 * Math.max(...yTicks.map((t) => tickText(t).length));
    const [right, top, bottom] = [12, 26, 40];
    const px = (v) => left + ((fx(v) - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
    const py = (v) => height - bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": spec.title });
    root.append(svg("text", { x: 0, y: 12, class: "title" }, spec.y.label));
    for (const t of yTicks) {
      root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: py(t), y2: py(t) }));
      root.append(svg("text", { x: left - 8, y: py(t) + 4, "text-anchor": "end" }, tickText(t)));
    }
    let last = -Infinity;
    for (const t of spec.x.ticks || (log ? logTicks(points.map((p) => p.x)) : ticks(xs[0], xs[1], (width - left) / 75))) {
      const half = tickText(t).length * 3.5;
      root.append(svg("line", { class: "axis", x1: px(t), x2: px(t), y1: height - bottom, y2: height - bottom + 4 }));
      if (px(t) - half < last + 6) continue;
      last = px(t) + half;
      root.append(svg("text", { x: px(t), y: height - bottom + 18, "text-anchor": "middle" }, tickText(t)));
    }
    root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    root.append(svg("text", { x: width - right, y: height - 4, "text-anchor": "end", class: "title" }, spec.x.label));
    if (spec.diagonal) root.append(svg("line", { class: "axis", "stroke-dasharray": "3 3", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }));
    // the first series lies on top
    const layers = spec.series.map((s, i) => drawSeries(s, i, px, py, spec));
    root.append(...[...layers].reverse());
    if (spec.names && width >= 420) placeNames(root, spec.series[0].points, px, py, width, height - bottom);
    figure.replaceChildren(...(spec.heading ? [el("h3", {}, spec.heading)] : []), root, ...legend(spec, layers), ...(spec.caption ? [el("figcaption", {}, spec.caption)] : []));
  };
  host.append(figure);
  draw();
  sizes.observe(figure);
  redraws.set(figure, draw);
  widths.set(figure, figure.clientWidth);
  return figure;
}

const [redraws, widths] = [new WeakMap(), new WeakMap()];
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.clientWidth && Math.abs(target.clientWidth - widths.get(target)) > 1) {
      widths.set(target, target.clientWidth);
      requestAnimationFrame(() => redraws.get(target)());
    }
  }
});

function drawSeries(series, place, px, py, spec) {
  const [colour, dash] = series.style || SERIES[place % SERIES.length];
  const layer = svg("g", { class: "series" });
  const path = (points, y) => points.map((p, i) => `${i ? "L" : "M"}${px(p.x).toFixed(1)} ${py(y(p)).toFixed(1)}`).join("");
  if (series.line) {
    const banded = series.points.filter((p) => known(p.sy));
    if (banded.length > 1) {
      const back = path([...banded].reverse(), (p) => p.y - p.sy).replace("M", "L");
      layer.append(svg("path", { d: path(banded, (p) => p.y + p.sy) + back + "Z", fill: colour, opacity: 0.12 }));
    }
    layer.append(svg("path", { d: path(series.points.filter((p) => !p.pale), (p) => p.y), fill: "none", stroke: colour, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": dash || null }));
  }
  for (const p of series.points) {
    const dot = svg("g");
    const [x, y] = [px(p.x), py(p.y)];
    if (series.bars) {
      if (known(p.sy)) dot.append(svg("line", { x1: x, x2: x, y1: py(p.y - p.sy), y2: py(p.y + p.sy), stroke: p.colour || colour, opacity: 0.45 }));
      if (known(p.sx)) dot.append(svg("line", { y1: y, y2: y, x1: px(p.x - p.sx), x2: px(p.x + p.sx), stroke: p.colour || colour, opacity: 0.45 }));
    }
    for (const [ex, ey] of p.each || []) dot.append(svg("circle", { class: "run", cx: px(ex), cy: py(ey), r: 1.7, fill: p.colour || colour, opacity: 0.45 }));
    if (series.dots) dot.append(svg("circle", { cx: x, cy: y, r: p.r || 3.5, fill: p.colour || colour, opacity: p.pale ? 0.4 : null }));
    if (p.tip) tipped(dot, p.tip).append(svg("circle", { cx: x, cy: y, r: 9, fill: "transparent" }));
    layer.append(dot);
  }
  return layer;
}

function legend(spec, layers) {
  if (spec.series.length < 2 && !spec.legend) return [];
  const items = spec.series.map((s, i) => {
    const [colour, dash] = s.style || SERIES[i % SERIES.length];
    const swatch = svg("svg", { viewBox: "0 0 24 10" }, svg("line", { x1: 0, x2: 24, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.2, "stroke-dasharray": dash || null }));
    const fade = (on) => layers.forEach((layer, j) => layer.classList.toggle("dimmed", on && j !== i));
    return el("li", { onpointerenter: () => fade(true), onpointerleave: () => fade(false) }, swatch, s.label);
  });
  return [el("ul", { class: "legend" }, items)];
}

// names beside the dots, where there is room; the others appear on hovering
function placeNames(root, points, px, py, width, floor) {
  const taken = points.map((p) => [px(p.x) - 5, py(p.y) - 5, px(p.x) + 5, py(p.y) + 5]);
  const clash = (box) => taken.some((o) => box[0] < o[2] && box[2] > o[0] && box[1] < o[3] && box[3] > o[1]);
  for (const p of points) {
    const long = p.name.length * 6.1;
    const [x, y] = [px(p.x), py(p.y)];
    // beside the bars, which would strike a name out
    const places = [[x + 7, y - 6, "start"], [x - 7, y - 6, "end"], [x + 7, y + 15, "start"], [x - 7, y + 15, "end"]];
    for (const [tx, ty, anchor] of places) {
      const start = anchor === "start" ? tx : anchor === "end" ? tx - long : tx - long / 2;
      const box = [start, ty - 10, start + long, ty + 3];
      if (box[0] < 30 || box[2] > width || box[1] < 18 || box[3] > floor || clash(box)) continue;
      taken.push(box);
      root.append(svg("text", { x: tx, y: ty, "text-anchor": anchor, class: "name" }, p.name));
      break;
    }
  }
}
