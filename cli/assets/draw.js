"use strict";
(function () {
  const report = JSON.parse(document.getElementById("report").textContent);
  const values = (cells) => cells.numbers || cells.texts;
  const rows = {};
  for (const table of report.tables) {
    const length = table.columns.length ? values(table.columns[0].values).length : 0;
    rows[table.title] = Array.from({ length }, (_, row) => Object.fromEntries(table.columns.map((c) => [c.name, values(c.values)[row]])));
  }
  // A chart is a guest's: it may draw the report's tables and nothing from anywhere else.
  const refuse = () => Promise.reject(new Error("a chart may not load anything"));
  const loader = { load: refuse, sanitize: refuse, http: refuse, file: refuse };
  report.charts.forEach((chart, index) => {
    const place = document.getElementById("chart" + index);
    try {
      const spec = JSON.parse(chart.spec);
      spec.datasets = Object.assign({}, spec.datasets, rows);
      const compiled = vegaLite.compile(spec).spec;
      const runtime = vega.parse(compiled, {}, { ast: true });
      const view = new vega.View(runtime, { renderer: "svg", container: place, hover: true, loader, expr: vega.expressionInterpreter });
      view.runAsync().catch((error) => { place.textContent = "This chart cannot be drawn: " + error.message; });
    } catch (error) {
      place.textContent = "This chart cannot be drawn: " + error.message;
    }
  });
  const quote = (cell) => (typeof cell === "string" ? '"' + cell.replaceAll('"', '""') + '"' : cell === null ? "" : String(cell));
  for (const button of document.querySelectorAll("button.csv")) {
    button.addEventListener("click", () => {
      const table = report.tables.find((table) => table.title === button.dataset.table);
      const lines = [table.columns.map((c) => quote(c.name)).join(",")];
      for (const row of rows[table.title]) lines.push(table.columns.map((c) => quote(row[c.name])).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
      link.download = "table.csv";
      link.click();
    });
  }
})();
