// What is wider than the page can be reached by the Tab key, and scrolled by the arrows.
const WIDE = "pre, div.math, span.math.wide, .pst-scrollable-table-container, .cell_output > .output";

function reach() {
  for (const formula of document.querySelectorAll("span.math")) {
    const room = formula.parentElement.closest("p, li, td, dd, div").clientWidth;
    const needed = formula.querySelector("mjx-container")?.scrollWidth ?? 0;
    formula.classList.toggle("wide", room > 0 && needed > room);
  }
  for (const box of document.querySelectorAll(WIDE)) {
    const scrolls = box.scrollWidth > box.clientWidth;
    if (scrolls) box.tabIndex = 0;
    else if (box.matches(".math")) box.removeAttribute("tabindex");
  }
}

// A figure is shown larger where it is tapped, or has the focus and Enter or Space is
// pressed, and small again by the same or by Escape.
const FIGURE = ".bd-article img:not(a img)";

function offer() {
  for (const image of document.querySelectorAll(FIGURE)) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    image.setAttribute("aria-label", `Enlarge: ${image.alt}`);
  }
}

function enlarge(image) {
  const shown = document.createElement("dialog");
  shown.className = "enlarged";
  shown.setAttribute("aria-label", "Figure, enlarged");
  shown.tabIndex = 0;
  const large = image.cloneNode();
  for (const name of ["id", "tabindex", "role", "aria-label"]) large.removeAttribute(name);
  shown.append(large);
  shown.addEventListener("click", () => shown.close());
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
}

function tapped(event) {
  const image = event.target.closest(FIGURE);
  if (image) enlarge(image);
}

function pressed(event) {
  const shown = event.target.matches("dialog.enlarged");
  if (!shown && !event.target.matches(FIGURE)) return;
  if (!["Enter", " ", ...(shown ? ["Escape"] : [])].includes(event.key)) return;
  event.preventDefault(); // Space would scroll
  event.target.click();
}

addEventListener("load", () => {
  const formulas = window.MathJax?.startup?.promise ?? Promise.resolve();
  formulas.then(reach);
  offer();
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);
  document.addEventListener("click", tapped);
  document.addEventListener("keydown", pressed);
});
