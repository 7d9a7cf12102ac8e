// The state of the page in its address, so that a link shows what its sender saw.
report.address = (function () {
  "use strict";
  const text = location.hash.slice(1);
  const isPlace = text && !text.includes("=");
  const state = new URLSearchParams(isPlace ? { at: text } : text);

  function write() {
    const hash = state.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  /** Return a part of the state, "" by default. */
  const get = (name) => state.get(name) ?? "";

  /** Change parts of the state; "" and null take a part out. */
  function set(parts) {
    for (const [name, value] of Object.entries(parts)) {
      if (value === "" || value === null || value === undefined) state.delete(name);
      else state.set(name, value);
    }
    write();
  }

  /** Go to a section by a link of the page, and keep the rest of the state. */
  function follow(link) {
    link.addEventListener("click", (event) => {
      const section = document.getElementById(link.hash.slice(1));
      if (!section) return;
      event.preventDefault();
      set({ at: section.id });
      section.scrollIntoView();
      section.querySelector("h2")?.setAttribute("tabindex", "-1");
      section.querySelector("h2")?.focus({ preventScroll: true });
    });
  }

  // Another address was typed or pasted: show what it says.
  window.addEventListener("hashchange", () => location.reload());

  return { get, set, follow };
})();
