// The figures: each reads the groups in view and draws itself into its section.
const LINES = 8; // in one plot; more are hard to distinguish
const TRAINED = 5; // training curves at first sight
const FEW = 10; // predictions below which the share that is right says little
const axisOf = (name) => ({ label: metrics.get(name).label });
const scaled = (summary, metric) => ({ mean: summary[0] * metric.scale, std: known(summary[1]) ? summary[1] * metric.scale : null });
// the numbers of single runs, as points of a figure
const each = (i, names) => runsOf[i].map((r) => names.map((name) => (name === null ? null : data.runs[r].values[state.protocol][name])))
  .filter((row, k) => row.every((v, at) => names[at] === null || known(v)))
  .map((row) => row.map((v, at) => (v === null ? null : v * metrics.get(names[at]).scale)));
const said = (summary, metric, n) => `${metric.label}: ${showSummary(summary, metric)} (n = ${n})`;

function section(id, show) {
  const node = byId(id);
  node.hidden = !show;
  const host = node.querySelector(".figures");
  host.replaceChildren();
  return host;
}

function drawSweeps() {
  const metric = metrics.get(state.metric);
  const inView = new Set(visible);
  const plots = data.sweeps.map((sweep) => {
    const series = sweep.families.map((family) => {
      const points = family.members.flatMap((i, place) => {
        const summary = summaryOf(data.groups[i], state.metric);
        if (!summary || !inView.has(i)) return [];
        const { mean, std } = scaled(summary, metric);
        return [{ x: family.x[place], y: mean, sy: std, each: each(i, [null, state.metric]).map(([, y]) => [family.x[place], y]), tip: `${family.label}, ${sweep.label} ${plainly(family.x[place])}\n${said(summary, metric, data.groups[i].n)}` }];
      });
      return { label: family.label + (family.along.length ? ` (${family.along.join(", ")} along)` : ""), points, line: true, dots: true };
    }).filter((s) => s.points.length > 1);
    return { sweep, series };
  }).filter(({ series }) => series.length);
  const host = section("sweeps", plots.length);
  for (const { sweep, series } of plots) {
    const shown = [...series].sort((a, b) => b.points.length - a.points.length).slice(0, LINES);
    const xs = [...new Set(shown.flatMap((s) => s.points.map((p) => p.x)))].sort((a, b) => a - b);
    plot(host, {
      title: `${metric.label} against ${sweep.label}`, series: shown, legend: true,
      x: { label: sweep.path, log: isLogarithmic(xs), ticks: xs.length <= 12 ? xs : null }, y: axisOf(state.metric),
      caption: `Line: mean over seeds; band: one standard deviation each way; small dots: single runs.${series.length > shown.length ? ` ${shown.length} of ${series.length} lines, the longest; the filter chooses others.` : ""}`,
    });
  }
}

// the curve that most groups have, test accuracy where it is among them
const recorded = (name) => Object.keys(data.training[name] || {}).length;
let curve = [data.main, "train/loss", ...Object.keys(data.training)].reduce((a, b) => (recorded(b) > recorded(a) ? b : a));
function drawTraining() {
  const of = data.training[curve];
  const metric = metrics.get(curve) || { label: curve, scale: 1, digits: 4, better: 0 };
  const order = of ? [...ranked(state.metric), ...visible.filter((i) => !summaryOf(data.groups[i], state.metric))].filter((i) => of[i]) : [];
  const host = section("training", Object.keys(data.training).length);
  if (!order.length) {
    host.append(el("p", { class: "note" }, "No group in view recorded this curve."));
    return;
  }
  const shown = order.slice(0, TRAINED);
  byId("training-note").textContent = "Line: mean over seeds; band: one standard deviation each way, none for a single run."
    + (order.length > shown.length ? ` ${shown.length} of ${order.length} groups, first by ${metrics.get(orderOf(state.metric)).label}; the filter chooses others.` : "");
  const series = shown.map((i) => {
    const [x, mean, std] = of[i];
    return { label: data.groups[i].label, line: true, points: x.map((e, k) => ({
      x: e, y: mean[k] * metric.scale, sy: known(std[k]) ? std[k] * metric.scale : null,
    })) };
  });
  plot(host, { title: `${metric.label} while training`, x: { label: "epoch" }, y: { label: metric.label }, series, legend: true, height: Math.min(420, Math.max(240, innerWidth * 0.34)) });
}

function scatter(host, xName, note, log) {
  const [mx, my] = [metrics.get(xName), metrics.get(state.metric)];
  if (!mx || !my || xName === state.metric) return;
  const points = ranked(state.metric).filter((i) => summaryOf(data.groups[i], xName)).map((i) => {
    const group = data.groups[i];
    const [sx, sy] = [summaryOf(group, xName), summaryOf(group, state.metric)];
    const [x, y] = [scaled(sx, mx), scaled(sy, my)];
    return { x: x.mean, y: y.mean, sx: log ? null : x.std, sy: y.std, each: each(i, [xName, state.metric]), name: group.label, colour: group.teaches ? "#8d98a3" : null,
      tip: `${group.label}\n${said(sx, mx, group.n)}\n${said(sy, my, group.n)}` };
  });
  if (points.length < 2) return;
  plot(host, { title: `${my.label} against ${mx.label}`, x: { label: mx.label, log }, y: axisOf(state.metric), caption: note,
    names: points.length <= 24, series: [{ label: "groups", points, dots: true, bars: points.length <= 60 }] });
}

function drawTradeoffs() {
  const host = section("tradeoffs", true);
  const spread = (name) => isLogarithmic(visible.map((i) => summaryOf(data.groups[i], name)?.[0]).filter((v) => v > 0));
  scatter(host, data.fidelity, "How closely the student follows its teacher, against how good it is.", false);
  const together = visible.some((i) => runsOf[i].some((r) => data.runs[r].together > 1));
  scatter(host, "seconds", "What a run costs, with its evaluations."
    + (together ? " Some trained together with others: their times include a share of the common data and teacher, and are not comparable." : ""), spread("seconds"));
  if (!host.children.length) byId("tradeoffs").hidden = true;
}

// the runs' own, as in the table: that of all their predictions together is smaller, since errors of both signs cancel
function eceOf(role, bins) {
  const own = data.groups[chosen].values.last["test/ece"];
  if (role === "student") return own ? `, ECE ${showSummary(own, metrics.get("test/ece"))} %` : "";
  if (new Set(runsOf[chosen].map((r) => data.runs[r].teacher)).size > 1) return "";
  const total = bins.reduce((sum, [n]) => sum + n, 0);
  return `, ECE ${(100 * bins.reduce((sum, [n, confidence, correct]) => sum + (n / total) * Math.abs(confidence - correct), 0)).toFixed(2)} %`;
}

let chosen = null;
function drawPredictions() {
  const have = ranked(state.metric).filter((i) => data.reliability[i]);
  const host = section("predictions", have.length);
  if (!have.length) return;
  if (!have.includes(chosen)) chosen = have.find((i) => data.confusion[i]) ?? have[0];
  options(byId("predicted"), have.map((i) => [i, data.groups[i].label]), chosen);
  const by = data.reliability[chosen];
  const series = ["student", "teacher"].filter((role) => by[role]).map((role, k) => {
    const total = by[role].reduce((sum, [n]) => sum + n, 0);
    return { label: role + eceOf(role, by[role]), line: true, dots: true, style: [["#2a6f97", ""], ["#8d98a3", ""]][k],
      points: by[role].map(([n, confidence, correct]) => ({ x: confidence, y: correct, r: 2 + 5 * Math.sqrt(n / total), pale: n < FEW,
        tip: `${role}: ${n.toLocaleString("en").replaceAll(",", "\u202f")} predictions\nmean confidence ${confidence.toFixed(3)}, of which right ${correct.toFixed(3)}` })) };
  });
  plot(host, { title: "Reliability", heading: "Reliability", series, diagonal: true, legend: true, x: { label: "confidence", range: [0, 1] }, y: { label: "share that is right", range: [0, 1] },
    height: 340, caption: `Test predictions of all seeds in bins of confidence; a dot's area is their share, and bins of fewer than ${FEW} are pale. Above the dashed line a network is right oftener than it says, below it less often.` });
  const confusion = data.confusion[chosen];
  if (confusion) host.append(confusion.matrix ? heatmap(confusion) : pairs(confusion));
}

function drawPictures() {
  const have = ranked(state.metric).filter((i) => data.pictures[i]);
  section("pictures", have.length)?.append(...have.map((i) => el("figure", {}, el("figcaption", {}, data.groups[i].label), el("img", { src: data.pictures[i], alt: `objects and detections, ${data.groups[i].label}` }))));
}

const percent = (share, sign) => (sign && share > 0 ? "+" : share < 0 ? "\u2212" : "") + Math.abs(100 * share).toFixed(1) + " %";

function heatmap({ classes, matrix }) {
  const [cell, left, top] = [100 / (classes + 1.2), 100 / (classes + 1.2), 100 / (classes + 1.2)];
  const most = Math.max(...matrix.flat().map(Math.abs)) || 1;
  const root = svg("svg", { viewBox: "0 0 100 100", role: "img", "aria-label": "Confusion, student minus teacher", style: "max-width: 24rem; font-size: 3px" });
  matrix.forEach((row, label) => {
    root.append(svg("text", { x: left - 1.5, y: top + (label + 0.5) * cell + 1, "text-anchor": "end" }, label));
    root.append(svg("text", { x: left + (label + 0.5) * cell, y: top - 1.5, "text-anchor": "middle" }, label));
    row.forEach((change, prediction) => {
      const box = svg("rect", { x: left + prediction * cell, y: top + label * cell, width: cell * 0.94, height: cell * 0.94, rx: 0.4,
        fill: change === 0 ? "#f1f3f4" : change > 0 ? "#2a6f97" : "#4a5560", "fill-opacity": change === 0 ? 1 : 0.12 + 0.88 * Math.sqrt(Math.abs(change) / most) });
      root.append(tipped(box, `class ${label} taken for ${prediction}\n${percent(change, true)} of its examples, student minus teacher`));
    });
  });
  return el("figure", {}, el("h3", {}, "Confusion, student minus teacher"), root,
    el("figcaption", {}, `Rows are classes, columns predictions. Blue: the student does it oftener; grey: the teacher does. The strongest cell is ${percent(most)} of a class.`));
}

function pairs({ pairs: rows }) {
  const most = Math.max(...rows.map(([, , ours, theirs]) => Math.abs(ours - theirs))) || 1;
  const bars = rows.flatMap(([label, prediction, ours, theirs]) => [
    el("span", {}, `${label} \u2192 ${prediction}`),
    tipped(el("i", { class: ours < theirs ? "less" : null, style: `width: ${(100 * Math.abs(ours - theirs)) / most}%` }), `class ${label} taken for ${prediction}\nstudent ${percent(ours)}, teacher ${percent(theirs)} of its examples`),
    el("span", {}, percent(ours - theirs, true)),
  ]);
  return el("figure", {}, el("h3", {}, "Confusion, student minus teacher"), el("div", { class: "bars" }, bars),
    el("figcaption", {}, "The mistakes that differ most: class \u2192 prediction, in shares of the class. Grey: the teacher makes it oftener."));
}
