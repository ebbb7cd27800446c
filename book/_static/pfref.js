// What is wider than the page can be reached by the Tab key, and scrolled by the arrows.
const WIDE = "pre, div.math, .pst-scrollable-table-container, .cell_output > .output";

function reach() {
  for (const box of document.querySelectorAll(WIDE)) {
    const scrolls = box.scrollWidth > box.clientWidth;
    if (scrolls) box.tabIndex = 0;
    else if (box.matches("div.math")) box.removeAttribute("tabindex");
  }
}

// A figure is shown larger where it is tapped, and small again where it is tapped again.
function enlarge(event) {
  const image = event.target.closest(".bd-article img");
  if (!image || image.closest("a")) return;
  const shown = document.createElement("dialog");
  shown.className = "enlarged";
  shown.setAttribute("aria-label", "Figure, enlarged");
  shown.tabIndex = 0;
  shown.append(image.cloneNode());
  shown.addEventListener("click", () => shown.close());
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
}

addEventListener("load", () => {
  const formulas = window.MathJax?.startup?.promise ?? Promise.resolve();
  formulas.then(reach);
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);
  document.addEventListener("click", enlarge);
});
