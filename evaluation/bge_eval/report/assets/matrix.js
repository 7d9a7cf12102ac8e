// Significance: every pair of systems, over all tasks or on the queries of one.
report.matrix = (function () {
  "use strict";
  const { data, $, options, plural, signed, pValue, selection, address } = report;
  const { systems } = data;
  const LEVEL = 0.05;
  const select = $("#pick-pairs");

  /** A pair as one of its systems sees it: turned round where it stands second-first. */
  function seen(pair, row) {
    return pair.second === row
      ? pair
      : { ...pair, difference: -pair.difference, wins: pair.losses, losses: pair.wins };
  }

  const find = (task, row, column) =>
    task.pairs.find((pair) => (pair.first === row && pair.second === column) || (pair.first === column && pair.second === row));

  function overTasks(tested, row, column) {
    const pairs = tested.map((task) => find(task, row, column)).filter(Boolean).map((pair) => seen(pair, row));
    if (!pairs.length) return null;
    const real = pairs.filter((pair) => pair.corrected_for_tasks < LEVEL);
    const wins = real.filter((pair) => pair.difference > 0).length;
    const losses = real.length - wins;
    const ties = pairs.length - real.length;
    return {
      text: `${wins}–${ties}–${losses}`,
      fill: wins === losses ? "var(--same)" : wins > losses ? "var(--gain)" : "var(--loss)",
      share: wins === losses ? 0.12 : 0.12 + 0.34 * (Math.abs(wins - losses) / pairs.length),
      words: `${systems[row].short} against ${systems[column].short}: significantly better on ${plural(wins, "task")}, worse on ${losses}, no significant difference on ${ties}`,
    };
  }

  function onTask(task, row, column) {
    const pair = find(task, row, column);
    if (!pair) return null;
    const own = seen(pair, row);
    const real = own.corrected < LEVEL;
    return {
      text: `${own.wins}–${own.ties}–${own.losses}`,
      fill: !real ? "var(--same)" : own.difference > 0 ? "var(--gain)" : "var(--loss)",
      share: real ? 0.42 : 0.12,
      words: `${systems[row].short} against ${systems[column].short}: better on ${plural(own.wins, ...report.unit(task))}, equal on ${own.ties}, worse on ${own.losses}; ${task.measure} ${signed(own.difference)}, ${pValue(own.p)}, corrected ${pValue(own.corrected)}`,
    };
  }

  function show() {
    const tested = selection.tasks().filter((task) => task.pairs.length);
    const task = tested.find((each) => each.name === select.value);
    const indices = selection.systems();
    report.heat.heat("matrix", {
      title: "Significance of the differences between systems",
      square: true,
      systems: indices,
      columns: indices,
      name: (index) => systems[index].short,
      missing: (column, row) => (row === column ? systems[row].short : "These two have no values for the same queries"),
      value: (column, row) => {
        if (row === column) return null;
        return task ? onTask(task, row, column) : overTasks(tested, row, column);
      },
      choose: (column, row) => { if (row !== column) report.queries?.compare(column, row, task?.task); },
    });
  }

  function refill() {
    const tested = selection.tasks().filter((task) => task.pairs.length);
    const before = select.value || address.get("pairs");
    options(select, [...(tested.length === 1 ? [] : [["", `all ${plural(tested.length, "tested task")}`]]), ...tested.map((task) => [task.name, task.name])]);
    if (tested.some((task) => task.name === before)) select.value = before;
    show();
  }

  function start() {
    if (!select) return;
    select.addEventListener("change", () => { address.set({ pairs: select.value }); show(); });
    selection.onChange(refill);
  }

  return { start };
})();
