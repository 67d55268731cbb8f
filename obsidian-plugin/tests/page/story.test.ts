/** A whole story in a browser, against the real daemon: every step leaves a picture of it in light and in dark. */

import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Real, send } from "../real";
import { Browser } from "./browser";

const NOTE = `---
tags: [experiment]
---
# More features than dimensions

Five features fit in two dimensions if they are rare enough: none is dropped, and each
has two fifths of a dimension.

\`\`\`vaultlab
superposition: pentagon
title: Five sparse features fit in two dimensions
features: 5
hidden: 2
sparsity: 95%
steps: 2500
seeds: 8
run: manual
expect:
  - represented = 5 in 90% of seeds
  - every dimensionality = 0.40 +- 0.02
  - loss < 0.001
\`\`\`

What does the layer do without sparsity?
`;
const BLOCK = ".vaultlab-block";

let real: Real;
let browser: Browser;

beforeAll(async () => {
  real = await Real.vault({ "Note.md": NOTE });
  browser = await Browser.open("tests/page/page.ts");
  const { page } = browser;
  const disk = real.disk;
  await page.exposeFunction("vaultSend", send);
  await page.exposeFunction("vaultList", disk.list);
  await page.exposeFunction("vaultRead", disk.read);
  await page.exposeFunction("vaultWrite", disk.write);
  const main = await readFile("dist/main.js", "utf8");
  await page.addScriptTag({ content: `window.vaultlabMain = function (module, exports, require) {${main}\n}` });
  await page.evaluate((base) => window.openVault(base, "Note.md"), real.vault);
});
afterAll(async () => {
  await browser.close();
  await real.remove();
});

const state = () => browser.page.locator(`${BLOCK} .vaultlab-state`);
const shows = (words: string) => state().filter({ hasText: words }).waitFor();
const press = (name: string) => browser.page.getByRole("button", { name, exact: true }).click();
const note = () => browser.page.evaluate(() => window.lab.editor().state.doc.toString());

/** Type as an author does, where these words end. */
async function type(after: string, text: string, rubbed = 0): Promise<void> {
  const { page } = browser;
  await page.evaluate((words) => {
    const editor = window.lab.editor();
    editor.focus();
    editor.dispatch({ selection: { anchor: editor.state.doc.toString().indexOf(words) + words.length } });
  }, after);
  for (let one = 0; one < rubbed; one++) await page.keyboard.press("Backspace");
  await page.keyboard.type(text);
}

const leave = () => browser.page.evaluate(() => window.lab.editor().dispatch({ selection: { anchor: 0 } }));

test("pair, trust, run, watch it, read it, break it, mend it, cancel it", async () => {
  const { page } = browser;
  page.setDefaultTimeout(60_000);
  await shows("Not paired");
  await browser.shoot("01-not-paired");

  await real.watch("", "--trust");
  const code = real.command("pair");
  await press("Pair…");
  await page.getByRole("dialog").getByRole("textbox").fill(code);
  await browser.shoot("02-pair");
  await page.getByRole("dialog").getByRole("button", { name: "Pair" }).click();
  await shows("Not run yet");
  await browser.shoot("03-not-run-yet");

  await press("Run");
  await page.locator(`${BLOCK} progress[value]`).waitFor();
  await browser.shoot("04-running");
  await shows("Up to date");
  await page.locator(".callout img").waitFor();
  await page.locator(`${BLOCK} [data-verdict=refuted]`).waitFor();
  await browser.shoot("05-up-to-date");
  expect(await note()).toBe(NOTE.replace("\n\nWhat does", "\n\n![[vaultlab/pentagon#^result]]\n\nWhat does"));
  await press("Why");
  await browser.shoot("06-why");

  await type("features: 5", "features: 500000".slice(11));
  await type("hidden", "n");
  await page.locator(".vaultlab-mend").first().waitFor();
  await browser.shoot("07-marked");
  await leave();
  await shows("Cannot run");
  await browser.shoot("08-cannot-run");
  await type("hiddenn", "", 1);
  await type("features: 500000", "", 5);
  await leave();
  await shows("Up to date");

  await type("steps: 2500", "0", 0);
  await leave();
  await shows("Out of date");
  await browser.shoot("09-out-of-date");
  await press("Run");
  await page.locator(`${BLOCK} progress[value]`).waitFor();
  await page.setViewportSize({ width: 380, height: 820 });
  await browser.shoot("10-running-narrow");
  await press("Cancel");
  await shows("Out of date");
  await page.setViewportSize({ width: 900, height: 820 });

  await real.stop();
  await shows("No daemon");
  await browser.shoot("11-no-daemon");
  const saved = await real.read("Note.md");
  expect(saved.split("\n").filter((line) => line.startsWith("![["))).toHaveLength(1);
}, 240_000);
