// What shorter, compressed and indexed vectors cost: score against memory or speed.
report.deployment = (function () {
  "use strict";
  const { data, $, make, options, draw, score, signed, padded, STYLE, grid, quiet } = report;
  const COLORS = { float32: "var(--s0)", float16: "var(--s2)", int8: "var(--s1)", binary: "var(--s3)" };
  const SHAPES = ["Circle", "Square", "Triangle", "Diamond", "Star", "Cross", "Wye"].map((name) => d3[`symbol${name}`]);
  const AXES = {
    bytes_per_document: ["bytes a document", "further left is smaller", true],
    one_core_queries_per_second: ["queries a second on one core", "further right is faster", false],
    one_core_p95_ms: ["milliseconds of a query on one core, 95% of queries", "further left is faster", true],
    all_cores_queries_per_second: ["queries a second on all cores", "further right is faster", false],
  };

  const name = (point) => `${point.vectors}, ${point.dimension} dimensions, ${point.index}${point.rescored === null ? "" : `, ${point.rescored} rescored`}`;

  const brief = (point) => [`${point.vectors} ${point.dimension}`, point.index.split(" ")[0], point.rescored === null ? null : "rescored"].filter(Boolean).join(", ");

  /** The settings that no other one beats on both axes, in the order of the axis. */
  function front(points, axis) {
    const sign = AXES[axis][2] ? 1 : -1;
    const sorted = [...points].sort((one, two) => sign * (one[axis] - two[axis]) || two.ndcg - one.ndcg);
    let best = -1;
    return sorted.filter((point) => point.ndcg > best && ((best = point.ndcg), true));
  }

  function key(points, indexes) {
    const swatch = (shape, color, text) => {
      const svg = d3.create("svg").attr("viewBox", "-7 -7 14 14").attr("width", 12).attr("height", 12);
      svg.append("path").attr("d", d3.symbol(shape, 62)()).attr("fill", color);
      return make("span", {}, make("i", { class: "mark", "aria-hidden": "true" }, svg.node()), ` ${text}`);
    };
    const kinds = Object.keys(COLORS).filter((kind) => points.some((point) => point.vectors === kind));
    return make("p", { class: "key" },
      ...kinds.map((kind) => swatch(d3.symbolCircle, COLORS[kind], kind)),
      ...indexes.map((index, at) => swatch(SHAPES[at % SHAPES.length], "var(--soft)", index)));
  }

  function startOne(figure) {
    const points = data.curves[Number(figure.dataset.curve)].points;
    const indexes = [...new Set(points.map((point) => point.index))];
    const select = $(`#pick-deployment-${figure.dataset.curve}`);
    options(select, Object.entries(AXES).map(([axis, [label]]) => [axis, label]));
    const show = () => {
      const axis = select.value;
      const [label, better] = AXES[axis];
      const best = front(points, axis);
      const low = d3.min(points, (point) => point[axis]);
      const high = d3.max(points, (point) => point[axis]);
      const isBest = new Set(best);
      draw(figure, (width) => {
        const wide = width > 620;
        const plot = Plot.plot({
          width,
          height: Math.min(460, Math.max(300, width * 0.5)),
          marginLeft: 58,
          marginRight: wide ? 120 : 18,
          marginBottom: 44,
          marginTop: 28,
          style: STYLE,
          ariaLabel: `nDCG@10 against ${label}`,
          x: { type: "log", domain: [low / 1.25, high * 1.25], ...quiet },
          y: { domain: padded(points.map((point) => point.ndcg), 0.16), ...quiet },
          marks: [
            Plot.gridY({ ...grid, ticks: 5 }),
            Plot.axisY({ ...quiet, ticks: 5, label: "nDCG@10", labelArrow: "none" }),
            Plot.axisX({ ...quiet, ticks: wide ? 6 : 3, tickFormat: "~s", label: wide ? `${label} (${better})` : label, labelAnchor: "center", labelArrow: "none" }),
            Plot.line(best, { x: axis, y: "ndcg", stroke: "var(--soft)", strokeWidth: 1.5 }),
            Plot.dot(points, {
              x: axis, y: "ndcg",
              r: { value: (point) => (isBest.has(point) ? 7 : 5), scale: null },
              symbol: { value: (point) => SHAPES[indexes.indexOf(point.index) % SHAPES.length], scale: null },
              fill: { value: (point) => COLORS[point.vectors] ?? "var(--s7)", scale: null },
              fillOpacity: (point) => (isBest.has(point) ? 1 : 0.6),
              stroke: "var(--paper)",
              title: (point) => `${name(point)}\nnDCG@10 ${score(point.ndcg)} (${signed(point.difference)}) at ${d3.format(",.4~r")(point[axis])} ${label}`,
            }),
            wide ? Plot.text(labelled(best, axis, [low, high]), {
              x: axis, y: "ndcg", dy: -15, text: brief, fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 4,
            }) : null,
          ],
        });
        return make("div", {}, plot, key(points, indexes));
      });
    };
    select.addEventListener("change", show);
    show();
  }

  /** Leave out names that would lie on the one before. */
  function labelled(points, axis, [low, high]) {
    const room = Math.log(high / low || 2) / 6;
    let last = -Infinity;
    return points.filter((point) => Math.abs(Math.log(point[axis]) - last) > room && ((last = Math.log(point[axis])), true));
  }

  function start() {
    for (const figure of document.querySelectorAll("[data-curve]")) startOne(figure);
  }

  return { start };
})();
