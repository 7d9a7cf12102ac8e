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

  for (const place of document.querySelectorAll("details .mark")) place.replaceWith(marked(Number(place.dataset.system)));
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  report.board.start();
  report.heat.start();
  report.scores.start();
  report.matrix.start();
  report.selection.start();
  report.curves.start();
  report.queries?.start();
  followSections();
  document.documentElement.dataset.ready = "true";
  if (address.get("at")) requestAnimationFrame(() => document.getElementById(address.get("at"))?.scrollIntoView());
})();
