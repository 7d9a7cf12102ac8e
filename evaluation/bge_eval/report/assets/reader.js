// One query: its documents in up to four systems, side by side.
report.reader = (function () {
  "use strict";
  const { data, $, make, options, block, mark, number, plural, score, address } = report;
  const { systems } = data;
  const MOST = 4;
  const reader = $("dialog.reader");
  const body = $(".body", reader);
  let extra = [];

  const shown = () => {
    const { view, collection } = report.queries;
    const having = collection().systems;
    return [...new Set([view.a, view.b, ...extra])].filter((index) => having.includes(index)).slice(0, MOST);
  };
  const letter = (place) => "ABCD"[place];

  async function open(place) {
    const { view, collection } = report.queries;
    const row = view.list[place];
    if (!row) return;
    view.place = place;
    const chosen = view.collection;
    const chunk = await block(`documents-${chosen}-${Math.floor(row.index / data.chunk)}`);
    const values = await block(`values-${chosen}-${view.measure}`);
    if (view.place !== place || view.collection !== chosen) return;
    const [full, relevant, rankings] = chunk.queries[row.index % data.chunk];
    const entry = {
      relevant: new Map(relevant),
      documents: chunk.documents,
      columns: shown().map((index, at) => {
        const column = collection().systems.indexOf(index);
        const [head, later] = rankings[column];
        const ranks = new Map([...head.map((document, rank) => [document, rank + 1]), ...later]);
        return { index, letter: letter(at), head, ranks, value: (values.values[column][row.index] ?? 0) / data.scale };
      }),
    };
    const about = [row.id, plural(relevant.length, "relevant document")];
    body.replaceChildren(
      make("h2", { id: "reader-title", dir: "auto" }, full || row.text || row.id),
      make("p", { class: "about" }, make("bdi", {}, about[0]), ` · ${about[1]}`),
      make("div", { class: "columns", "data-columns": entry.columns.length }, ...entry.columns.map((column) => ranking(column, entry))),
    );
    reader.dataset.columns = entry.columns.length;
    $(".place", reader).textContent = `${number(place + 1)} of ${number(view.list.length)}`;
    $("#previous").disabled = place === 0;
    $("#next").disabled = place === view.list.length - 1;
    fillBeside();
    address.set({ read: row.id, beside: extra.map((index) => systems[index].short).join("|") });
    if (!reader.open) reader.showModal();
    body.scrollTop = 0;
    body.focus({ preventScroll: true });
  }

  /** One system's first documents, then the relevant ones that are not among them. */
  function ranking(column, entry) {
    const others = entry.columns.filter((other) => other !== column);
    const item = (place, rank) => {
      const [id, title, text] = entry.documents[place];
      const grade = entry.relevant.get(place);
      const tags = make("div", { class: "tags" });
      if (grade) tags.append(make("strong", {}, grade > 1 ? `★ relevant, grade ${grade}` : "★ relevant"));
      for (const other of others) {
        const there = other.ranks.get(place);
        if (there === rank) continue;
        const missing = `not in ${other.letter}’s ${grade ? "documents" : "first ten"}`;
        tags.append(make("span", {}, there ? `${other.letter}: rank ${number(there)}` : missing));
      }
      return make("li", { class: grade ? "relevant" : "" },
        make("span", { class: "rank" }, rank ? number(rank) : "–"),
        tags.childNodes.length ? tags : null,
        make("h4", { dir: "auto" }, title || (text ? "" : id)),
        text ? make("p", { dir: "auto" }, text) : null);
    };
    const missed = [...entry.relevant.keys()]
      .filter((place) => !column.head.includes(place))
      .sort((one, two) => (column.ranks.get(one) ?? Infinity) - (column.ranks.get(two) ?? Infinity));
    const removable = extra.includes(column.index);
    return make("div", {},
      make("h3", {}, mark(column.index), make("span", {}, `${column.letter}: `, make("bdi", {}, systems[column.index].short)),
        make("b", {}, `${report.queries.measure()} ${score(column.value)}`),
        removable ? make("button", { type: "button", class: "remove", "aria-label": `Leave out ${systems[column.index].short}`, onclick: () => leaveOut(column.index) }, "✕") : null),
      make("ol", { class: "documents" }, ...column.head.map((place, at) => item(place, at + 1))),
      missed.length ? make("p", { class: "missed" }, `Relevant, but not in the first ${column.head.length}`) : null,
      missed.length ? make("ol", { class: "documents" }, ...missed.map((place) => item(place, column.ranks.get(place)))) : null);
  }

  function fillBeside() {
    const having = report.queries.collection().systems.filter((index) => !shown().includes(index));
    const full = shown().length >= MOST;
    options($("#beside"), [["", full ? "four at most" : "another system"], ...having.map((index) => [index, systems[index].short])]);
    $("#beside").disabled = full;
    $(".beside").hidden = !having.length;
  }

  function leaveOut(index) {
    extra = extra.filter((other) => other !== index);
    open(report.queries.view.place);
  }

  function close() {
    address.set({ read: "" });
    const button = document.querySelectorAll(".queries button")[report.queries.view.place];
    if (button) button.focus();
  }

  function start() {
    $("#beside").addEventListener("change", () => {
      if ($("#beside").value === "") return;
      extra = shown().slice(2).concat(Number($("#beside").value));
      open(report.queries.view.place);
    });
    $("#close").addEventListener("click", () => reader.close());
    $("#previous").addEventListener("click", () => open(report.queries.view.place - 1));
    $("#next").addEventListener("click", () => open(report.queries.view.place + 1));
    reader.addEventListener("click", (event) => { if (event.target === reader) reader.close(); });
    reader.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT") return;
      if (event.key === "ArrowLeft") open(report.queries.view.place - 1);
      if (event.key === "ArrowRight") open(report.queries.view.place + 1);
    });
    reader.addEventListener("close", close);
  }

  /** Open the query that the address names. */
  function restore() {
    const names = address.get("beside").split("|");
    extra = names.map((name) => systems.findIndex((system) => system.short === name)).filter((index) => index >= 0);
    const place = report.queries.view.list.findIndex((row) => row.id === address.get("read"));
    if (address.get("read") && place >= 0) open(place);
  }

  return { open, start, restore };
})();
