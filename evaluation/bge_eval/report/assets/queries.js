// Query by query: two systems' values on every query of a task, as points and as a list.
report.queries = (function () {
  "use strict";
  const { data, $, make, options, draw, block, number, plural, score, signed, short, pValue, address, STYLE, grid, quiet } = report;
  const { systems, tasks, collections } = data;
  if (!collections.length) return null;
  const SHOWN = 100;
  const view = { collection: 0, a: 0, b: 1, measure: 0, point: null, group: null, limit: SHOWN, list: [], rows: [], tests: [] };
  const picks = {};
  const collection = () => collections[view.collection];
  const measure = () => collection().measures[view.measure];
  const kind = (change) => (change > 5e-5 ? "gain" : change < -5e-5 ? "loss" : "same");

  /** Read the queries and the values of what is chosen. */
  async function read() {
    const [chosen, wanted] = [view.collection, view.measure];
    const [overview, values] = await Promise.all([block(`queries-${chosen}`), block(`values-${chosen}-${wanted}`)]);
    if (chosen !== view.collection || wanted !== view.measure) return false;
    const place = (index) => collection().systems.indexOf(index);
    const [a, b] = [place(view.a), place(view.b)];
    view.tests = values.tests;
    view.rows = overview.ids.map((id, index) => {
      const one = (values.values[a][index] ?? 0) / data.scale;
      const two = (values.values[b][index] ?? 0) / data.scale;
      return {
        id, index, text: overview.texts[index], length: overview.lengths[index], relevant: overview.relevant[index],
        a: one, b: two, change: two - one, firstA: overview.first[a][index], firstB: overview.first[b][index],
      };
    });
    return true;
  }

  async function show() {
    if (!(await read())) return;
    view.point = null;
    view.group = null;
    sentence();
    draw($("[data-plot=scatter]"), (width) => scatter(Math.min(width, 620)));
    report.failures.show(view, { measure: measure(), choose: chooseGroup });
    showList();
  }

  /** The test of B against A; a pair is tested once, and turned round where it is needed. */
  function tested() {
    for (const [first, second, low, high, p] of view.tests) {
      if (first === view.a && second === view.b) return { low, high, p };
      if (first === view.b && second === view.a) return { low: -high, high: -low, p };
    }
    return null;
  }

  function sentence() {
    const { rows } = view;
    const [nameA, nameB] = [systems[view.a].short, systems[view.b].short];
    // The leaderboard's own figure where it is the same mean, so that rounding never shows two.
    const task = tasks.find((each) => each.task === collection().task);
    const whole = task && task.measure === measure() && collections.filter((other) => other.task === task.task).length === 1;
    const mean = (index, values) => (whole ? task.standings[index]?.score : null) ?? d3.mean(rows, values);
    const [meanA, meanB] = [mean(view.a, (row) => row.a), mean(view.b, (row) => row.b)];
    const counts = d3.rollup(rows, (group) => group.length, (row) => kind(row.change));
    const count = (name) => counts.get(name) ?? 0;
    const test = tested();
    const words = [make("b", {}, nameB), ` has ${measure()} `, make("b", {}, score(meanB)), ", ", make("b", {}, nameA), " ", make("b", {}, score(meanA))];
    if (view.a === view.b) words.push(": the same system twice.");
    else {
      words.push(". The difference is ", make("b", { class: kind(meanB - meanA) }, signed(meanB - meanA)));
      if (test) {
        const ends = test.low === null ? "" : `95% interval ${signed(test.low)} to ${signed(test.high)}, `;
        words.push(` (${ends}${pValue(test.p)})`, test.p < 0.05 ? ": significant for this pair alone." : ": not significant.");
      } else words.push(".");
    }
    const bar = make("div", { class: "tally", role: "img", "aria-label": `${count("gain")} better, ${count("same")} equal, ${count("loss")} worse` });
    const outcomes = [["gain", "better with B"], ["same", "equal"], ["loss", "better with A"]];
    for (const [name] of outcomes) {
      const part = make("i", { class: name });
      part.style.flexGrow = count(name);
      if (count(name)) bar.append(part);
    }
    const tallies = make("p", { class: "tallies" });
    for (const [name, label] of outcomes) {
      tallies.append(make("span", {}, make("i", { class: `dot ${name}` }), `${number(count(name))} ${label}`));
    }
    $(".versus").replaceChildren(make("p", { class: "sentence" }, ...words), bar, tallies);
  }

  // ── points ──────────────────────────────────────────────────────────────────────────────

  function scatter(width) {
    const { rows } = view;
    // Queries with the same two values are one point, the larger the more there are.
    const groups = d3.groups(rows, (row) => `${row.a},${row.b}`).map(([key, members]) => ({
      key, members, a: members[0].a, b: members[0].b, change: members[0].change,
    }));
    groups.sort((one, two) => two.members.length - one.members.length);
    const most = groups.length ? groups[0].members.length : 1;
    const fills = { gain: "var(--gain)", loss: "var(--loss)", same: "var(--same)" };
    const side = Math.max(width, 260);
    const widest = Math.min(20, 5 + Math.sqrt(most) * 1.2);
    const least = rows.length > 3000 ? 2.5 : 4.5;
    return Plot.plot({
      width: side,
      height: side,
      margin: 20,
      marginLeft: 52,
      marginBottom: 46,
      style: STYLE,
      className: "points",
      ariaLabel: `Every query's ${measure()} with A (across) and with B (up). The list beside it holds the same queries.`,
      x: { domain: [0, 1], ...quiet, ticks: 5, label: null },
      y: { domain: [0, 1], ...quiet, ticks: 5, label: null },
      r: { domain: [0, most], range: [0, widest] },
      marks: [
        Plot.gridX({ ...grid, ticks: 5 }),
        Plot.gridY({ ...grid, ticks: 5 }),
        Plot.axisX({ ...quiet, ticks: 5, label: null }),
        Plot.axisY({ ...quiet, ticks: 5, label: null }),
        Plot.line([[0, 0], [1, 1]], { stroke: "var(--strong)", strokeWidth: 1.2 }),
        Plot.text([`A: ${short(systems[view.a].short, Math.floor(side / 8))} →`], { frameAnchor: "bottom-right", dy: 38, fill: "var(--soft)" }),
        Plot.text([`B: ${short(systems[view.b].short, Math.floor(side / 8))} →`], { frameAnchor: "top-left", rotate: -90, dx: -42, textAnchor: "end", fill: "var(--soft)" }),
        Plot.text(["B better"], { frameAnchor: "top-left", dx: 8, dy: 8, fill: "var(--gain)", fontWeight: 600 }),
        Plot.text(["A better"], { frameAnchor: "bottom-right", dx: -8, dy: -8, fill: "var(--loss)", fontWeight: 600 }),
        Plot.dot(groups, {
          x: "a", y: "b", r: { value: (group) => Math.max(group.members.length, most * (least / widest) ** 2) },
          fill: { value: (group) => fills[kind(group.change)], scale: null }, fillOpacity: 0.62,
          stroke: "var(--paper)", strokeWidth: 0.8, sort: null,
          render(index, scales, values, dimensions, context, next) {
            const drawn = next(index, scales, values, dimensions, context);
            d3.select(drawn).selectAll("circle").each(function (i) {
              const group = groups[i];
              this.setAttribute("data-point", group.key);
              const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
              title.textContent = `${plural(group.members.length, "query", "queries")}: A ${score(group.a)}, B ${score(group.b)}` + (group.members.length === 1 ? `\n${group.members[0].text}` : "");
              this.append(title);
              this.addEventListener("click", () => pick(group, this));
            });
            return drawn;
          },
        }),
      ],
    });
  }

  function pick(group, circle) {
    unpick();
    circle.setAttribute("data-picked", "");
    view.point = group.key;
    view.group = null;
    showList();
    if (group.members.length === 1) report.reader.open(0);
  }

  function unpick() {
    for (const other of document.querySelectorAll("[data-picked]")) other.removeAttribute("data-picked");
  }

  /** List the queries of a group only: {name, has(row)}. */
  function chooseGroup(group) {
    unpick();
    view.point = null;
    view.group = group;
    showList();
    $(".list").scrollIntoView({ block: "nearest" });
  }

  // ── the list ────────────────────────────────────────────────────────────────────────────

  const ORDERS = {
    change: (one, two) => Math.abs(two.change) - Math.abs(one.change),
    gain: (one, two) => two.change - one.change,
    loss: (one, two) => one.change - two.change,
    hard: (one, two) => one.a + one.b - two.a - two.b,
    given: (one, two) => one.index - two.index,
  };

  function showList() {
    const words = $("#find").value.toLowerCase().split(/\s+/).filter(Boolean);
    view.limit = SHOWN;
    view.list = view.rows
      .filter((row) => view.point === null || `${row.a},${row.b}` === view.point)
      .filter((row) => view.group === null || view.group.has(row))
      .filter((row) => words.every((word) => row.text.toLowerCase().includes(word) || row.id.toLowerCase() === word))
      .sort(ORDERS[$("#order").value]);
    const chosen = $(".chosen");
    chosen.hidden = view.point === null && view.group === null;
    const count = plural(view.list.length, "query", "queries");
    if (view.point !== null) {
      const [a, b] = view.point.split(",").map(Number);
      $("span", chosen).textContent = `Only the ${count} with A ${score(a)} and B ${score(b)}`;
    } else {
      unpick();
      if (view.group !== null) $("span", chosen).textContent = `Only the ${count}: ${view.group.name}`;
    }
    fillList();
  }

  function fillList() {
    const items = view.list.slice(0, view.limit).map((row, place) =>
      make("li", {}, make("button", { type: "button", class: kind(row.change), "data-query": row.id, onclick: () => report.reader.open(place) },
        make("b", {}, kind(row.change) === "same" ? score(row.b) : signed(row.change)),
        make("span", { dir: "auto" }, row.text || row.id))));
    const none = make("li", { class: "none" }, "No query has these words.");
    $(".queries").replaceChildren(...(items.length ? items : [none]));
    $(".more").hidden = view.list.length <= view.limit;
  }

  // ── choices ─────────────────────────────────────────────────────────────────────────────

  function refill() {
    const { systems: having, measures } = collection();
    const names = having.map((index) => [index, systems[index].short]);
    options(picks.a, names);
    options(picks.b, names);
    options(picks.measure, measures.map((name, index) => [index, name]));
    if (!having.includes(view.a)) view.a = having[0];
    if (!having.includes(view.b) || view.a === view.b) view.b = having.find((index) => index !== view.a) ?? view.a;
    if (view.measure >= measures.length) view.measure = 0;
    for (const name of ["collection", "a", "b", "measure"]) picks[name].value = view[name];
  }

  /** Put the choice into the address. Names stay right where numbers would not. */
  function remember() {
    address.set({ queries: collection().label, a: systems[view.a].short, b: systems[view.b].short, measure: measure() });
  }

  function restore() {
    // B is the best, A the second best: what was gained is what one looks for first.
    const { standings } = tasks.find((each) => each.task === collections[0].task) || { standings: [] };
    const [first, second] = d3.sort(collections[0].systems, (index) => -(standings[index]?.score ?? -1));
    [view.a, view.b] = second === undefined ? [first, first] : [second, first];
    const saved = collections.findIndex((each) => each.label === address.get("queries"));
    if (saved >= 0) view.collection = saved;
    for (const side of ["a", "b"]) {
      const index = systems.findIndex((system) => system.short === address.get(side));
      if (collection().systems.includes(index)) view[side] = index;
    }
    const saidMeasure = collection().measures.indexOf(address.get("measure"));
    if (saidMeasure >= 0) view.measure = saidMeasure;
    $("#find").value = address.get("find");
    if (Object.hasOwn(ORDERS, address.get("order"))) $("#order").value = address.get("order");
  }

  /** Compare two systems on a task, and go there. */
  function compare(a, b, task) {
    const place = collections.findIndex((each) => (!task || each.task === task) && each.systems.includes(a) && each.systems.includes(b));
    if (place < 0) return;
    report.startQueries();
    Object.assign(view, { collection: place, a, b });
    refill();
    remember();
    address.set({ at: "queries" });
    show();
    document.getElementById("queries").scrollIntoView();
  }

  async function start() {
    for (const name of ["collection", "a", "b", "measure"]) picks[name] = $(`#pick-${name}`);
    options(picks.collection, collections.map((each, index) => [index, each.label]));
    restore();
    refill();
    for (const name of ["collection", "a", "b", "measure"]) {
      picks[name].addEventListener("change", () => {
        view[name] = Number(picks[name].value);
        if (name === "collection") refill();
        remember();
        show();
      });
    }
    $("#swap").addEventListener("click", () => {
      [view.a, view.b] = [view.b, view.a];
      [picks.a.value, picks.b.value] = [view.a, view.b];
      remember();
      show();
    });
    $("#find").addEventListener("input", () => { address.set({ find: $("#find").value }); showList(); });
    $("#order").addEventListener("change", () => { address.set({ order: $("#order").value }); showList(); });
    $("#all-queries").addEventListener("click", () => { view.point = null; view.group = null; showList(); });
    $(".more").addEventListener("click", () => { view.limit += SHOWN; fillList(); });
    report.reader.start();
    await show();
    report.reader.restore();
  }

  return { view, start, compare, collection, measure };
})();
