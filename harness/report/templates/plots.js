"use strict";
// What the pages share: unpacking of large contents (see `page.py`), drawing of plots, and their size.
async function unpacked(element) {
  if (element.dataset.packed !== "gzip") return element.textContent;
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Shows the content of the page, and returns its data.
async function unpackedPage() {
  const content = document.querySelector("main > [data-packed]");
  if (content) {
    content.parentElement.innerHTML = await unpacked(content);
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
  return JSON.parse(await unpacked(document.getElementById("data")));
}

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

const drawn = () => [...document.querySelectorAll(".plot")].filter((place) => place.figure && place.clientWidth);
let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => drawn().forEach((place) => draw(place, place.figure)), 100);
});
// Paper is narrower than most windows, and the browser lays the page out for it only after this event.
addEventListener("beforeprint", () => drawn().forEach((place) => Plotly.relayout(place, { width: 660 })));
addEventListener("afterprint", () => drawn().forEach((place) => draw(place, place.figure)));
