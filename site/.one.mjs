import { pathToFileURL } from "node:url";
import { resolve } from "node:path";
import { launch, typeset } from "./browser.mjs";
const b = await launch(); 
for (const f of process.argv.slice(3)) for (const w of [360, 1280]) {
const page = await b.newPage(); await page.setViewport({width: w, height: 900});
await page.goto(pathToFileURL(resolve(f)).href, {waitUntil: "load"}); await typeset(page); await new Promise(d=>setTimeout(d,800));
const found = await page.evaluate(() => [...document.querySelectorAll("div.math")].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0).map(e => e.tagName + " " + e.scrollWidth + ">" + e.clientWidth + " " + (e.querySelector("mjx-assistive-mml")?.textContent ?? e.textContent).slice(0, 60)));
console.log(f, w, found.length, found.join("\n   "));
const eqs = await page.$$("div.math"); let n = 0;
for (const e of eqs) { if (n >= +process.argv[2]) break; try { await e.screenshot({path: `/tmp/s6/eq-${w}-${f.split("/").pop().slice(0,4)}-${n}.png`}); } catch {} n++; }
await page.close(); }
await b.close();
