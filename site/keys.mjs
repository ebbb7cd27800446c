// What a reader without a mouse can do with a figure: Enter or Space enlarges it, and
// Escape or the same keys make it small again and give the focus back.
const WAYS = [["Enter", "Escape"], ["Space", "Enter"]];
const FIGURE = ".bd-article img:not(a img)";

function becomes(page, test, ...given) {
  return page.waitForFunction(test, { timeout: 5000, polling: 50 }, ...given).then(
    () => true,
    () => false,
  );
}

/** What of it does not work on the page, with its first figure. */
export async function unreachable(page) {
  const image = await page.$(FIGURE);
  if (!image) return [];
  const name = await image.evaluate((e) => e.getAttribute("aria-label") ?? "");
  if (!name.startsWith("Enlarge: ")) return ["figure is not offered to be enlarged"];
  for (const [open, close] of WAYS) {
    await image.focus();
    await page.keyboard.press(open);
    const opened = () => document.activeElement.matches("dialog.enlarged[open]");
    if (!(await becomes(page, opened))) return [`figure is not enlarged by ${open}`];
    await page.keyboard.press(close);
    const closed = (e) =>
      !document.querySelector("dialog.enlarged") && document.activeElement === e;
    if (!(await becomes(page, closed, image)))
      return [`enlarged figure is not closed by ${close}`];
  }
  return [];
}
