// Heat maps: systems by tasks, and systems by languages.
report.heat = (function () {
  "use strict";
  const { data, $, draw, score, short, selection, address } = report;
  const { systems } = data;

  /**
   * Draw a grid of cells with a line of text below that says what one is.
   * On a phone, the systems stand above and the other names at the left.
   *
   * of: { systems, columns, square (rows stay rows), name(column), gap(column, before), value(column, system) → {share, text, words} or null, choose }
   */
  function heat(kind, of) {
    const container = $(`[data-plot=${kind}]`);
    const readout = $(`[data-readout=${kind}]`);
    if (!container) return;
    readout.textContent = "\u00a0";
    draw(container, (width) => {
      const tall = width < 620 && !of.square;
      const across = tall ? of.systems : of.columns;
      const down = tall ? of.columns : of.systems;
      const systemName = (index) => systems[index].short;
      const [nameAcross, nameDown] = tall ? [systemName, of.name] : [of.name, systemName];
      const left = Math.min(width < 620 ? 0.46 * width : 230, 14 + 6.2 * d3.max(down, (each) => Math.min(34, nameDown(each).length)));
      const gaps = [0];
      of.columns.forEach((column, number) => { if (number) gaps.push(gaps[number - 1] + (of.gap?.(column, of.columns[number - 1]) ? 5 : 0)); });
      const total = gaps[gaps.length - 1] ?? 0;
      const step = Math.min(64, (width - left - (tall ? 0 : total)) / across.length);
      const row = tall || width < 620 ? 19 : Math.max(22, Math.min(30, step));
      const most = tall ? 20 : 26;
      const longest = d3.max(across, (each) => Math.min(most, nameAcross(each).length));
      const flat = step >= 6.2 * longest + 8;
      const top = flat ? 24 : 12 + 6 * longest;
      const x = (number) => left + number * step + (tall ? 0 : gaps[number]);
      const y = (number) => top + number * row + (tall ? gaps[number] : 0);
      const height = y(down.length - 1) + row + 4;
      const svg = d3.create("svg").attr("width", width).attr("height", height).attr("viewBox", [0, 0, width, height])
        .attr("role", "img").attr("aria-label", `${of.title}. The leaderboard above has the same figures.`).attr("font-size", 11.5);
      across.forEach((each, number) => {
        const [at, base] = [x(number) + step / 2, top - 7];
        const label = svg.append("text").attr("fill", "var(--soft)").text(short(nameAcross(each), flat ? 40 : most));
        if (flat) label.attr("x", at).attr("y", base).attr("text-anchor", "middle");
        else label.attr("transform", `translate(${at + 4},${base}) rotate(-90)`);
      });
      down.forEach((each, number) => {
        svg.append("text").attr("x", left - 8).attr("y", y(number) + row / 2 + 4).attr("text-anchor", "end")
          .attr("fill", "var(--soft)").text(short(nameDown(each), Math.floor((left - 12) / 6.3)));
      });
      down.forEach((below, i) => across.forEach((beside, j) => {
        const [column, system] = tall ? [below, beside] : [beside, below];
        const value = of.value(column, system);
        const cell = svg.append("g").attr("class", "cell");
        const written = value?.text && step >= 6.3 * value.text.length + 4;
        // Under a text the colour stays so light that the text has a contrast of 4.5.
        const opacity = value ? (written && !of.square ? 0.03 + 0.42 * value.share : value.share) : 1;
        cell.append("rect").attr("x", x(j) + 0.5).attr("y", y(i) + 0.5).attr("width", Math.max(1, step - 1)).attr("height", row - 1).attr("rx", 2)
          .attr("fill", value ? value.fill ?? "var(--heat)" : "none").attr("fill-opacity", opacity)
          .attr("stroke", value ? "none" : "var(--line)");
        if (written) {
          cell.append("text").attr("x", x(j) + step / 2).attr("y", y(i) + row / 2 + 4).attr("text-anchor", "middle")
            .attr("fill", "var(--ink)").text(value.text);
        }
        const say = () => { readout.textContent = value ? value.words : of.missing(column, system); };
        cell.on("pointerenter", say).on("click", () => { say(); of.choose?.(column, system); });
      }));
      return svg.node();
    });
  }

  /** How dark a value is between the worst and the best of its column. */
  function shares(values) {
    const [low, high] = d3.extent(values.filter((value) => value != null));
    return (value) => (high > low ? 0.07 + 0.88 * ((value - low) / (high - low)) : 0.5);
  }

  function byTask() {
    const over = [...d3.group(selection.tasks(), (task) => task.type).values()].flat();
    const indices = selection.systems();
    const share = new Map(over.map((task) => [task, shares(indices.map((index) => selection.standing(task, index)?.score))]));
    heat("heat", {
      title: "Scores of systems by task",
      systems: indices,
      columns: over,
      name: (task) => task.name,
      gap: (task, before) => task.type !== before.type,
      missing: (task, index) => `${systems[index].short} has no score on ${task.name}`,
      value: (task, index) => {
        const standing = selection.standing(task, index);
        if (!standing) return null;
        const ends = standing.low == null ? "" : `, 95% interval ${score(standing.low)} to ${score(standing.high)}`;
        return {
          share: share.get(task)(standing.score), text: standing.score.toFixed(3).slice(1),
          words: `${systems[index].short} on ${task.name}${task.type ? ` (${task.type})` : ""}: ${task.measure} ${score(standing.score)}${ends}`,
        };
      },
      choose: (task) => report.scores.choose(task.name),
    });
  }

  function byLanguage() {
    const [over, indices] = [selection.tasks(), selection.systems()];
    const chosen = address.get("language");
    const shown = selection.languages.filter((code) => (!chosen || code === chosen) && over.some((task) => Object.hasOwn(task.languages, code)));
    const having = new Map(shown.map((code) => [code, over.filter((task) => Object.hasOwn(task.languages, code))]));
    const mean = (code, index) => {
      const values = having.get(code).map((task) => task.languages[code][index]);
      return values.includes(null) ? null : d3.mean(values);
    };
    const share = new Map(shown.map((code) => [code, shares(indices.map((index) => mean(code, index)))]));
    heat("languages", {
      title: "Mean scores of systems by language",
      systems: indices,
      columns: shown,
      name: selection.languageName,
      missing: (code, index) => `${systems[index].short} lacks a score on ${selection.languageName(code)}`,
      value: (code, index) => {
        const value = mean(code, index);
        if (value === null) return null;
        return {
          share: share.get(code)(value), text: value.toFixed(3).slice(1),
          words: `${systems[index].short} on ${selection.languageName(code)}: mean ${score(value)} over ${report.plural(having.get(code).length, "task")}`,
        };
      },
    });
  }

  function start() {
    selection.onChange(byTask);
    selection.onChange(byLanguage);
  }

  return { start, heat };
})();
