// Scores of checkpoints over the steps of their training.
report.trend = (function () {
  "use strict";
  const { data, $, make, options, draw, score, padded, symbol, STYLE, grid, quiet } = report;
  const { systems, tasks, series } = data;
  const color = (at) => `var(--s${at % 8})`;

  /** The choices: every task, and the mean over several. */
  function choices() {
    const lists = tasks.map((task) => ({ label: `${task.name}, ${task.measure}`, axis: task.measure, of: (row) => task.standings[row] }));
    if (tasks.length > 1) {
      lists.unshift({ label: `Mean of the ${tasks.length} tasks`, axis: "mean score", of: (row) => systems[row].mean_standing });
    }
    return lists.filter((list) => series.some((each) => each.rows.some((row) => list.of(row))));
  }

  function pointsOf(list) {
    return series.flatMap((each, at) => {
      const points = each.rows
        .map((row, place) => ({ at, place, step: each.steps[place], label: each.labels[place], standing: list.of(row) }))
        .filter((point) => point.standing)
        .map((point) => ({ ...point, score: point.standing.score, low: point.standing.low, high: point.standing.high }));
      const best = d3.greatest(points, (point) => point.score);
      return points.map((point) => ({ ...point, best: point === best }));
    });
  }

  const interval = (point) => (point.low === null ? "" : `${score(point.low)} to ${score(point.high)}`);

  function picture(list, points, width) {
    const wide = width > 620;
    const single = series.length === 1;
    const values = points.flatMap((point) => [point.score, point.low ?? point.score, point.high ?? point.score]);
    const stroke = { value: (point) => color(point.at), scale: null };
    const steps = [...new Set(points.map((point) => point.step))].sort(d3.ascending);
    const plot = Plot.plot({
      width,
      height: wide ? 360 : 300,
      marginLeft: 48,
      marginRight: 24,
      marginBottom: 44,
      marginTop: 28,
      style: STYLE,
      ariaLabel: `${list.label} over the steps of the training`,
      x: { domain: steps.length > 1 ? d3.extent(steps) : [steps[0] - 1, steps[0] + 1], inset: 14, ...quiet },
      y: { domain: padded(values), ...quiet },
      marks: [
        Plot.gridY({ ...grid, ticks: 5 }),
        Plot.axisY({ ...quiet, ticks: 5, label: list.axis, labelArrow: "none" }),
        Plot.axisX(steps.length <= (wide ? 12 : 5) ? steps : d3.ticks(steps[0], steps[steps.length - 1], wide ? 8 : 4).filter(Number.isInteger), { ...quiet, tickFormat: (step) => d3.format("~s")(step), label: "step", labelAnchor: "center", labelArrow: "none" }),
        // Intervals of several series at one step stand beside each other.
        ...series.map((_, at) => Plot.ruleX(points.filter((point) => point.at === at && point.low !== null), { x: "step", y1: "low", y2: "high", dx: 4 * (at - (series.length - 1) / 2), stroke, strokeOpacity: 0.5, strokeWidth: 2 })),
        Plot.line(points, { x: "step", y: "score", z: "at", stroke, strokeWidth: 2 }),
        Plot.dot(points.filter((point) => point.best), { x: "step", y: "score", r: 9, stroke, strokeWidth: 2 }),
        Plot.dot(points, {
          x: "step", y: "score", r: 4.5, symbol: { value: (point) => symbol(point.at), scale: null }, fill: stroke, stroke: "var(--paper)",
          title: (point) => [series[point.at].name, `${point.label}: ${score(point.score)}`, interval(point)].filter(Boolean).join("\n"),
        }),
        Plot.text(points.filter((point) => single && point.best), { x: "step", y: "score", dy: -18, text: (point) => score(point.score), fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 4 }),
      ],
    });
    return single ? plot : make("div", {}, plot, legend());
  }

  function legend() {
    return make("p", { class: "key" }, ...series.map((each, at) => {
      const svg = d3.create("svg").attr("viewBox", "-7 -7 14 14").attr("width", 12).attr("height", 12);
      svg.append("path").attr("d", d3.symbol(symbol(at), 62)()).attr("fill", color(at));
      return make("span", {}, make("i", { class: "mark", "aria-hidden": "true" }, svg.node()), ` ${each.name}`);
    }));
  }

  function sentence(points) {
    return series.map((each, at) => {
      const own = points.filter((point) => point.at === at);
      const best = own.find((point) => point.best);
      if (!best) return `${each.name} has no score.`;
      const last = own[own.length - 1];
      const end = last === best ? ", the last step" : `; the last step, ${last.label}, has ${score(last.score)}`;
      return `${each.name}: best ${score(best.score)}${best.low === null ? "" : ` (${interval(best)})`} at ${best.label}${end}.`;
    }).join(" ");
  }

  function table(points) {
    const cells = ["Series", "Step", "Score", "95% interval"];
    return [
      make("thead", {}, make("tr", {}, ...cells.map((cell) => make("th", { scope: "col" }, cell)))),
      make("tbody", {}, ...points.map((point) => make("tr", {},
        make("th", { scope: "row" }, series[point.at].name),
        make("td", {}, point.label),
        make("td", {}, score(point.score)),
        make("td", {}, interval(point) || "–")))),
    ];
  }

  function start() {
    const select = $("#pick-trend");
    if (!select) return;
    const lists = choices();
    options(select, lists.map((list, index) => [index, list.label]));
    const show = () => {
      const list = lists[Number(select.value)];
      const points = pointsOf(list);
      draw($("[data-plot=trend]"), (width) => picture(list, points, width));
      $("[data-readout=trend]").textContent = sentence(points);
      $("table.steps").replaceChildren(...table(points));
    };
    select.addEventListener("change", show);
    show();
  }

  return { start };
})();
