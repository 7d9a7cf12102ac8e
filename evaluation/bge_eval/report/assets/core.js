// What every part of the page uses: its data, elements, marks, blocks and plots.
// Texts of data sets only ever become text nodes, and ids are never names of fields.
const report = (function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const SYMBOLS = ["Circle", "Square", "Triangle", "Diamond", "Star", "Cross", "Wye"].map((name) => d3[`symbol${name}`]);
  const $ = (selector, root = document) => root.querySelector(selector);
  const color = (index) => `var(--s${index % 8})`;
  const symbol = (index) => SYMBOLS[(index + Math.floor(index / 8)) % SYMBOLS.length];
  const score = (value) => (value == null ? "–" : value.toFixed(4));
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
  const number = (value) => value.toLocaleString("en");
  const plural = (count, one, several = `${one}s`) => `${number(count)} ${count === 1 ? one : several}`;
  const short = (text, length) => (text.length > length ? text.slice(0, Math.max(1, length - 1)) + "…" : text);
  const pValue = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

  const UNITS = { STS: ["pair", "pairs"], PairClassification: ["pair", "pairs"], Classification: ["text", "texts"], Clustering: ["sample", "samples"] };
  /** What the values of a task are of, one and several. */
  const unit = (task) => UNITS[task.type] ?? ["query", "queries"];

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

  function options(select, labels) {
    select.replaceChildren(...labels.map(([value, label]) => make("option", { value }, label)));
  }

  // ── blocks ──────────────────────────────────────────────────────────────────────────────

  /** Wait until the page has read a block: blocks stand last, and a large page is long in coming. */
  function arrived(id) {
    const complete = () => {
      const element = document.getElementById(id);
      return element && (element.nextElementSibling || document.readyState !== "loading") ? element : null;
    };
    return new Promise((resolve, reject) => {
      const look = () => {
        const element = complete();
        if (element) resolve(element);
        else if (document.readyState !== "loading") reject(new Error(`The page has no block ${id}.`));
        else setTimeout(look, 60);
      };
      look();
    });
  }

  /** Read a gzipped JSON block of the page, once. */
  const blocks = new Map();
  function block(id) {
    if (!blocks.has(id)) {
      blocks.set(id, arrived(id).then((element) => {
        const packed = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
        return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
      }));
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

  function marked(index) {
    return make("i", { class: "mark", "aria-hidden": "true" }, mark(index));
  }

  function legend(indices) {
    return make("p", { class: "key" }, ...indices.map((index) => make("span", {}, marked(index), ` ${data.systems[index].short}`)));
  }

  /** Draw a plot in a container now and whenever its width changes. */
  const drawings = new Map();
  function draw(container, plot) {
    if (!container) return;
    const known = drawings.has(container);
    drawings.set(container, plot);
    let width = Math.floor(container.getBoundingClientRect().width);
    if (width) container.replaceChildren(plot(width));
    if (known) return;
    new ResizeObserver(([entry]) => {
      const now = Math.floor(entry.contentRect.width);
      if (now && now !== width) {
        width = now;
        container.replaceChildren(drawings.get(container)(now));
      }
    }).observe(container);
  }

  // Paper is narrower than a screen: what was drawn for the one is drawn anew for the other.
  const PAPER = 660;
  window.addEventListener("beforeprint", () => {
    for (const [container, plot] of drawings) {
      const inColumns = container.closest(".cards:not(.single)");
      container.replaceChildren(plot(inColumns ? PAPER / 2 - 24 : PAPER));
    }
  });
  window.addEventListener("afterprint", () => {
    for (const [container, plot] of drawings) {
      const width = Math.floor(container.getBoundingClientRect().width);
      if (width) container.replaceChildren(plot(width));
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

  return {
    data, $, color, symbol, score, signed, number, plural, unit, short, pValue, make, options,
    block, mark, marked, legend, draw, STYLE, grid, quiet, padded,
  };
})();
