"use strict";
(async () => {
  // A large page holds its content and data compressed: see `page.py`.
  async function unpacked(element) {
    if (element.dataset.packed !== "gzip") return element.textContent;
    const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const content = document.querySelector("main > [data-packed]");
  if (content) {
    content.parentElement.innerHTML = await unpacked(content);
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
  const data = JSON.parse(await unpacked(document.getElementById("data")));
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { displaylogo: false, displayModeBar: touch ? false : "hover", modeBarButtons: [["toImage", "resetScale2d"]] };

  // The style sheet sets the colours of text and lines; the layout only makes the background transparent.
  function layout(of, width, entries) {
    const rows = Math.ceil(entries / Math.max(1, Math.floor(width / 170)));
    const axis = { automargin: true, zeroline: false };
    return {
      width, height: (of.height || 320) + 22 * rows, margin: { l: 10, r: 14, t: 26, b: 10 }, dragmode: touch ? false : "zoom",
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { size: 12, family: "inherit" }, hovermode: "closest",
      hoverlabel: { bgcolor: "#1b1f24", bordercolor: "#8c8c8c", font: { color: "#ffffff", size: 12 }, align: "left" },
      modebar: { bgcolor: "transparent", color: "#8c8c8c", activecolor: "#0072B2" },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 0, yref: "container", yanchor: "bottom" },
      ...of, xaxis: { ...axis, ...of.xaxis }, yaxis: { ...axis, ...of.yaxis },
      ...(of.height && { height: of.height + 22 * rows }),
    };
  }

  function draw(place, figure) {
    place.figure = figure;
    const entries = figure.data.filter((trace) => trace.showlegend !== false).length;
    return Plotly.react(place, figure.data, layout(figure.layout, place.clientWidth, entries), config);
  }

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

  const drawn = () => [...document.querySelectorAll(".plot")].filter((place) => place.figure && place.clientWidth);
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => drawn().forEach((place) => draw(place, place.figure)), 100);
  });
  // Paper is narrower than most windows, and the browser lays the page out for it only after this event.
  addEventListener("beforeprint", () => drawn().forEach((place) => Plotly.relayout(place, { width: 660 })));
  addEventListener("afterprint", () => drawn().forEach((place) => draw(place, place.figure)));

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
