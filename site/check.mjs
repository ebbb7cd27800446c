// Opens every page of the built book from its file, without a network, on a phone's
// and a desk's width, light and dark, and tells what is wrong:
//   node site/check.mjs [FOLDER] [--only PART] [--shots FOLDER]
// Exit status 1 if anything is. README.md of this folder says what each line means.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import axe from "axe-core";
import { launch, pagesIn, typeset, unfold } from "./browser.mjs";
import { unwrapRepeated } from "./code.mjs";
import { unreachable } from "./keys.mjs";
import { look } from "./look.mjs";

// In this order the width changes once, which takes the theme a while.
const FORMS = [[1280, "light"], [1280, "dark"], [360, "dark"], [360, "light"]];
const TALL = 7200; // pixels of one picture
// Script and style of one page, packed; MathJax is apart, and so is the list of words
// that the search page looks in, which is text.
const LIMIT_KB = 150;
const APART = /\/mathjax\/|\/searchindex\.js$/;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: "string" }, shots: { type: "string" } },
});
const root = resolve(positionals[0] ?? "_build/html");
const short = (file) => relative(root, file);
const faults = new Map(); // what is wrong -> where
const seen = new Map(); // page -> { ids, links }
const packed = new Map(); // script or style -> its size in bytes, packed
let heaviest = ["", 0];

function fault(where, what) {
  if (!faults.has(what)) faults.set(what, []);
  const places = faults.get(what);
  if (!places.includes(where)) places.push(where);
}

function weight(file) {
  if (!packed.has(file))
    packed.set(file, existsSync(file) ? gzipSync(readFileSync(file)).length : 0);
  return packed.get(file);
}

function listen(page, name) {
  const loaded = new Set();
  page.on("console", (m) => fault(name, `console: ${m.text().slice(0, 200)}`));
  page.on("pageerror", (e) => fault(name, `script error: ${String(e).slice(0, 200)}`));
  page.on("requestfailed", (r) => fault(name, `does not load: ${r.url()}`));
  page.on("request", (request) => {
    const url = request.url();
    if (url.startsWith("data:") || url.startsWith("blob:")) return;
    if (!url.startsWith("file:")) return fault(name, `wants the network: ${url}`);
    const file = fileURLToPath(url.split(/[?#]/)[0]);
    if (/\.(js|css)$/.test(file) && !APART.test(file)) loaded.add(file);
  });
  return loaded;
}

/** What breaks a rule of axe, any of them. */
async function violations(page, name) {
  const found = await page.evaluate(async () => {
    const { violations } = await axe.run({
      resultTypes: ["violations"],
      preload: false, // it would fetch the style sheets, which no file may
    });
    return violations.flatMap(({ id, nodes }) =>
      nodes.map((n) => `${id}: ${n.html.slice(0, 150).replace(/\s+/g, " ")}`),
    );
  });
  for (const what of found) fault(name, `axe ${what}`);
}

async function check(browser, file) {
  const name = short(file);
  const page = await browser.newPage();
  const loaded = listen(page, name);
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: "light" },
    { name: "prefers-reduced-motion", value: "reduce" },
  ]);
  await page.setViewport({ width: FORMS[0][0], height: 900 });
  await page.setOfflineMode(true);
  await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
  await typeset(page);
  await page.evaluate(() => {
    const still = new CSSStyleSheet();
    still.replaceSync("*, ::before, ::after { transition: none !important; }");
    document.adoptedStyleSheets.push(still);
  });
  await page.evaluate(axe.source);
  await unfold(page);
  if (!options.shots) await page.evaluate(unwrapRepeated);
  let before = 0;
  for (const [width, scheme] of FORMS) {
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await pause(page, width === before ? 60 : 450);
    before = width;
    const form = `${name} at ${width} px, ${scheme}`;
    await violations(page, form);
    const { wide, ...rest } = await page.evaluate(look);
    for (const what of wide) fault(form, `page scrolls sideways: ${what}`);
    for (const what of rest.wrong) fault(name, what);
    seen.set(file, rest);
    if (options.shots) await shoot(page, name, width, scheme);
  }
  for (const what of await unreachable(page)) fault(name, what);
  const kilobytes = [...loaded].reduce((sum, one) => sum + weight(one), 0) / 1024;
  if (kilobytes > heaviest[1]) heaviest = [name, kilobytes];
  if (kilobytes > LIMIT_KB)
    fault(name, `script and style: more than ${LIMIT_KB} KB packed`);
  await page.close();
}

/** The theme looks at what scrolls 300 ms after the window has changed. */
function pause(page, milliseconds) {
  return page.evaluate((ms) => new Promise((done) => setTimeout(done, ms)), milliseconds);
}

/** The whole page, in pieces as tall as a browser can draw at once. */
async function shoot(page, name, width, scheme) {
  mkdirSync(options.shots, { recursive: true });
  const whole = await page.evaluate(() => document.documentElement.scrollHeight);
  const height = Math.min(whole, TALL);
  await page.setViewport({ width, height });
  for (let top = 0; top < whole; top += height) {
    await page.evaluate((y) => window.scrollTo(0, y), top);
    await pause(page, 100);
    const part = String(top / height).padStart(2, "0");
    const file = `${name.replaceAll("/", "_")}-${width}-${scheme}-${part}.png`;
    await page.screenshot({
      path: join(options.shots, file.replace(".html", "")),
      captureBeyondViewport: false,
    });
  }
  await page.setViewport({ width, height: 900 });
}

/** Links to pages and places of the book that are not there. */
function followed() {
  for (const [file, { links }] of seen)
    for (const link of links) {
      if (!link.startsWith("file:")) continue;
      const url = new URL(link);
      const target = fileURLToPath(new URL(url.pathname, "file://"));
      const anchor = decodeURIComponent(url.hash.slice(1));
      if (!existsSync(target)) fault(short(file), `broken link: ${link}`);
      else if (anchor && seen.has(target) && !seen.get(target).ids.includes(anchor))
        fault(short(file), `no such place: ${short(target)}#${anchor}`);
    }
}

const started = Date.now();
const files = pagesIn(root).filter((f) => !options.only || f.includes(options.only));
const queue = [...files];
const browsers = await Promise.all([launch(), launch()]);
await Promise.all(
  browsers.map(async (browser) => {
    for (let file = queue.shift(); file; file = queue.shift())
      await check(browser, file);
    await browser.close();
  }),
);
if (!options.only) followed();
for (const [what, where] of [...faults].sort())
  console.log(`${what}\n    ${where.length} x, first on ${where[0]}`);
const seconds = Math.round((Date.now() - started) / 1000);
console.log(
  `${files.length} pages in ${FORMS.length} forms, ${seconds} s: ` +
    `${faults.size} kinds of faults; most script and style: ` +
    `${heaviest[1].toFixed(0)} KB (${heaviest[0]})`,
);
process.exitCode = faults.size ? 1 : 0;
