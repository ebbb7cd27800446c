// Makes the card of the book, drawn as SVG, a picture of 1200 by 630:
//   node site/card.mjs
import { readFileSync } from "node:fs";
import { launch } from "./browser.mjs";

const folder = new URL("../book/_static/", import.meta.url);
const drawn = readFileSync(new URL("card.svg", folder), "utf8");
const browser = await launch();
const page = await browser.newPage();
await page.setViewport({ width: 1200, height: 630 });
await page.setContent(
  `<style>body { margin: 0 } svg { width: 1200px; height: 630px }</style>${drawn}`,
);
const path = new URL("card.png", folder).pathname;
await page.screenshot({ path, optimizeForSpeed: false });
await browser.close();
