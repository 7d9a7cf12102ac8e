// Where systems fail: a histogram of the values of queries, and groups of queries with their means.
report.failures = (function () {
  "use strict";
  const { data, $, make, draw, score, signed, number, plural, mark, STYLE, grid, quiet } = report;
  const BINS = 10;
  const DEPTH = 10;

  /** The 0.975 quantile of Student's t, by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5). */
  function tQuantile(freedom) {
    const z = 1.959963985;
    const terms = [
      (z ** 3 + z) / 4,
      (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
      (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    ];
    return terms.reduce((sum, term, power) => sum + term / freedom ** (power + 1), z);
  }

  /** Mean and reach of the 95% interval; no reach for fewer than five queries. */
  function mean(values) {
    const deviation = values.length > 4 ? d3.deviation(values) / Math.sqrt(values.length) : null;
    return { value: d3.mean(values), reach: deviation === null ? null : tQuantile(values.length - 1) * deviation };
  }

  function histogram(view, measure, width) {
    const bin = (value) => Math.min(BINS - 1, Math.floor(value * BINS + 1e-9));
    const counts = ["a", "b"].flatMap((side) => {
      const bins = d3.rollup(view.rows, (group) => group.length, (row) => bin(row[side]));
      return d3.range(BINS).map((place) => ({ side, place, count: bins.get(place) ?? 0 }));
    });
    const names = d3.range(BINS).map((place) => `${place / BINS}–${(place + 1) / BINS}`);
    const own = view.a === view.b ? counts.filter((each) => each.side === "b") : counts;
    const shift = own.length > BINS ? { a: -0.2, b: 0.2 } : { b: 0 };
    const half = own.length > BINS ? 0.19 : 0.38;
    return Plot.plot({
      width: Math.min(width, 620),
      height: 190,
      marginLeft: 52,
      marginRight: 20,
      marginTop: 26,
      marginBottom: 40,
      style: STYLE,
      ariaLabel: `Numbers of queries by their ${measure}, with A and with B`,
      x: { domain: [-0.5, BINS - 0.5], ...quiet, label: null },
      y: { ...quiet, label: null },
      marks: [
        Plot.gridY({ ...grid, ticks: 4 }),
        Plot.axisY({ ...quiet, ticks: 4, label: null }),
        Plot.axisX(d3.range(0, BINS + 1, 2).map((place) => place - 0.5), { ...quiet, tickFormat: (place) => ((place + 0.5) / BINS).toFixed(1), label: null }),
        Plot.rect(own, {
          x1: (each) => each.place + shift[each.side] - half, x2: (each) => each.place + shift[each.side] + half, y1: 0, y2: "count",
          fill: { value: (each) => report.color(view[each.side]), scale: null }, fillOpacity: 0.8,
          title: (each) => `${each.side.toUpperCase()}: ${plural(each.count, "query", "queries")} with ${measure} ${names[each.place]}`,
        }),
        Plot.text(["queries"], { frameAnchor: "top-left", dx: -32, dy: -18, textAnchor: "start", fill: "var(--soft)" }),
        Plot.text([measure], { frameAnchor: "bottom", dy: 34, fill: "var(--soft)" }),
      ],
    });
  }

  /** Groups of queries: by how a system fails, by length and by number of relevant documents. */
  function groups(view) {
    const fails = (side) => {
      const first = `first${side.toUpperCase()}`;
      const letter = side.toUpperCase();
      return [
        { name: `${letter} finds nothing relevant`, has: (row) => row[first] === 0 },
        { name: `${letter} finds it only below rank ${DEPTH}`, has: (row) => row[first] > DEPTH },
        { name: `${letter} has something else first`, has: (row) => row[first] > 1 && row[first] <= DEPTH },
      ];
    };
    const lengths = view.rows.map((row) => row.length).filter(Boolean).sort((one, two) => one - two);
    const [third, two] = [d3.quantileSorted(lengths, 1 / 3), d3.quantileSorted(lengths, 2 / 3)];
    const byLength = lengths.length && third < two ? [
      { name: `short queries (up to ${Math.floor(third)} characters)`, has: (row) => row.length && row.length <= third },
      { name: "queries of medium length", has: (row) => row.length > third && row.length <= two },
      { name: `long queries (over ${Math.floor(two)} characters)`, has: (row) => row.length > two },
    ] : [];
    const byRelevant = [
      { name: "1 relevant document", has: (row) => row.relevant === 1 },
      { name: "2 or 3 relevant documents", has: (row) => row.relevant > 1 && row.relevant < 4 },
      { name: "4 to 9 relevant documents", has: (row) => row.relevant > 3 && row.relevant < 10 },
      { name: "10 relevant documents or more", has: (row) => row.relevant > 9 },
    ];
    return [
      ["Failures of B", fails("b")],
      ...(view.a === view.b ? [] : [["Failures of A", fails("a")]]),
      ["Length of the query", byLength],
      ["Relevant documents", byRelevant],
    ].map(([title, of]) => [title, of.map((group) => ({ ...group, rows: view.rows.filter(group.has) })).filter((group) => group.rows.length)])
      .filter(([, of]) => of.length);
  }

  function meanCell(values) {
    const { value, reach } = mean(values);
    const ends = reach === null ? null : make("small", {}, `${Math.max(0, value - reach).toFixed(3)}–${Math.min(1, value + reach).toFixed(3)}`);
    return make("td", { class: "num" }, score(value), ends);
  }

  function changeCell(values) {
    const { value, reach } = mean(values);
    const clear = reach !== null && Math.abs(value) > reach;
    const ends = reach === null ? null : make("small", {}, `${signed(value - reach).slice(0, -1)} to ${signed(value + reach).slice(0, -1)}`);
    return make("td", { class: `num ${clear ? (value > 0 ? "gain" : "loss") : ""}` }, make("b", {}, signed(value)), ends);
  }

  function show(view, { measure, choose }) {
    draw($("[data-plot=histogram]"), (width) => histogram(view, measure, width));
    const same = view.a === view.b;
    const head = make("tr", {}, ...["Group", "Queries", ...(same ? [measure] : [`A: ${measure}`, `B: ${measure}`, "B − A"])].map((name, place) =>
      make("th", { scope: "col", class: place ? "num" : "name" }, name)));
    const body = groups(view).flatMap(([title, of]) => [
      make("tr", { class: "section" }, make("th", { scope: "colgroup", colspan: same ? 3 : 5 }, title)),
      ...of.map((group) => make("tr", {},
        make("th", { scope: "row", class: "name" }, make("button", { type: "button", onclick: () => choose(group) }, group.name)),
        make("td", { class: "num" }, number(group.rows.length), make("small", {}, `${(100 * group.rows.length / view.rows.length).toFixed(1)}%`)),
        ...(same ? [] : [meanCell(group.rows.map((row) => row.a))]),
        meanCell(group.rows.map((row) => row.b)),
        ...(same ? [] : [changeCell(group.rows.map((row) => row.change))]))),
    ]);
    $("table.groups").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  }

  return { show };
})();
