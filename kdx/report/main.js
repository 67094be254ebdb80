// The page's head and foot, and what its controls do.
function count(n, noun) {
  return `${String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f")} ${noun}${n === 1 ? "" : "s"}`;
}

function duration(seconds) {
  const units = [[86400, "days"], [3600, "hours"], [60, "minutes"]];
  const [size, unit] = units.find(([s]) => seconds >= 2 * s) || [1, "seconds"];
  return `${(seconds / size).toFixed(seconds / size < 10 ? 1 : 0)} ${unit}`;
}

function drawHead() {
  const distinct = (key) => [...new Set(data.runs.map(key))].sort();
  const seeds = distinct((run) => run.seed);
  byId("lead").textContent = `${count(data.runs.length, "finished run")} in ${count(data.groups.length, "group")}; a group is one experiment, repeated over seeds.`;
  const commits = distinct((run) => (run.commit ? run.commit + (run.dirty ? " with local changes" : "") : "outside a checkout"));
  const few = (list) => (list.length <= 3 ? list.join("; ") : `${list.slice(0, 2).join("; ")}; and ${list.length - 2} more`);
  const facts = [
    ...["dataset", "method", "teacher", "student"].filter((part) => data.common[part]).map((part) => [part, data.common[part]]),
    ["seeds", seeds.length > 8 ? `${seeds.length}, ${seeds[0]} to ${seeds.at(-1)}` : seeds.join(", ")],
    ["training time", duration(data.runs.reduce((sum, run) => sum + (run.values.last.seconds || 0), 0))],
    ["hardware", few(distinct((run) => run.device))],
    ["software", few(distinct((run) => run.versions))],
    ["commit", few(commits)],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  const missing = [
    [data.failed.length && `${count(data.failed.length, "run")} failed`, data.failed],
    [data.unfinished.length > data.failed.length && `${count(data.unfinished.length - data.failed.length, "run")} not finished`, data.unfinished.filter((name) => !data.failed.includes(name))],
    [data.problems.length && `${count(data.problems.length, "directory").replace("directorys", "directories")} cannot be read`, data.problems],
  ].filter(([line]) => line);
  if (missing.length) {
    byId("warnings").replaceChildren(el("div", { class: "warning" }, "Left out of every number here:", ...missing.map(([line, names]) =>
      el("details", {}, el("summary", {}, line), el("ul", {}, names.map((name) => el("li", { class: "mono" }, name)))))));
  }
  byId("footer").textContent = "Mean \u00b1 sample standard deviation over n seeds; hovering shows the 95 % interval of the mean over seeds, for this test set. "
    + "Fractions are shown in percent; an arrow points to better numbers. Differences between two groups: kdx compare. "
    + `Last run finished ${distinct((run) => run.finished).at(-1).replace("T", " ").replace("Z", "")} UTC.`;
}

const groupTable = table(byId("results"), {
  columns: groupColumns, rows: () => visible, detail: groupDetail, key: (i) => "group" + i,
  sort: { key: chosenColumns.has(orderOf(state.metric)) ? orderOf(state.metric) : state.metric, direction: metrics.get(state.metric).better < 0 ? 1 : -1 },
});
const runTable = table(byId("runs"), {
  columns: () => [
    { key: "label", label: "group", first: true, value: (i) => data.groups[data.runs[i].group].label },
    { key: "seed", label: "seed", number: true, value: (i) => data.runs[i].seed },
    ...runColumns([state.metric, ...data.costs.filter((c) => metrics.has(c) && c !== state.metric)]),
  ],
  rows: () => visible.flatMap((i) => runsOf[i]), key: (i) => "every" + i, sort: { key: "label", direction: 1 },
});

watchers.push(refilter, groupTable, () => { if (byId("every").open) runTable(); }, drawSweeps, drawTraining, drawTradeoffs, drawPredictions, drawPictures, () => {
  byId("shown").textContent = visible.length === data.groups.length ? count(visible.length, "group") : `${visible.length} of ${count(data.groups.length, "group")}`;
  const few = visible.some((i) => data.groups[i].n < 3) ? " Where n is below 3 the spread says little." : "";
  const bold = data.groups.some((g) => g.chosen)
    ? "Bold: the choice that each search makes on validation, in whose order the rows stand; the best on test is no choice."
    : "Rows stand in the order of their means, which is no ranking: bold are all whose 95 % interval over seeds reaches that of the best mean.";
  byId("table-note").textContent = `Numbers of ${data.protocols[state.protocol]}. A click on a row shows its runs, with cost, commit and hardware; a click on a heading sorts. ${bold}${few}`;
});

options(byId("metric"), data.metrics.filter((m) => !data.costs.includes(m.name)).map((m) => [m.name, m.label]), state.metric);
options(byId("protocol"), Object.entries(data.protocols).filter(([p]) => data.groups.some((g) => state.metric in g.values[p])), "last");
options(byId("curve"), Object.keys(data.training).map((name) => [name, (metrics.get(name) || { label: name }).label]), curve);
narrow.addEventListener("change", groupTable);
let waiting = 0;
byId("filter").addEventListener("input", (event) => { state.filter = event.target.value; clearTimeout(waiting); waiting = setTimeout(changed, 120); });
byId("metric").addEventListener("change", (event) => { state.metric = event.target.value; chosenColumns.add(state.metric); drawColumns(); changed(); });
byId("protocol").addEventListener("change", (event) => { state.protocol = event.target.value; changed(); });
byId("curve").addEventListener("change", (event) => { curve = event.target.value; drawTraining(); });
byId("predicted").addEventListener("change", (event) => { chosen = Number(event.target.value); drawPredictions(); });
byId("every").addEventListener("toggle", () => { if (byId("every").open) runTable(); });

function drawColumns() {
  byId("columns").replaceChildren(...data.metrics.map((m) => el("label", {}, el("input", { type: "checkbox", checked: chosenColumns.has(m.name), onchange: (event) => {
    if (event.target.checked) chosenColumns.add(m.name); else chosenColumns.delete(m.name);
    groupTable();
  } }), m.label)));
}

drawHead();
drawColumns();
setUpDifference();
changed();
document.documentElement.dataset.drawn = "yes";
