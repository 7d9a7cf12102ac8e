// Recall at k, score against cost, and published models.
report.curves = (function () {
  "use strict";
  const { data, $, make, options, draw, score, short, color, symbol, padded, legend, marked, STYLE, grid, quiet } = report;
  const { systems, tasks } = data;

  // ── recall ──────────────────────────────────────────────────────────────────────────────

  function startRecall(select) {
    if (!select) return;
    const having = tasks.filter((task) => task.recall.some(Boolean));
    options(select, having.map((task, index) => [index, task.name]));
    const show = () => {
      const task = having[Number(select.value)];
      const points = task.recall.flatMap((curve, index) =>
        (curve || []).map((recall, place) => ({ index, k: data.cutoffs[place], recall })).filter((point) => point.recall !== null));
      const last = d3.rollups(points, (group) => group[group.length - 1], (point) => point.index).map(([, point]) => point);
      draw($("[data-plot=recall]"), (width) => {
        const wide = width > 620;
        const ends = spread(last, wide ? 17 : 0, 380);
        const plot = Plot.plot({
          width,
          height: 420,
          marginLeft: 40,
          marginRight: wide ? 240 : 14,
          marginBottom: 40,
          style: STYLE,
          ariaLabel: `Recall at k on ${task.name}`,
          x: { type: "log", domain: d3.extent(data.cutoffs), ticks: data.cutoffs, tickFormat: "d", ...quiet },
          y: { domain: [0, 1], ...quiet },
          marks: [
            Plot.gridY({ ...grid, ticks: 5 }),
            Plot.axisY({ ...quiet, ticks: 5, label: null }),
            Plot.axisX(data.cutoffs, { ...quiet, tickFormat: "d", label: null }),
            Plot.line(points, { x: "k", y: "recall", z: "index", stroke: { value: (point) => color(point.index), scale: null }, strokeWidth: 2, curve: "linear" }),
            Plot.dot(points, {
              x: "k", y: "recall", r: 4, symbol: { value: (point) => symbol(point.index), scale: null }, fill: { value: (point) => color(point.index), scale: null }, stroke: "var(--paper)",
              title: (point) => `${systems[point.index].label}\nR@${point.k} ${score(point.recall)}`,
            }),
            Plot.text(["first k documents"], { frameAnchor: "bottom", dy: 36, fill: "var(--soft)" }),
            wide ? Plot.dot(ends, { x: "k", y: "at", dx: 22, r: 4, symbol: { value: (point) => symbol(point.index), scale: null }, fill: { value: (point) => color(point.index), scale: null } }) : null,
            wide ? Plot.text(ends, { x: "k", y: "at", dx: 32, textAnchor: "start", text: (point) => short(systems[point.index].short, 31), fill: "var(--ink)" }) : null,
          ],
        });
        return wide ? plot : make("div", {}, plot, legend(last.map((point) => point.index)));
      });
    };
    select.addEventListener("change", show);
    show();
  }

  /** Move labels apart that would lie on each other; ``at`` is where each goes. */
  function spread(points, room, height) {
    const sorted = points.map((point) => ({ ...point, at: point.recall })).sort((one, two) => two.at - one.at);
    const least = room / height;
    sorted.forEach((point, index) => {
      if (index && sorted[index - 1].at - point.at < least) point.at = sorted[index - 1].at - least;
    });
    return sorted;
  }

  // ── cost ────────────────────────────────────────────────────────────────────────────────

  const COSTS = {
    document_tokens_per_second: "tokens of documents encoded a second (further right is faster)",
    query_tokens_per_second: "tokens of queries encoded a second (further right is faster)",
    text_tokens_per_second: "tokens of other texts encoded a second (further right is faster)",
    documents_per_second: "documents encoded a second (further right is faster)",
    queries_per_second: "queries encoded a second (further right is faster)",
    texts_per_second: "other texts encoded a second (further right is faster)",
    seconds: "seconds of encoding, searching and reranking",
    parameters: "parameters",
    dimension: "dimensions of a vector",
  };

  function startCosts(select, chooser) {
    if (!select) return;
    const lists = tasks.map((task) => ({
      label: `${task.name}, ${task.measure}`,
      axis: task.measure,
      points: task.standings.map((standing, index) => standing && { index, score: standing.score, costs: task.costs[index] }),
    }));
    const whole = systems.map((system, index) => system.mean !== null && { index, score: system.mean, costs: system.costs });
    if (tasks.length > 1 && whole.some(Boolean)) {
      lists.unshift({ label: `Mean of the ${tasks.length} tasks`, axis: "mean score", points: whole });
    }
    options(chooser, lists.map((list, index) => [index, list.label]));
    const known = Object.keys(COSTS).filter((name) => systems.some((system) => system.costs[name] !== null));
    options(select, known.map((name) => [name, COSTS[name]]));
    // What shows most systems comes first: a mean may be complete for few of them.
    const count = (list) => list.points.filter((point) => point && point.costs && point.costs[known[0]] !== null).length;
    chooser.value = d3.greatestIndex(lists, count);
    const show = () => {
      const name = select.value;
      const { axis, points: all } = lists[Number(chooser.value)];
      const points = all.filter((point) => point && point.costs && point.costs[name] !== null)
        .map((point) => ({ ...point, cost: point.costs[name], short: systems[point.index].short }));
      if (!points.length) {
        draw($("[data-plot=costs]"), () => make("p", { class: "note" }, "No result of this task has this cost."));
        return;
      }
      draw($("[data-plot=costs]"), (width) => {
        const wide = width > 620;
        const low = d3.min(points, (point) => point.cost);
        const high = d3.max(points, (point) => point.cost);
        const plot = Plot.plot({
          width,
          height: Math.min(440, Math.max(300, width * 0.5)),
          marginLeft: 54,
          marginRight: wide ? 60 : 18,
          marginBottom: 44,
          marginTop: 28,
          style: STYLE,
          ariaLabel: `Score against ${COSTS[name]}`,
          x: { type: "log", domain: low === high ? [low / 2, high * 2] : [low / 1.25, high * 1.25], ...quiet },
          y: { domain: padded(points.map((point) => point.score), 0.16), ...quiet },
          marks: [
            Plot.gridY({ ...grid, ticks: 5 }),
            Plot.axisY({ ...quiet, ticks: 5, label: axis, labelArrow: "none" }),
            Plot.axisX({ ...quiet, ticks: wide ? 6 : 3, tickFormat: "~s", label: wide ? COSTS[name] : COSTS[name].replace(/ \(.*/, ""), labelAnchor: "center", labelArrow: "none" }),
            Plot.dot(points, {
              x: "cost", y: "score", r: 7, symbol: { value: (point) => symbol(point.index), scale: null }, fill: { value: (point) => color(point.index), scale: null }, stroke: "var(--paper)",
              title: (point) => `${systems[point.index].label}\n${score(point.score)} at ${d3.format(",.4~r")(point.cost)} ${COSTS[name]}`,
            }),
            wide ? Plot.text(points, { x: "cost", y: "score", dy: -15, text: (point) => short(point.short, 36), fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 4 }) : null,
          ],
        });
        return wide ? plot : make("div", {}, plot, legend(points.map((point) => point.index)));
      });
    };
    select.addEventListener("change", show);
    chooser.addEventListener("change", show);
    show();
  }

  // ── published models ────────────────────────────────────────────────────────────────────

  const [MANY, FIRST, NEAR] = [40, 5, 3];

  function startPublished(select) {
    if (!select) return;
    let all = false;
    const lists = tasks.filter((task) => task.published.length).map((task) => ({
      label: `${task.name}, ${task.measure}`,
      published: task.published,
      own: task.standings.map((standing, index) => standing && { index, score: standing.score }).filter(Boolean),
    }));
    if (tasks.length > 1 && data.publishedMeans.length) {
      const own = systems.map((system, index) => ({ index, score: system.mean })).filter((entry) => entry.score !== null);
      lists.unshift({ label: `Mean of the ${tasks.length} tasks`, published: data.publishedMeans, own });
    }
    options(select, lists.map((list, index) => [index, list.label]));
    const show = () => {
      const { published, own } = lists[Number(select.value)];
      const rows = [...published, ...own].sort((one, two) => two.score - one.score);
      const [low, high] = d3.extent(rows, (row) => row.score);
      const left = d3.scaleLinear([low, high], [1.5, 98.5]);
      // Of many, the first and the neighbours of one's own are shown.
      const ownPlaces = rows.flatMap((row, at) => (row.index === undefined ? [] : [at]));
      const isShown = (at) => all || rows.length <= MANY || at < FIRST || ownPlaces.some((own) => Math.abs(own - at) <= NEAR);
      const more = $("#more-published");
      more.hidden = rows.every((_, at) => isShown(at));
      more.textContent = `Show all ${rows.length}`;
      let place = 0;
      const items = rows.map((row) => {
        const mine = row.index !== undefined;
        if (!mine) place += 1;
        const dot = mine ? marked(row.index) : make("i", { class: row.other_data ? "other" : "" });
        dot.style.left = `${left(row.score)}%`;
        const name = mine ? systems[row.index].label : row.model;
        return make("li", { class: mine ? "own" : "" },
          make("span", { class: "place" }, mine ? "" : String(place)),
          make("span", { class: "who", title: name }, name),
          make("span", { class: "track" }, dot),
          make("span", { class: "value" }, score(row.score)));
      });
      $(".ladder").replaceChildren(...items.filter((_, at) => isShown(at)));
    };
    $("#more-published").addEventListener("click", () => { all = true; show(); });
    select.addEventListener("change", show);
    show();
  }

  function start() {
    startRecall($("#pick-recall"));
    startCosts($("#pick-cost"), $("#pick-cost-task"));
    startPublished($("#pick-published"));
  }

  return { start };
})();
