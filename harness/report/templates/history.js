"use strict";
(async () => {
  const data = await unpackedPage();
  const drawIn = (part) => {
    for (const place of part.querySelectorAll("[data-figure]")) {
      if (!place.figure && !place.closest("details:not([open])")) draw(place, data.figures[place.dataset.figure]);
    }
  };
  drawIn(document);
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", () => drawIn(part));
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
})();
