// Prints the whole built book as one PDF, with its contents as bookmarks:
//   node site/pdf.mjs [FOLDER [FILE]]
// The pages become one page, whose links stay inside it, and Chromium prints that.
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { launch, typeset } from "./browser.mjs";
import { solutionsLast } from "./solutions.mjs";
import { squeezed } from "./squeeze.mjs";

const root = resolve(process.argv[2] ?? "_build/html");
const target = resolve(process.argv[3] ?? "_build/pdf/pfref.pdf");
const folder = join(root, "book");
const SITE = "https://pfref.github.io/pfref/book/"; // has what is not printed
const up = relative(dirname(target), root);
const read = (name) => readFileSync(join(folder, name), "utf8");

/** The pages in the order of the book's contents, its front page first. The package's
 * source, a folder of its own, is left out: it would be hundreds of pages. */
function order() {
  const contents = read("index.html").split('<nav class="bd-links')[1].split("</nav>")[0];
  const names = [...contents.matchAll(/href="([\w-]+\.html)"/g)].map((found) => found[1]);
  return ["index.html", ...new Set(names.filter((name) => name !== "index.html"))];
}

/** A page's article, whose names begin with the page's own, so that each is one. */
function article(name) {
  const stem = basename(name, ".html");
  const inner = read(name).match(/<article[^>]*>([\s\S]*)<\/article>/)[1];
  return `<article class="bd-article" id="${stem}">${inner}</article>`
    .replace(/(<[^>]* )id="([^"]+)"/g, (all, before, id) =>
      id === stem ? all : `${before}id="${stem}--${id}"`,
    )
    .replace(/href="#([^"]+)"/g, `href="#${stem}--$1"`)
    .replace(/href="([\w-]+)\.html#([^"]+)"/g, 'href="#$1--$2"')
    .replace(/href="([\w-]+)\.html"/g, 'href="#$1"')
    .replace(/href="(source\/[\w-]+\.html)/g, `href="${SITE}$1`)
    .replace(/<details /g, "<details open ")
    .replace(/(src|href)="\.\.\//g, `$1="${up}/`)
    .replace(/<a class="headerlink"[\s\S]*?<\/a>/g, "");
}

function whole() {
  const head = read("index.html").match(/<head>([\s\S]*)<\/head>/)[1];
  const kept = [
    ...head.matchAll(/<link[^>]*stylesheet[^>]*>|<script>window\.MathJax[^<]*<\/script>/g),
    ...head.matchAll(/<script[^>]*mathjax\/[^>]*><\/script>/g),
  ].map((found) => found[0].replace(/(src|href)="\.\.\//g, `$1="${up}/`));
  const style = readFileSync(new URL("pdf.css", import.meta.url), "utf8");
  return `<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8" />
    <title>Particle filtering for inference-time scaling</title>
    ${kept.join("\n")}<style>${style}</style></head>
    <body>${order().map(article).join("\n")}</body></html>`;
}

mkdirSync(dirname(target), { recursive: true });
const page = join(dirname(target), "book.html");
writeFileSync(page, whole());
const browser = await launch(600_000);
const tab = await browser.newPage();
tab.setDefaultTimeout(600_000);
await tab.goto(pathToFileURL(page).href, { waitUntil: "load" });
await typeset(tab);
await tab.evaluate(() => document.fonts.ready);
const solutions = await tab.evaluate(solutionsLast);
const number = `<div style="width: 100%; text-align: center; font-size: 8px">
  <span class="pageNumber"></span></div>`;
const printed = await tab.pdf({
  format: "A4",
  margin: { top: "18mm", bottom: "20mm", left: "18mm", right: "18mm" },
  printBackground: true,
  displayHeaderFooter: true,
  headerTemplate: "<span></span>",
  footerTemplate: number,
  outline: true,
  tagged: true,
  timeout: 600_000,
});
await browser.close();
writeFileSync(target, squeezed(Buffer.from(printed)));
const size = (statSync(target).size / 1e6).toFixed(1);
console.log(`${target}: ${size} MB, ${solutions} solutions at their chapters' ends`);
