// The browser that is there, and the pages of a built book.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import puppeteer from "puppeteer-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

function found(name) {
  try {
    return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
}

/** Chromium's path, or the one that CHROMIUM names; nothing if there is none. */
export function executable() {
  return process.env.CHROMIUM || NAMES.map(found).find(Boolean);
}

/** A headless browser. */
export function launch(protocolTimeout = 120_000) {
  const executablePath = executable();
  if (!executablePath) throw new Error("no Chromium: install it, or set CHROMIUM");
  return puppeteer.launch({
    executablePath,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
    protocolTimeout,
  });
}

/** Every page of the book, but not the one that only sends a reader on, nor the
 * templates that the theme leaves among its files. */
export function pagesIn(folder) {
  const root = resolve(folder);
  if (!existsSync(join(root, "index.html")))
    throw new Error(`no book in ${folder}: run make book`);
  return readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith(".html") && !name.endsWith("webpack-macros.html"))
    .sort()
    .map((name) => join(root, name))
    .filter((file) => !readFileSync(file, "utf8").includes('http-equiv="Refresh"'));
}

/** Wait until the formulas are set. */
export function typeset(page) {
  return page.evaluate(() => window.MathJax?.startup?.promise);
}

/** Open whatever a reader can unfold. */
export function unfold(page) {
  return page.evaluate(() => {
    const folded = document.querySelectorAll("article details, main details");
    for (const fold of folded) fold.open = true;
    for (const button of document.querySelectorAll("button.toggle-button-hidden"))
      button.click();
  });
}
