// The report's behaviour. Texts of data sets only ever become text nodes.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const { systems, tasks, collections } = data;
  const $ = (selector, root = document) => root.querySelector(selector);
  const SYMBOLS = ["Circle", "Square", "Triangle", "Diamond", "Star", "Cross", "Wye"].map((name) => d3[`symbol${name}`]);
  const color = (index) => `var(--s${index % 8})`;
  const symbol = (index) => SYMBOLS[(index + Math.floor(index / 8)) % SYMBOLS.length];
  const score = (value) => (value == null ? "–" : value.toFixed(4));
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
  const number = (value) => value.toLocaleString("en");
  const plural = (count, one, several) => `${number(count)} ${count === 1 ? one : several}`;
  const short = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

  /** Make an element; children are elements or text, never markup. */
  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "class") element.className = value;
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /** Read a gzipped JSON block of the page, once. */
  const blocks = new Map();
  function block(id) {
    if (!blocks.has(id)) {
      const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      blocks.set(id, new Response(stream).json());
    }
    return blocks.get(id);
  }

  // ── marks and plots ─────────────────────────────────────────────────────────────────────

  /** A system's colour and shape, so that neither print nor eye depends on colour alone. */
  function mark(index) {
    const svg = d3.create("svg").attr("viewBox", "-7 -7 14 14").attr("width", 12).attr("height", 12);
    svg.append("path").attr("d", d3.symbol(symbol(index), 62)()).attr("fill", color(index));
    return svg.node();
  }

  for (const place of document.querySelectorAll(".mark")) place.append(mark(Number(place.dataset.system)));

  /** Draw a plot in a container now and whenever its width changes. */
  const drawings = new Map();
  function draw(container, plot) {
    if (!container) return;
    if (!drawings.has(container)) {
      let width = 0;
      new ResizeObserver(([entry]) => {
        const now = Math.floor(entry.contentRect.width);
        if (now && now !== width) {
          width = now;
          container.replaceChildren(drawings.get(container)(now));
        }
      }).observe(container);
    }
    drawings.set(container, plot);
    const width = Math.floor(container.getBoundingClientRect().width);
    if (width) container.replaceChildren(plot(width));
  }

  // Paper is narrower than a screen: what was drawn for the one is drawn anew for the other.
  const PAPER = 660;
  window.addEventListener("beforeprint", () => {
    for (const [container, plot] of drawings) {
      const card = container.closest(".card") && tasks.length > 1;
      container.replaceChildren(plot(card ? PAPER / 2 - 24 : PAPER));
    }
  });
  window.addEventListener("afterprint", () => {
    for (const [container, plot] of drawings) {
      container.replaceChildren(plot(Math.floor(container.getBoundingClientRect().width)));
    }
  });

  const STYLE = { background: "transparent", color: "var(--ink)", fontSize: "12px", overflow: "visible" };
  const grid = { stroke: "var(--line)", strokeOpacity: 1 };
  const quiet = { color: "var(--soft)", tickSize: 0 };

  function padded(values, share = 0.08) {
    const [low, high] = d3.extent(values);
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  }

  function options(select, labels) {
    select.replaceChildren(...labels.map(([value, label]) => make("option", { value }, label)));
  }

  // ── leaderboard ─────────────────────────────────────────────────────────────────────────

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      $("button", head).addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const numeric = head.classList.contains("num");
        const up = before ? before === "descending" : !numeric;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((one, two) => {
          const [a, b] = [value(one), value(two)];
          if (a === "" || b === "") return (a === "") - (b === "");
          const order = numeric ? Number(a) - Number(b) : a.localeCompare(b);
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
  }

  // ── score by task ───────────────────────────────────────────────────────────────────────

  function taskCards(place) {
    for (const task of tasks) {
      const rows = task.standings
        .map((standing, index) => standing && { ...standing, index })
        .filter(Boolean);
      const counted = rows.find((row) => row.queries);
      const figure = make("div");
      const about = [task.measure, task.type, counted && plural(counted.queries, "query", "queries")];
      const heading = make("h3", {}, task.name);
      place.append(make("div", { class: "card" }, heading, make("p", {}, about.filter(Boolean).join(" · ")), figure));
      if (!rows.length) figure.append(make("p", { class: "note" }, "No system has a complete result."));
      else draw(figure, (width) => {
        // On a phone a system's name stands above its line instead of beside it.
        const narrow = width < 420;
        const longest = d3.max(rows, (row) => systems[row.index].short.length);
        const margin = narrow ? 8 : Math.min(Math.floor(width * 0.48), 24 + Math.ceil(6.7 * longest));
        const room = narrow ? width - 70 : margin - 14;
        const name = (index) => short(systems[index].short, Math.floor(room / 6.3));
        const domain = padded(rows.flatMap((row) => [row.low ?? row.score, row.high ?? row.score]));
        return Plot.plot({
          width,
          height: rows.length * (narrow ? 46 : 30) + 34,
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
              ? Plot.text(rows, { y: "index", frameAnchor: "left", dx: -8, dy: -17, text: (row) => name(row.index), textAnchor: "start", fill: "var(--soft)" })
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
              fill: "var(--ink)", fontWeight: (row) => (row.rank === 1 ? 650 : 400),
            }),
          ],
        });
      });
    }
  }

  // ── A against B ─────────────────────────────────────────────────────────────────────────

  const SHOWN = 100;
  const view = { collection: 0, a: 0, b: 1, measure: 0, point: null, limit: SHOWN, list: [] };
  const picks = {};

  /** Every query with its values, in the order given. */
  function compared(overview) {
    const a = overview.values[view.a][view.measure];
    const b = overview.values[view.b][view.measure];
    return overview.ids.map((id, index) => {
      const [one, two] = [a[index] ?? 0, b[index] ?? 0];
      return { id, index, text: overview.texts[index], a: one, b: two, change: two - one };
    });
  }

  const kind = (change) => (change > 5e-5 ? "gain" : change < -5e-5 ? "loss" : "same");

  async function showComparison() {
    const collection = collections[view.collection];
    const overview = await block(`collection-${view.collection}`);
    if (collection !== collections[view.collection]) return;
    const rows = compared(overview);
    view.rows = rows;
    view.point = null;
    sentence(rows, collection);
    draw($("[data-plot=scatter]"), (width) => scatter(rows, collection, Math.min(width, 620)));
    showList();
  }

  function sentence(rows, collection) {
    const place = $(".versus");
    const [nameA, nameB] = [systems[view.a].short, systems[view.b].short];
    const measure = collection.measures[view.measure];
    // The leaderboard's own figure where it is the same mean, so that rounding never shows two.
    const task = tasks.find(({ name }) => name === collection.task);
    const whole = task && task.measure === measure && collections.filter((other) => other.task === task.name).length === 1;
    const mean = (index, values) => (whole ? task.standings[index]?.score : null) ?? d3.mean(rows, values);
    const [meanA, meanB] = [mean(view.a, (row) => row.a), mean(view.b, (row) => row.b)];
    const counts = d3.rollup(rows, (group) => group.length, (row) => kind(row.change));
    const count = (name) => counts.get(name) ?? 0;
    const test = tested(collection, measure);
    const words = [make("b", {}, nameB), ` has ${measure} `, make("b", {}, score(meanB)), ", ", make("b", {}, nameA), " ", make("b", {}, score(meanA))];
    if (view.a === view.b) words.push(": the same system twice.");
    else {
      words.push(". The difference is ", make("b", { class: kind(meanB - meanA) }, signed(meanB - meanA)));
      if (test) {
        const p = test.p < 0.001 ? "p < 0.001" : `p = ${test.p.toFixed(3)}`;
        words.push(` (95% interval ${signed(test.low)} to ${signed(test.high)}, ${p})`);
        words.push(test.p < 0.05 ? ": significant." : ": not significant.");
      } else words.push(".");
    }
    const bar = make("div", { class: "tally", role: "img", "aria-label": `${count("gain")} better, ${count("same")} equal, ${count("loss")} worse` });
    const words2 = [["gain", "better with B"], ["same", "equal"], ["loss", "better with A"]];
    for (const [name] of words2) {
      const part = make("i", { class: name });
      part.style.flexGrow = count(name);
      if (count(name)) bar.append(part);
    }
    const tallies = make("p", { class: "tallies" });
    for (const [name, label] of words2) {
      tallies.append(make("span", {}, make("i", { class: `dot ${name}` }), `${number(count(name))} ${label}`));
    }
    place.replaceChildren(make("p", { class: "sentence" }, ...words), bar, tallies);
  }

  /** The test of B against A; a pair is tested once, and turned round where it is needed. */
  function tested(collection, measure) {
    const straight = collection.pairs[`${view.a}-${view.b}:${measure}`];
    const turned = collection.pairs[`${view.b}-${view.a}:${measure}`];
    return straight || (turned && { low: -turned.high, high: -turned.low, p: turned.p });
  }

  function scatter(rows, collection, width) {
    // Queries with the same two values are one point, the larger the more there are.
    const groups = d3.groups(rows, (row) => `${row.a},${row.b}`).map(([key, members]) => ({
      key, members, a: members[0].a, b: members[0].b, change: members[0].change,
    }));
    groups.sort((one, two) => two.members.length - one.members.length);
    const most = groups.length ? groups[0].members.length : 1;
    const fills = { gain: "var(--gain)", loss: "var(--loss)", same: "var(--same)" };
    const measure = collection.measures[view.measure];
    const side = Math.max(width, 260);
    const widest = Math.min(20, 5 + Math.sqrt(most) * 1.2);
    const least = rows.length > 3000 ? 2.5 : 4.5;
    const svg = Plot.plot({
      width: side,
      height: side,
      margin: 20,
      marginLeft: 52,
      marginBottom: 46,
      style: STYLE,
      className: "points",
      ariaLabel: `Every query's ${measure} with A (across) and with B (up). The list beside it holds the same queries.`,
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
    return svg;
  }

  function pick(group, circle) {
    for (const other of document.querySelectorAll("[data-picked]")) other.removeAttribute("data-picked");
    circle.setAttribute("data-picked", "");
    view.point = group.key;
    showList();
    if (group.members.length === 1) openQuery(0);
  }

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
      .filter((row) => words.every((word) => row.text.toLowerCase().includes(word) || row.id.toLowerCase() === word))
      .sort(ORDERS[$("#order").value]);
    const chosen = $(".chosen");
    chosen.hidden = view.point === null;
    if (view.point !== null) {
      const [a, b] = view.point.split(",").map(Number);
      $("span", chosen).textContent = `Only the ${plural(view.list.length, "query", "queries")} with A ${score(a)} and B ${score(b)}`;
    } else {
      for (const other of document.querySelectorAll("[data-picked]")) other.removeAttribute("data-picked");
    }
    fillList();
  }

  function fillList() {
    const items = view.list.slice(0, view.limit).map((row, place) =>
      make("li", {}, make("button", { type: "button", class: kind(row.change), "data-query": row.id, onclick: () => openQuery(place) },
        make("b", {}, kind(row.change) === "same" ? score(row.b) : signed(row.change)),
        make("span", {}, row.text || row.id))));
    const none = make("li", { class: "none" }, "No query has these words.");
    $(".queries").replaceChildren(...(items.length ? items : [none]));
    $(".more").hidden = view.list.length <= view.limit;
  }

  // ── one query ───────────────────────────────────────────────────────────────────────────

  const reader = $("dialog.reader");

  async function openQuery(place) {
    const row = view.list[place];
    if (!row) return;
    view.place = place;
    const number_ = view.collection;
    const chunk = await block(`chunk-${number_}-${Math.floor(row.index / data.chunk)}`);
    if (view.place !== place) return;
    const entry = chunk.queries[row.id];
    const measure = collections[number_].measures[view.measure];
    const relevant = Object.keys(entry.relevant);
    const about = [row.id, plural(relevant.length, "relevant document", "relevant documents")];
    const sides = view.a === view.b ? ["a"] : ["a", "b"];
    const body = $(".body", reader);
    body.replaceChildren(
      make("h2", { id: "reader-title" }, entry.text || row.text || row.id),
      make("p", { class: "about" }, about.join(" · ")),
      make("div", { class: "columns" }, ...sides.map((side) => ranking(side, row, entry, chunk.documents, measure))),
    );
    $(".place", reader).textContent = `${number(place + 1)} of ${number(view.list.length)}`;
    $("#previous").disabled = place === 0;
    $("#next").disabled = place === view.list.length - 1;
    if (!reader.open) reader.showModal();
    body.scrollTop = 0;
    body.focus({ preventScroll: true });
  }

  /** One system's first documents, then the relevant ones that are not among them. */
  function ranking(side, row, entry, documents, measure) {
    const other = view[side === "a" ? "b" : "a"];
    const [head, ranks] = entry.systems[view[side]];
    const [otherHead, otherRanks] = entry.systems[other];
    const elsewhere = (id) => otherRanks[id] ?? (otherHead.indexOf(id) + 1 || null);
    const letter = side.toUpperCase();
    const otherLetter = side === "a" ? "B" : "A";
    const moved = (id, rank) => {
      if (view.a === view.b) return null;
      const there = elsewhere(id);
      if (there === rank) return null;
      return there ? `${otherLetter}: rank ${number(there)}` : `not in ${otherLetter}’s ${id in entry.relevant ? "documents" : "first ten"}`;
    };
    const item = (id, rank) => {
      const grade = entry.relevant[id];
      const [title, text] = documents[id] || ["", ""];
      const tags = make("div", { class: "tags" });
      if (grade) tags.append(make("strong", {}, grade > 1 ? `★ relevant, grade ${grade}` : "★ relevant"));
      const move = moved(id, rank);
      if (move) tags.append(make("span", {}, move));
      return make("li", { class: grade ? "relevant" : "" },
        make("span", { class: "rank" }, rank ? number(rank) : "–"),
        tags.childNodes.length ? tags : null,
        make("h4", {}, title || (text ? "" : id)),
        text ? make("p", {}, text) : null);
    };
    const missed = Object.keys(entry.relevant)
      .filter((id) => !head.includes(id))
      .sort((one, two) => (ranks[one] ?? Infinity) - (ranks[two] ?? Infinity));
    const value = row[side];
    return make("div", {},
      make("h3", {}, mark(view[side]), `${letter}: ${systems[view[side]].short}`, make("b", {}, `${measure} ${score(value)}`)),
      make("ol", { class: "documents" }, ...head.map((id, index) => item(id, index + 1))),
      missed.length ? make("p", { class: "missed" }, `Relevant, but not in the first ${head.length}`) : null,
      missed.length ? make("ol", { class: "documents" }, ...missed.map((id) => item(id, ranks[id]))) : null);
  }

  function startQueries() {
    for (const name of ["collection", "a", "b", "measure"]) picks[name] = $(`#pick-${name}`);
    if (!picks.collection) return;
    options(picks.collection, collections.map((collection, index) => [index, collection.label]));
    const refill = () => {
      const collection = collections[view.collection];
      const names = collection.systems.map((index) => [index, systems[index].short]);
      options(picks.a, names);
      options(picks.b, names);
      options(picks.measure, collection.measures.map((measure, index) => [index, measure]));
      if (!collection.systems.includes(view.a)) view.a = collection.systems[0];
      if (!collection.systems.includes(view.b) || view.a === view.b) {
        view.b = collection.systems.find((index) => index !== view.a) ?? view.a;
      }
      if (view.measure >= collection.measures.length) view.measure = 0;
      for (const name of ["a", "b", "measure"]) picks[name].value = view[name];
    };
    // B is the best, A the second best: what was gained is what one looks for first.
    const { standings } = tasks.find((task) => task.name === collections[0].task) || { standings: [] };
    const [first, second] = d3.sort(collections[0].systems, (index) => standings[index]?.rank ?? index);
    [view.a, view.b] = second === undefined ? [first, first] : [second, first];
    for (const name of ["collection", "a", "b", "measure"]) {
      picks[name].addEventListener("change", () => {
        view[name] = Number(picks[name].value);
        if (name === "collection") refill();
        showComparison();
      });
    }
    $("#swap").addEventListener("click", () => {
      [view.a, view.b] = [view.b, view.a];
      [picks.a.value, picks.b.value] = [view.a, view.b];
      showComparison();
    });
    $("#find").addEventListener("input", showList);
    $("#order").addEventListener("change", showList);
    $("#all-queries").addEventListener("click", () => { view.point = null; showList(); });
    $(".more").addEventListener("click", () => { view.limit += SHOWN; fillList(); });
    for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
    $("#close").addEventListener("click", () => reader.close());
    $("#previous").addEventListener("click", () => openQuery(view.place - 1));
    $("#next").addEventListener("click", () => openQuery(view.place + 1));
    reader.addEventListener("click", (event) => { if (event.target === reader) reader.close(); });
    reader.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") openQuery(view.place - 1);
      if (event.key === "ArrowRight") openQuery(view.place + 1);
    });
    reader.addEventListener("close", () => {
      const button = document.querySelectorAll(".queries button")[view.place];
      if (button) button.focus();
    });
    refill();
    showComparison();
  }

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
            Plot.line(points, { x: "k", y: "recall", z: "index", stroke: { value: (point) => color(point.index), scale: null }, strokeWidth: 2, curve: "monotone-x" }),
            Plot.dot(points, {
              x: "k", y: "recall", r: 4, symbol: { value: (point) => symbol(point.index), scale: null }, fill: { value: (point) => color(point.index), scale: null }, stroke: "var(--paper)",
              title: (point) => `${systems[point.index].label}\nR@${point.k} ${score(point.recall)}`,
            }),
            Plot.text(["first k documents"], { frameAnchor: "bottom", dy: 36, fill: "var(--soft)" }),
            wide ? Plot.text(ends, { x: "k", y: "at", dx: 14, textAnchor: "start", text: (point) => short(systems[point.index].short, 34), fill: { value: (point) => color(point.index), scale: null } }) : null,
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

  function legend(indices) {
    return make("p", { class: "key" }, ...indices.map((index) => make("span", {}, marked(index), ` ${systems[index].short}`)));
  }

  function marked(index) {
    return make("i", { class: "mark", "aria-hidden": "true" }, mark(index));
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
            Plot.axisX({ ...quiet, ticks: wide ? 6 : 3, tickFormat: "~s", label: COSTS[name], labelAnchor: "center", labelArrow: "none" }),
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

  function startPublished(select) {
    if (!select) return;
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
      let place = 0;
      $(".ladder").replaceChildren(...rows.map((row) => {
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
      }));
    };
    select.addEventListener("change", show);
    show();
  }

  // ── start ───────────────────────────────────────────────────────────────────────────────

  function followSections() {
    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-15% 0px -75% 0px" });
    for (const section of document.querySelectorAll("main > section")) seen.observe(section);
  }

  sortable($("table.board"));
  taskCards($("[data-plot=tasks]"));
  startQueries();
  startRecall($("#pick-recall"));
  startCosts($("#pick-cost"), $("#pick-cost-task"));
  startPublished($("#pick-published"));
  followSections();
  document.documentElement.dataset.ready = "true";
})();
