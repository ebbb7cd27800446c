/** Runs in the page: what a reader would see that is wrong, and where its links lead. */
export function look() {
  const wrong = [];
  const wide = [];
  const inner = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > inner) {
    const out = [...document.querySelectorAll("main *, body > *")].find(
      (e) => e.getBoundingClientRect().right > inner + 1 && !scrolls(e),
    );
    wide.push(out ? out.outerHTML.slice(0, 120) : "unknown");
  }
  function scrolls(element) {
    for (let e = element.parentElement; e && e !== document.body; e = e.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)) return true;
    return false;
  }
  for (const img of document.images) {
    const alt = img.getAttribute("alt");
    if (alt === null || /\.(png|svg|jpe?g)$/.test(alt))
      wrong.push(`no alternative text: ${img.getAttribute("src")}`);
  }
  for (const math of document.querySelectorAll(".math"))
    if (!math.querySelector("mjx-container") && !math.closest("mjx-container"))
      wrong.push(`formula not set: ${math.textContent.slice(0, 80)}`);
  for (const math of document.querySelectorAll("div.math"))
    if (inner > 1000 && math.scrollWidth > math.clientWidth + 1)
      wrong.push(`formula wider than a desk: ${math.textContent.slice(0, 60)}`);
  for (const error of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    wrong.push(`formula with an error: ${error.textContent.slice(0, 80)}`);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = /\\[(\[]|\$\\?[a-zA-Z]|\\(frac|tag|sum|mid)\b|\{cite|\{ref\}|^:::/;
  while (walker.nextNode()) {
    const text = walker.currentNode;
    // A run's page shows what a model wrote, in bdi elements, as it stands.
    const apart = "pre, code, script, style, noscript, textarea, mjx-container, bdi";
    if (raw.test(text.data) && !text.parentElement.closest(apart))
      wrong.push(`markup shown as text: ${text.data.trim().slice(0, 80)}`);
  }
  return {
    wrong,
    wide,
    ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
    links: [...document.querySelectorAll("a[href], area[href], img[src]")].map(
      (e) => e.href || e.src,
    ),
  };
}
