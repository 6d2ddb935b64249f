"use strict";
// In a frame of its own, without an origin: a chart is a guest's, and may draw the report's tables, in this frame, and nothing else.
(function () {
  const { spec, tables } = JSON.parse(document.getElementById("chart").textContent);
  const place = document.getElementById("place");
  const failed = (error) => { place.textContent = "This chart cannot be drawn: " + error.message; };
  const refuse = () => Promise.reject(new Error("a chart may not load anything"));
  const loader = { load: refuse, sanitize: refuse, http: refuse, file: refuse };
  const MOST = 1e6;
  // No fields to fill in, no elements of the page, no rows without end.
  const tamed = (part) => {
    if (Array.isArray(part)) return part.forEach(tamed);
    if (part === null || typeof part !== "object") return undefined;
    if (Array.isArray(part.signals)) part.signals.forEach((signal) => { delete signal.bind; });
    if (part.type === "sequence") {
      const rows = (part.stop - (part.start || 0)) / (part.step === undefined ? 1 : part.step);
      if (!(Math.abs(rows) <= MOST)) throw new Error("it makes up more rows than " + MOST);
    }
    return Object.values(part).forEach(tamed);
  };
  const tell = () => parent.postMessage({ height: document.body.offsetHeight }, "*");
  new ResizeObserver(tell).observe(document.body);
  try {
    spec.datasets = Object.assign({}, spec.datasets, tables);
    delete spec.usermeta;
    const compiled = vegaLite.compile(spec).spec;
    tamed(compiled);
    const runtime = vega.parse(compiled, {}, { ast: true });
    const view = new vega.View(runtime, { renderer: "svg", container: place, hover: true, loader, expr: vega.expressionInterpreter });
    view.runAsync().catch(failed).then(tell);
  } catch (error) {
    failed(error);
    tell();
  }
})();
