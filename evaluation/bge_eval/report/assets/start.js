// Start every part of the page.
(function () {
  "use strict";
  const { $, address, marked } = report;

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
    for (const link of document.querySelectorAll("nav a, .skip")) address.follow(link);
  }

  /** Start a section when it comes near, when the address asks for it, or when all else is done. */
  function whenWanted(section, start) {
    let started = false;
    const once = () => {
      if (started) return;
      started = true;
      near.disconnect();
      start();
    };
    const near = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) once(); }, { rootMargin: "600px 0px" });
    near.observe(section);
    if (address.get("queries") || address.get("read") || address.get("at")) once();
    const later = window.requestIdleCallback ?? ((task) => setTimeout(task, 200));
    if (document.readyState === "complete") later(once);
    else window.addEventListener("load", () => later(once));
    report.startQueries = once;
  }

  for (const place of document.querySelectorAll("details .mark")) place.replaceWith(marked(Number(place.dataset.system)));
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  report.board.start();
  report.heat.start();
  report.scores.start();
  report.trend.start();
  report.matrix.start();
  report.selection.start();
  report.curves.start();
  report.deployment.start();
  if (report.queries) whenWanted($("#queries"), report.queries.start);
  followSections();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds
  if (address.get("at")) requestAnimationFrame(() => document.getElementById(address.get("at"))?.scrollIntoView());
})();
