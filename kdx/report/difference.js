// What differs between the configs of two runs.
const picked = { a: 0, b: Math.max(0, data.runs.findIndex((run) => run.group !== data.runs[0].group)) };

function pickRun(side, i) {
  picked[side] = i;
  drawDifference();
  byId("run-" + side).closest("section").scrollIntoView({ behavior: "smooth" });
}

function drawDifference() {
  for (const side of ["a", "b"]) byId("run-" + side).value = picked[side];
  const value = (i, path) => (path in data.configs.own[i] ? data.configs.own[i][path] : data.configs.base[path]) ?? null;
  const paths = new Set([picked.a, picked.b].flatMap((i) => Object.keys(data.configs.own[i])));
  // where a run is written is no part of what it is
  const rows = [...paths].filter((path) => !/^(teacher\.training\.)?paths\./.test(path)).sort()
    .filter((path) => JSON.stringify(value(picked.a, path)) !== JSON.stringify(value(picked.b, path)));
  const cell = (i) => (path) => el("span", { class: "mono" }, plainly(value(i, path)));
  if (!rows.length) {
    byId("difference").replaceChildren(el("p", { class: "note" }, "Nothing: the same config."));
    return;
  }
  table(byId("difference"), {
    columns: () => [
      { key: "path", label: "key", value: (path) => path, cell: (path) => el("span", { class: "mono" }, path) },
      { key: "a", label: "A", value: (path) => plainly(value(picked.a, path)), cell: cell(picked.a) },
      { key: "b", label: "B", value: (path) => plainly(value(picked.b, path)), cell: cell(picked.b) },
    ],
    rows: () => rows, sort: { key: "path", direction: 1 }, key: (path) => path,
  })();
}

function setUpDifference() {
  const names = data.runs.map((run, i) => [i, `${data.groups[run.group].label}, seed ${run.seed}`]);
  for (const side of ["a", "b"]) {
    options(byId("run-" + side), names, picked[side]);
    byId("run-" + side).addEventListener("change", (event) => { picked[side] = Number(event.target.value); drawDifference(); });
  }
  drawDifference();
}
