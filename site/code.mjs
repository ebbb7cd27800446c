/** Runs in the page: of all words of code that look alike, leaves one as it is, the
 * leftmost, which no narrow screen hides, and makes the others plain text. A page of
 * code has ten thousand of them, and what axe finds wrong with a word's colours it
 * finds with every word of its kind. */
export function unwrapRepeated() {
  const chains = new WeakMap();
  const kinds = new Map();
  function chain(element) {
    if (!element || element.matches("article, main, body")) return "";
    if (!chains.has(element)) {
      const own = `${element.localName} ${element.className} ${element.style.cssText}`;
      chains.set(element, `${own} < ${chain(element.parentElement)}`);
    }
    return chains.get(element);
  }
  const repeated = [];
  for (const word of document.querySelectorAll("pre span:not(:has(*), [id], [role])")) {
    const kind = chain(word);
    const { left, width } = word.getBoundingClientRect();
    const kept = kinds.get(kind);
    if (!width || (kept && kept.left <= left)) repeated.push(word);
    else {
      if (kept) repeated.push(kept.word);
      kinds.set(kind, { word, left });
    }
  }
  for (const word of repeated) word.replaceWith(word.textContent);
  for (const block of document.querySelectorAll("pre")) block.normalize();
}
