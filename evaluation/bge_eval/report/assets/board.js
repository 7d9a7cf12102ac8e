// The leaderboard: pinned name, rank and mean, then means by type that unfold into tasks, then costs.
report.board = (function () {
  "use strict";
  const { data, $, make, marked, score, signed, address, selection, table } = report;
  const { systems, tasks } = data;
  const place = $("table.board");
  const FEW = 8; // so many tasks are shown unfolded
  const COSTS = "costs";
  const withDtypes = new Set(systems.map((system) => system.dtype)).size > 1;
  let open = new Set();
  let columns = [];
  let rows = [];

  /** A name that may break where its words meet. */
  function breakable(name) {
    const parts = name.split(/(?<=[a-z0-9])(?=[A-Z])|(?<=[-_/])/);
    return parts.flatMap((part, index) => (index ? [make("wbr"), part] : [part]));
  }

  const interval = (cell) => (cell.low == null ? null : `${cell.low.toFixed(3)}–${cell.high.toFixed(3)}`);

  /** A column: its heading, and the cell of a system with a value to sort by. */
  function taskColumn(task) {
    return {
      key: `task:${task.name}`, name: task.name, kind: "num task", task,
      cell: (index) => {
        const standing = selection.standing(task, index);
        if (!standing) return { value: null, partial: task.partial[index] };
        const whole = standing === task.standings[index];
        return { value: standing.score, ...standing, tied: whole && standing.tied && !selection.onlyModels(), untested: whole && standing.rank > 1 && !standing.tested, gain: whole ? task.gains[index] : null };
      },
    };
  }

  function meanColumn(key, name, over, kind) {
    return {
      key, name, kind,
      cell: (index) => {
        const mean = selection.mean(over, index);
        const own = systems[index].mean_standing;
        if (key === "mean" && !selection.isFiltered() && own) return { value: own.score, ...own, untested: own.rank > 1 && !own.tested };
        return { value: mean.score, ...mean };
      },
    };
  }

  function makeColumns() {
    const over = selection.tasks();
    const ranks = selection.bordaRanks(over, selection.systems());
    const made = [];
    if (systems.length > 1 && over.length > 1) {
      made.push({ key: "rank", name: "Rank", title: "Borda count over the tasks shown, as MTEB ranks", kind: "num rank", ascending: true, cell: (index) => {
        const own = selection.isFiltered() ? null : systems[index].rank;
        const range = own?.low == null ? null : own.low === own.high ? String(own.low) : `${own.low}–${own.high}`;
        return { value: ranks.get(index), text: String(ranks.get(index)), range };
      } });
    }
    if (tasks.length > 1) made.push(meanColumn("mean", "Mean", over, "num mean"));
    const byType = d3.group(over, (task) => task.type);
    for (const [type, own] of byType) {
      const isOpen = selection.types.length < 2 || open.has(type);
      if (selection.types.length > 1) {
        made.push({ ...meanColumn(`type:${type}`, type || "Other", own, "num type"), folds: type, isOpen, counted: report.plural(own.length, "task") });
      }
      if (isOpen) made.push(...own.map(taskColumn));
    }
    if (withDtypes) made.push({ key: "dtype", name: "Precision", kind: "cost", cell: (index) => ({ value: systems[index].dtype, text: systems[index].dtype }) });
    made.push(...costColumns());
    return made;
  }

  /** The costs; of many, one stands for all until they are unfolded. */
  function costColumns() {
    const all = data.costs.map((name, number) => ({
      key: `cost:${name}`, name, kind: "num cost", cell: (index) => systems[index].cells[number],
    }));
    if (all.length < 2 || tasks.length <= FEW) return all;
    const isOpen = open.has(COSTS);
    const first = all.find((column) => column.name === "Parameters") ?? all[0];
    const head = { ...first, kind: `${first.kind} type`, folds: COSTS, isOpen, counted: report.plural(all.length - 1, "cost") };
    return isOpen ? [head, ...all.filter((column) => column !== first)] : [head];
  }

  const nameColumn = { key: "name", name: "Model", kind: "name", ascending: true, cell: (index) => ({ value: systems[index].label }) };

  function heading(column) {
    const sorted = address.get("sort") === column.key ? address.get("dir") || "descending" : null;
    const button = make("button", { type: "button", class: "sort", title: column.title, onclick: () => sort(column) }, ...breakable(column.name));
    const head = make("th", { scope: "col", class: column.kind, "aria-sort": sorted }, button);
    if (column.folds !== undefined) {
      head.append(make("button", {
        type: "button", class: "fold", "aria-expanded": String(column.isOpen), "data-type": column.folds,
        "aria-label": `${column.isOpen ? "Hide" : "Show"} ${column.counted} of ${column.name}`,
        onclick: () => fold(column.folds),
      }, column.isOpen ? "– " : "+ ", column.counted));
    }
    return head;
  }

  function fold(type) {
    if (open.has(type)) open.delete(type);
    else open.add(type);
    address.set({ open: open.size ? [...open].join(",") : "none" });
    render();
    $(`.fold[data-type="${CSS.escape(type)}"]`)?.focus();
  }

  function sort(column) {
    const same = address.get("sort") === column.key;
    const before = same ? address.get("dir") || "descending" : null;
    const ascending = before ? before === "descending" : Boolean(column.ascending);
    address.set({ sort: column.key, dir: ascending ? "ascending" : "" });
    render();
    place.querySelector("[aria-sort] .sort")?.focus();
  }

  function sorted(indices) {
    const column = [nameColumn, ...columns].find((each) => each.key === address.get("sort"));
    if (!column) return indices;
    const up = address.get("dir") === "ascending";
    const value = new Map(indices.map((index) => [index, column.cell(index).value]));
    return [...indices].sort((one, two) => {
      const [a, b] = [value.get(one), value.get(two)];
      const [noA, noB] = [a == null || a === "", b == null || b === ""];
      if (noA || noB) return noA - noB;
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return up ? order : -order;
    });
  }

  function nameCell(index) {
    const system = systems[index];
    const twins = systems.filter((other) => other.label === system.label).length > 1;
    const details = [system.settings, twins && system.revision.slice(0, 8)].filter(Boolean).join(" · ");
    return make("th", { scope: "row", class: "name", "data-value": system.label },
      make("div", {}, marked(index), make("span", {},
        system.second_stage ? make("em", {}, "+ ") : null, make("bdi", {}, system.name),
        details ? make("small", { dir: "auto" }, details) : null)));
  }

  function bodyCell(column, index, ranks) {
    const cell = column.cell(index);
    if (column.kind.includes("cost") || column.key === "rank") {
      return make("td", { class: column.kind, "data-value": cell.value ?? "" }, cell.text, cell.range ? make("small", {}, cell.range) : null);
    }
    if (cell.value == null) {
      if (cell.partial) {
        return make("td", { class: `${column.kind} partial`, "data-value": "" }, score(cell.partial.score), make("small", {}, cell.partial.subsets));
      }
      const part = cell.total > 1 && cell.done ? make("small", {}, `${cell.done} of ${cell.total}`) : null;
      return make("td", { class: column.kind, "data-value": "" }, "–", part);
    }
    const rank = ranks.indexOf(cell.value) + 1;
    const tied = cell.tied
      ? make("span", { class: "tied", title: "not significantly different from the best" }, " ≈")
      : cell.untested && !selection.isFiltered() ? make("span", { class: "tied", title: "not tested against the best" }, " ?") : null;
    const gain = cell.gain == null ? null : make("small", { class: "gained" }, signed(cell.gain));
    const ends = interval(cell);
    return make("td", { class: `${column.kind} rank${rank}`, "data-value": cell.value, title: String(cell.value) },
      make("span", { class: "score" }, score(cell.value)), tied, ends ? make("small", {}, ends) : null, gain);
  }

  function render() {
    columns = makeColumns();
    const indices = selection.systems();
    rows = sorted(indices);
    const head = make("tr", {}, heading(nameColumn), ...columns.map(heading));
    const ranks = columns.map((column) => [...new Set(indices.map((index) => column.cell(index).value).filter((value) => typeof value === "number"))].sort((a, b) => b - a));
    const body = make("tbody", {}, ...rows.map((index) =>
      make("tr", {}, nameCell(index), ...columns.map((column, number) => bodyCell(column, index, ranks[number])))));
    if (!rows.length || !selection.tasks().length) {
      body.replaceChildren(make("tr", {}, make("td", { class: "none", colspan: columns.length + 1 }, rows.length ? "No task has these filters." : "No system has this name.")));
    }
    place.replaceChildren(make("thead", {}, head), body);
    pin();
    key();
  }

  /** Put the pinned columns beside one another, whatever their widths are. */
  function pin() {
    let left = 0;
    for (const kind of ["name", "rank", "mean"]) {
      const cell = $(`thead th.${kind}`, place);
      if (!cell) continue;
      place.style.setProperty(`--left-${kind}`, `${left}px`);
      left += cell.getBoundingClientRect().width;
    }
  }

  function key() {
    const every = columns.flatMap((column) => rows.map((index) => column.cell(index)));
    const parts = [make("span", {}, make("b", {}, "bold"), " best"), make("span", {}, make("u", {}, "underlined"), " second best")];
    if (every.some((cell) => cell.tied)) parts.push(make("span", {}, "≈ cannot be told from the best (randomised Tukey HSD over all systems, p ≥ 0.05)"));
    if (!selection.isFiltered() && every.some((cell) => cell.untested)) parts.push(make("span", {}, "? not tested: it or the best has no values by query, text or pair, or has other ones"));
    if (every.some((cell) => cell.low != null)) parts.push(make("span", {}, make("small", {}, "0.71–0.75"), " 95% interval over queries, texts or pairs"));
    if (every.some((cell) => cell.gain != null)) parts.push(make("span", {}, make("small", {}, "+0.01"), " against its first stage"));
    if (selection.types.length > 1) parts.push(make("span", {}, "Means by type are not tested"));
    if (columns.some((column) => column.key === "rank")) parts.push(make("span", {}, "Rank: Borda count over the tasks, as MTEB ranks"));
    const over = systems.find((system) => system.rank?.low != null)?.rank.over;
    if (over && every.some((cell) => cell.range)) parts.push(make("span", {}, make("small", {}, "1–3"), ` ranks by the mean that cannot be told apart (95% for all together, over ${over})`));
    $("#leaderboard .key").replaceChildren(...parts);
  }

  /** The table as it is shown, in words and numbers. */
  function shown() {
    const head = ["Model", ...columns.map((column) => column.name)];
    return [head, rows.map((index) => [systems[index].label, ...columns.map((column) => {
      const { value, text } = column.cell(index);
      return column.kind.includes("cost") || column.key === "rank" ? text ?? "" : value ?? "";
    })])];
  }

  function start() {
    const saved = address.get("open");
    const unfolded = tasks.length <= FEW ? selection.types : [];
    open = new Set(saved === "none" ? [] : saved ? saved.split(",") : unfolded);
    $("#copy-csv").addEventListener("click", (event) => table.copy(table.csv(...shown()), event.currentTarget));
    $("#copy-markdown").addEventListener("click", (event) => table.copy(table.markdown(...shown()), event.currentTarget));
    selection.onChange(render);
    document.fonts.ready.then(pin);
    window.addEventListener("resize", pin);
  }

  return { start };
})();
