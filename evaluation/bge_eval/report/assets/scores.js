// Score by task: every system's score and interval, for all of a few tasks or one of many.
report.scores = (function () {
  "use strict";
  const { data, $, make, draw, options, short, score, plural, symbol, color, padded, selection, address, STYLE, grid, quiet } = report;
  const { systems } = data;
  const FEW = 6;
  const place = $("[data-plot=tasks]");
  const select = $("#pick-task");

  function card(task, indices) {
    const rows = indices
      .map((index) => ({ standing: selection.standing(task, index), index }))
      .filter((row) => row.standing)
      .map((row) => ({ ...row.standing, index: row.index }))
      .sort((one, two) => two.score - one.score);
    const counted = rows.find((row) => row.queries);
    const figure = make("div");
    const about = [task.measure, task.type, counted && plural(counted.queries, ...report.unit(task))];
    const element = make("div", { class: "card" }, make("h3", {}, task.name), make("p", {}, about.filter(Boolean).join(" · ")), figure);
    if (!rows.length) figure.append(make("p", { class: "note" }, "No system has a complete result."));
    else requestAnimationFrame(() => draw(figure, (width) => plot(task, rows, width)));
    return element;
  }

  function plot(task, rows, width) {
    // On a phone a system's name stands above its line instead of beside it.
    const narrow = width < 420;
    const longest = d3.max(rows, (row) => systems[row.index].short.length);
    const margin = narrow ? 8 : Math.min(Math.floor(width * 0.48), 24 + Math.ceil(6.7 * longest));
    const room = narrow ? width - 70 : margin - 14;
    const name = (index) => short(systems[index].short, Math.floor(room / 6.3));
    const domain = padded(rows.flatMap((row) => [row.low ?? row.score, row.high ?? row.score]));
    const first = d3.max(rows, (row) => row.score);
    return Plot.plot({
      width,
      height: rows.length * (narrow ? 42 : rows.length > 8 ? 25 : 30) + 34,
      marginLeft: margin,
      marginRight: 56,
      marginTop: 4,
      marginBottom: 28,
      style: STYLE,
      ariaLabel: `${task.name}: scores of ${rows.length} systems`,
      x: { domain, ticks: 4, ...quiet, label: null },
      y: { type: "band", domain: rows.map((row) => row.index), axis: null, padding: 0.2 },
      marks: [
        Plot.gridX({ ...grid, ticks: 4 }),
        Plot.axisX({ ...quiet, ticks: 4, label: null }),
        narrow
          ? Plot.text(rows, { y: "index", frameAnchor: "left", dx: -8, dy: -15, text: (row) => name(row.index), textAnchor: "start", fill: "var(--soft)" })
          : Plot.axisY({ tickFormat: name, tickSize: 0, label: null, marginLeft: margin, lineWidth: 40 }),
        Plot.ruleY(rows.filter((row) => row.low != null), {
          y: "index", x1: "low", x2: "high", strokeWidth: 2.5, strokeOpacity: 0.5, strokeLinecap: "round",
          stroke: { value: (row) => color(row.index), scale: null },
        }),
        Plot.dot(rows, {
          y: "index", x: "score", r: 5.5, symbol: { value: (row) => symbol(row.index), scale: null },
          fill: { value: (row) => color(row.index), scale: null }, stroke: "var(--paper)", strokeWidth: 1.2,
          title: (row) => `${systems[row.index].label}\n${row.score}` + (row.low != null ? `\n95% interval ${score(row.low)} to ${score(row.high)}` : ""),
        }),
        Plot.text(rows, {
          y: "index", frameAnchor: "right", textAnchor: "end", dx: 52, text: (row) => score(row.score),
          fill: "var(--ink)", fontWeight: (row) => (row.score === first ? 650 : 400),
        }),
      ],
    });
  }

  function show() {
    const over = selection.tasks();
    const few = over.length <= FEW;
    select.closest("form").hidden = few;
    const before = select.value || address.get("card");
    options(select, over.map((task) => [task.name, task.name]));
    select.value = over.some((task) => task.name === before) ? before : over[0]?.name;
    const indices = selection.systems();
    const shown = few ? over : over.filter((task) => task.name === select.value);
    place.classList.toggle("single", shown.length === 1);
    place.replaceChildren(...shown.map((task) => card(task, indices)));
  }

  /** Show the card of one task. */
  function choose(name) {
    select.value = name;
    address.set({ card: name });
    show();
  }

  function start() {
    select.addEventListener("change", () => choose(select.value));
    selection.onChange(show);
  }

  return { start, choose };
})();
