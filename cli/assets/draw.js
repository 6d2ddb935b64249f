"use strict";
(function () {
  const report = JSON.parse(document.getElementById("report").textContent);
  const values = (cells) => cells.numbers || cells.texts;
  const rows = Object.create(null);
  for (const table of report.tables) {
    const length = table.columns.length ? values(table.columns[0].values).length : 0;
    rows[table.title] = Array.from({ length }, (_, row) => Object.fromEntries(table.columns.map((c) => [c.name, values(c.values)[row]])));
  }
  // Each chart has a frame without this page's origin: it reaches nothing of the page, and loads nothing.
  const library = document.getElementById("library").textContent;
  const policy = document.querySelector("meta[http-equiv]").content.replaceAll('"', "&quot;");
  const frames = [];
  report.charts.forEach((chart, index) => {
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts");
    frame.title = "chart " + (index + 1);
    // In JSON `<` can only stand in a string, where it may be written as an escape.
    const data = JSON.stringify({ spec: JSON.parse(chart.spec), tables: rows }).replaceAll("<", "\\u003c");
    frame.srcdoc = '<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="' + policy + '">' +
      '<style>body { margin: 0; font: 14px system-ui, sans-serif }</style><div id="place"></div>' +
      '<script type="application/json" id="chart">' + data + "</" + "script><script>" + library + "</" + "script>";
    frames.push(frame);
    document.getElementById("chart" + index).append(frame);
  });
  addEventListener("message", (event) => {
    const frame = frames.find((frame) => frame.contentWindow === event.source);
    const height = event.data && event.data.height;
    if (frame && Number.isFinite(height)) frame.style.height = Math.min(Math.max(height + 4, 60), 1200) + "px";
  });
  // What begins like a formula is one in a spreadsheet, unless it is marked as a text.
  const text = (cell) => (/^[=+\-@\t\r\n]/.test(cell) ? "'" + cell : cell);
  const quote = (cell) => (typeof cell === "string" ? '"' + text(cell).replaceAll('"', '""') + '"' : cell === null ? "" : String(cell));
  const csv = (table) => {
    const columns = table.columns.map((column) => values(column.values));
    const lines = [table.columns.map((column) => quote(column.name)).join(",")];
    for (let row = 0; row < (columns.length ? columns[0].length : 0); row++) lines.push(columns.map((cells) => quote(cells[row])).join(","));
    return lines.join("\n") + "\n";
  };
  for (const button of document.querySelectorAll("button.csv")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csv(report.tables[Number(button.dataset.table)])], { type: "text/csv" }));
      link.download = "table.csv";
      link.click();
    });
  }
})();
