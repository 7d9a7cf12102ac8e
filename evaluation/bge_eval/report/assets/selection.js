// The filters: which tasks and systems are shown, and their scores, means and ranks.
report.selection = (function () {
  "use strict";
  const { data, $, options, plural, address } = report;
  const { tasks, systems } = data;
  const listeners = [];
  const inputs = { type: $("#only-type"), language: $("#only-language"), task: $("#only-task"), model: $("#only-model") };
  const languages = [...new Set(tasks.flatMap((task) => Object.keys(task.languages)))].sort();
  const types = [...new Set(tasks.map((task) => task.type))];
  const value = (name) => inputs[name]?.value ?? "";

  /** The name of a language code such as "deu-Latn". */
  function languageName(code) {
    try {
      return new Intl.DisplayNames(["en"], { type: "language" }).of(code.split("-")[0]) + (ambiguous.has(code) ? ` (${code})` : "");
    } catch {
      return code;
    }
  }
  const stems = d3.rollup(languages, (group) => group.length, (code) => code.split("-")[0]);
  const ambiguous = new Set(languages.filter((code) => stems.get(code.split("-")[0]) > 1));

  /** Whether a name contains one of the parts that are typed, separated by commas. */
  function matches(name, typed) {
    const parts = typed.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
    return !parts.length || parts.some((part) => name.toLowerCase().includes(part));
  }

  /** The tasks that are shown. */
  function shownTasks() {
    return tasks.filter((task) =>
      (value("type") === "" || task.type === types[Number(value("type"))]) &&
      (value("language") === "" || Object.hasOwn(task.languages, value("language"))) &&
      matches(task.name, value("task")));
  }

  /** The indices of the systems that are shown. */
  function shownSystems() {
    return systems.map((_, index) => index).filter((index) => matches(systems[index].label, value("model")));
  }

  /** A system's standing on a task: of the chosen language alone, if one is chosen. */
  function standing(task, index) {
    const language = value("language");
    if (!language || Object.keys(task.languages).length === 1) return task.standings[index];
    const own = task.languages[language][index];
    return own === null ? null : { score: own, low: null, high: null, tied: false };
  }

  /** A system's mean over tasks: its score, interval and number of tasks; the score needs all of them. */
  function mean(over, index) {
    const of = over.map((task) => standing(task, index)).filter(Boolean);
    if (!over.length || of.length < over.length) return { score: null, done: of.length, total: over.length };
    const score = d3.mean(of, (each) => each.score);
    if (of.some((each) => each.low === null)) return { score, low: null, high: null, done: of.length, total: over.length };
    // The tasks' queries are drawn independently, so the squares of their reaches add up.
    const reach = (end) => Math.sqrt(d3.sum(of, (each) => (each[end] - each.score) ** 2)) / of.length;
    return { score, low: score - reach("low"), high: score + reach("high"), done: of.length, total: over.length };
  }

  /** Ranks by Borda count, as mteb computes them: a task gives a system the number of systems below it. */
  function bordaRanks(over, indices) {
    const points = new Map(indices.map((index) => [index, 0]));
    for (const task of over) {
      const scores = indices.map((index) => standing(task, index)?.score).filter((each) => each !== undefined);
      for (const index of indices) {
        const own = standing(task, index)?.score;
        if (own === undefined) continue;
        const above = scores.filter((other) => other > own).length;
        const equal = scores.filter((other) => other === own).length;
        points.set(index, points.get(index) + indices.length - (above + (equal + 1) / 2));
      }
    }
    const all = [...points.values()];
    return new Map(indices.map((index) => [index, 1 + all.filter((other) => other > points.get(index) + 1e-9).length]));
  }

  const isFiltered = () => Object.keys(inputs).some((name) => value(name) !== "");
  const onlyModels = () => value("model") !== "";

  function describe() {
    const parts = [];
    const [over, indices] = [shownTasks(), shownSystems()];
    if (over.length < tasks.length) parts.push(`${over.length} of ${plural(tasks.length, "task")}`);
    if (indices.length < systems.length) parts.push(`${indices.length} of ${plural(systems.length, "system")}`);
    if (value("language")) parts.push(`scores in ${languageName(value("language"))}`);
    return parts.length ? `Shown: ${parts.join(", ")}. Means and ranks are over these.` : "";
  }

  function changed() {
    $("#reset").hidden = !isFiltered();
    $(".shown").textContent = describe();
    for (const listener of listeners) listener();
  }

  function start() {
    if (inputs.type) options(inputs.type, [["", "all"], ...types.map((type, index) => [index, type || "other"])]);
    if (inputs.language) options(inputs.language, [["", "all"], ...languages.map((code) => [code, languageName(code)])]);
    for (const [name, input] of Object.entries(inputs)) {
      if (!input) continue;
      const saved = address.get(name);
      input.value = name === "type" && saved ? String(types.indexOf(saved)) : saved;
      input.addEventListener("input", () => {
        address.set({ [name]: name === "type" && input.value ? types[Number(input.value)] : input.value });
        changed();
      });
    }
    $("#reset").addEventListener("click", () => {
      for (const input of Object.values(inputs)) if (input) input.value = "";
      address.set({ type: "", language: "", task: "", model: "" });
      changed();
    });
    changed();
  }

  return {
    types, languages, languageName, tasks: shownTasks, systems: shownSystems, standing, mean, bordaRanks,
    isFiltered, onlyModels, start, onChange: (listener) => listeners.push(listener),
  };
})();
