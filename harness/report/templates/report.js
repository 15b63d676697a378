"use strict";
(async () => {
  const data = await unpackedPage();
  const places = [...document.querySelectorAll("[data-figure]")];
  for (const place of places) draw(place, data.figures[place.dataset.figure]);

  for (const select of document.querySelectorAll("select.quantity")) {
    select.addEventListener("change", () => {
      for (const place of select.closest("section").querySelectorAll(".throughput [data-figure]")) {
        const usual = data.figures[place.dataset.figure];
        const { data: traces, layout: of } = usual;
        const chosen = select.value;
        const axis = traces[0].type === "bar" ? "xaxis" : "yaxis";
        const other = (trace) => ({ ...trace, [trace.type === "bar" ? "text" : "y"]: trace.meta[chosen] });
        draw(place, !chosen ? usual : {
          data: traces.map(other),
          layout: { ...of, [axis]: { ...of[axis], title: { text: of.meta[chosen] } } },
        });
      }
    });
  }

  // Filters.
  const form = document.getElementById("filters");
  const body = document.querySelector("#table tbody");
  const rows = [...body.rows];
  const fields = [...form.querySelectorAll("[data-field]")];
  function filter() {
    const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const warned = document.getElementById("warned").checked;
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(
        words.every((word) => text.includes(word)) &&
        fields.every((field) => !field.value || row.dataset[field.dataset.field] === field.value) &&
        (!warned || "warned" in row.dataset)
      );
      shown += !row.hidden;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} rows`;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter(); // the browser may restore the form's values on reload

  // Sorting: numeric columns by data-value, others by text. Cells without a value stay last in both directions.
  const heads = [...document.querySelectorAll("#table th[aria-sort]")];
  function sortBy(head) {
    const column = head.cellIndex;
    const numeric = head.classList.contains("number");
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const key = (row) => (numeric ? row.cells[column].dataset.value : row.cells[column].textContent.trim());
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (a === "" ? 0 : direction * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
    for (const each of heads) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  }
  for (const head of heads) head.querySelector("button").addEventListener("click", () => sortBy(head));

  // Samples on demand.
  const dialog = document.getElementById("samples");
  function show(record) {
    const set = (id, text) => (document.getElementById(id).textContent = text);
    set("samples-title", record.title);
    set("samples-case", record.case);
    const item = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
    document.getElementById("samples-warnings").replaceChildren(...record.warnings.map((words) => item("li", words)));
    document.getElementById("samples-facts").replaceChildren(
      ...Object.entries(record.facts).flatMap(([term, words]) => [item("dt", term), item("dd", words)]),
    );
    if (!dialog.open) dialog.showModal();
    const shapes = Object.entries(record.lines).filter(([, y]) => y !== null).map(([name, y]) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below",
      line: { color: "#D55E00", width: name === "median" ? 2 : 1, dash: name === "median" ? "solid" : "dot" },
    }));
    for (const [start, end] of record.throttled) {
      shapes.push({ type: "rect", x0: start - 0.5, x1: end - 0.5, yref: "paper", y0: 0, y1: 1, layer: "below", fillcolor: "#D55E00", opacity: 0.2, line: { width: 0 } });
    }
    const look = { type: "scatter", mode: "markers", marker: { color: "#0072B2", size: 5 } };
    draw(document.getElementById("samples-plot"), {
      data: [
        { ...look, y: record.samples, dx: record.every, name: "samples in order", hovertemplate: "sample %{x}: %{y}<extra></extra>" },
        { type: "histogram", y: record.samples, xaxis: "x2", marker: { color: "#56B4E9" }, name: "histogram", hovertemplate: "%{x} samples at %{y}<extra></extra>" },
      ],
      layout: {
        xaxis: { title: { text: "sample" }, domain: [0, 0.68] },
        xaxis2: { title: { text: "count" }, domain: [0.72, 1], automargin: true },
        yaxis: { title: { text: "one launch" }, exponentformat: "SI", ticksuffix: "s" },
        shapes,
        showlegend: false,
      },
    });
  }
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.samples");
    if (button) show(data.samples[button.dataset.samples]);
  });
})();
