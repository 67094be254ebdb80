// Tables that sort, and the table of groups with its runs below each row.
function sortedBy(rows, column, direction) {
  const value = (row) => column.value(row);
  return rows.map((row, place) => [row, place]).sort(([a, i], [b, j]) => {
    const [x, y] = [value(a), value(b)];
    if (!known(x) || !known(y)) return known(y) - known(x) || i - j; // holes come last either way
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return direction * order || i - j;
  }).map(([row]) => row);
}

// columns: {key, label, number, value(row), cell(row), first}; detail(row) makes what a click on a row opens
function table(host, { columns, rows, sort, detail, key }) {
  const opened = new Set();
  const draw = () => {
    const list = columns();
    const by = list.find((c) => c.key === sort.key);
    const head = list.map((c) => el("th", {
      scope: "col", class: [c.number && "number", c.first && "first"].filter(Boolean).join(" ") || null,
      "aria-sort": by && c.key === sort.key ? (sort.direction > 0 ? "ascending" : "descending") : null,
    }, el("button", { type: "button", "data-sort": c.key, onclick: () => {
      sort.direction = sort.key === c.key ? -sort.direction : c.down ? -1 : 1;
      sort.key = c.key;
      draw();
    } }, c.label)));
    const shown = by ? sortedBy(rows(), by, sort.direction) : rows();
    const body = shown.flatMap((row) => {
      const id = key(row);
      const isOpen = detail && opened.has(id);
      const toggle = () => { if (!opened.delete(id)) opened.add(id); draw(); };
      const cells = list.map((c) => {
        const cell = el("td", { class: [c.number && "number", c.first && "first"].filter(Boolean).join(" ") || null });
        cell.append(c.cell ? c.cell(row) : plainly(c.value(row)));
        return cell;
      });
      const line = el("tr", {
        "data-row": id, class: detail ? "opens" + (isOpen ? " open" : "") : null, tabindex: detail ? 0 : null, "aria-expanded": detail ? String(!!isOpen) : null,
        onclick: detail ? toggle : () => {},
        onkeydown: (event) => { if (detail && event.target === event.currentTarget && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); toggle(); } },
      }, cells);
      return isOpen ? [line, el("tr", { class: "detail" }, el("td", { colspan: list.length }, detail(row)))] : [line];
    });
    if (!body.length) body.push(el("tr", {}, el("td", { colspan: list.length, class: "hole" }, "Nothing fits the filter.")));
    const focused = host.contains(document.activeElement) && document.activeElement.getAttribute("data-sort");
    host.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
    if (focused) host.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
  };
  return draw;
}

function summaryCell(summary, metric, best) {
  if (!summary) return el("span", { class: "hole" }, "\u2013");
  const [mean, std, low, high] = summary;
  const digits = digitsOf(summary, metric);
  const spread = known(std) ? el("span", { class: "spread" }, " \u00b1 " + show(std, metric, digits)) : "";
  const node = el("span", { class: best ? "best" : null }, show(mean, metric, digits), spread);
  return known(low) ? tipped(node, `95 % interval of the mean: ${show(low, metric)} to ${show(high, metric)}`) : node;
}

const chosenColumns = new Set(data.columns);
if (!chosenColumns.size) chosenColumns.add(state.metric);
const runsOf = data.groups.map(() => []);
data.runs.forEach((run, i) => runsOf[run.group].push(i));

// the groups whose 95 % interval reaches that of the best mean: these are not ranked; a choice on validation comes first
function bestOf(metric) {
  const { better } = metrics.get(metric);
  const students = visible.filter((i) => !data.groups[i].teaches && summaryOf(data.groups[i], metric));
  if (!better || students.length < 2 || data.parts.includes("dataset")) return [];
  if (students.some((i) => data.groups[i].chosen)) return students.filter((i) => data.groups[i].chosen);
  const of = (i) => summaryOf(data.groups[i], metric);
  const best = students.reduce((a, b) => (better * (of(b)[0] - of(a)[0]) > 0 ? b : a));
  if (students.some((i) => !known(of(i)[2]))) return [];
  const [low, high] = [of(best)[2], of(best)[3]];
  return students.filter((i) => of(i)[2] <= high && of(i)[3] >= low);
}

const tag = (text) => el("span", { class: "tag" }, text);
function tagged(i, text) {
  const { teaches, chosen } = data.groups[i];
  return teaches || chosen ? el("span", {}, text, teaches ? tag("teacher") : null, chosen ? tag("chosen on validation") : null) : text;
}

const narrow = matchMedia("(max-width: 40rem)");

function groupColumns() {
  const facts = [...data.parts, ...data.knobs.map((k) => k.label)];
  if (!facts.length) facts.push("method");
  const told = (i) => tagged(i, data.groups[i].label);
  // on a phone, one column says it all, so that the numbers are in sight
  const columns = narrow.matches ? [{ key: "label", label: "group", first: true, value: (i) => data.groups[i].label, cell: told }] : facts.map((name, place) => ({
    key: name, label: name, first: place === 0, number: data.groups.some((g) => typeof g.facts[name] === "number"),
    value: (i) => name in data.groups[i].facts ? data.groups[i].facts[name] : data.common[name],
    cell: (i) => {
      const group = data.groups[i];
      const text = plainly(name in group.facts ? group.facts[name] : data.common[name]);
      if (text === "\u2013") return el("span", { class: "hole" }, text);
      return place === 0 ? tagged(i, text) : text;
    },
  }));
  for (const name of [...metrics.keys()].filter((m) => chosenColumns.has(m))) {
    const metric = metrics.get(name);
    const best = bestOf(name);
    columns.push({
      key: name, label: metric.label, number: true, down: metric.better > 0,
      value: (i) => summaryOf(data.groups[i], name)?.[0],
      cell: (i) => summaryCell(summaryOf(data.groups[i], name), metric, best.includes(i)),
    });
  }
  columns.push({ key: "n", label: "n", number: true, down: true, value: (i) => data.groups[i].n,
    cell: (i) => el("span", { class: data.groups[i].n < 3 ? "few" : null }, String(data.groups[i].n)) });
  return columns;
}

function runColumns(names) {
  const origin = (run) => (run.commit ? run.commit + (run.dirty ? " + changes" : "") : "no checkout");
  const run = (i) => data.runs[i];
  // what is the same for every run stands at the head of the page
  const varies = (column) => column.always || new Set(data.runs.map((_, i) => column.value(i))).size > 1;
  return [
    ...names.map((name) => ({ key: name, always: true, label: metrics.get(name).label, number: true, down: metrics.get(name).better > 0,
      value: (i) => run(i).values[state.protocol][name], cell: (i) => show(run(i).values[state.protocol][name], metrics.get(name)) })),
    { key: "commit", always: true, label: "commit", value: (i) => origin(run(i)), cell: (i) => el("span", { class: "mono" }, origin(run(i))) },
    { key: "device", label: "hardware", value: (i) => run(i).device },
    { key: "together", label: "trained together", number: true, value: (i) => run(i).together },
    { key: "versions", label: "software", value: (i) => run(i).versions },
    { key: "teacher", label: "teacher", value: (i) => run(i).teacher, cell: (i) => el("span", { class: "mono" }, plainly(run(i).teacher)) },
    { key: "finished", label: "finished", value: (i) => run(i).finished, cell: (i) => plainly(run(i).finished).replace("T", " ").replace("Z", "") },
    { key: "pick", label: "compare", value: (i) => i, cell: (i) => el("span", {}, ...["a", "b"].map((side) =>
      el("button", { class: "pick", type: "button", title: "Compare the config of this run", onclick: (event) => { event.stopPropagation(); pickRun(side, i); } }, side.toUpperCase()))) },
  ].filter(varies);
}

function groupDetail(i) {
  const host = el("div", { class: "scroll" });
  const seed = { key: "seed", label: "seed", value: (r) => data.runs[r].seed };
  const folder = { key: "name", label: "run", value: (r) => data.runs[r].name, cell: (r) => el("span", { class: "mono" }, data.runs[r].name) };
  const names = [state.metric, ...data.costs.filter((c) => metrics.has(c) && c !== state.metric)];
  table(host, { columns: () => [seed, ...runColumns(names), folder], rows: () => runsOf[i], sort: { key: "seed", direction: 1 }, key: (r) => "run" + r })();
  host.addEventListener("click", (event) => event.stopPropagation());
  return host;
}
