// Tables as text: CSV and Markdown, copied to the clipboard.
report.table = (function () {
  "use strict";

  /** A cell of CSV. A text that a spreadsheet would take for a formula gets an apostrophe. */
  function csvCell(value) {
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value ?? "") ? `'${value}` : value ?? "";
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv(head, rows) {
    return [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
  }

  function markdownCell(value) {
    const text = typeof value === "number" ? value.toFixed(4) : value ?? "";
    return text.replace(/[\\|`*_<>[\]]/g, "\\$&").replace(/\s+/g, " ");
  }

  function markdown(head, rows) {
    const numeric = head.map((_, column) => rows.some((row) => typeof row[column] === "number"));
    const line = (cells) => `| ${cells.join(" | ")} |`;
    return [
      line(head.map(markdownCell)),
      line(numeric.map((yes) => (yes ? "---:" : "---"))),
      ...rows.map((row) => line(row.map(markdownCell))),
    ].join("\n") + "\n";
  }

  async function copy(text, button) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page that was opened from a disk may not use the clipboard directly in every browser.
      const area = report.make("textarea", { class: "offscreen" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1600);
  }

  return { csv, markdown, copy };
})();
