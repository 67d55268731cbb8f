/** A whole story in a browser, against the real daemon: every step leaves a picture of it in light and in dark. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Real } from "../real";
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
  browser = await Browser.app(real);
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

/** Whatever of ours is on the page. */
const OURS = "[class^=vaultlab]";

test("pair, trust, run, watch it, read it, look into it, break it, mend it, cancel it, insert another", async () => {
  const { page } = browser;
  await shows("Not paired");
  await browser.shoot("01-not-paired", BLOCK);

  await real.watch("", "--trust");
  const code = real.command("pair");
  await press("Pair…");
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Code" }).fill(code);
  await browser.both("02-pair", ".modal");
  await page.keyboard.press("Enter");
  await shows("Not run yet");
  await browser.shoot("03-not-run-yet", BLOCK);

  await press("Run");
  await page.locator(`${BLOCK} progress[value]`).waitFor();
  await browser.shoot("04-running", BLOCK);
  await shows("Up to date");
  await page.locator(".callout img").waitFor();
  await page.locator(`${BLOCK} [data-verdict=refuted]`).waitFor();
  await browser.shoot("05-up-to-date", BLOCK);
  await expect.poll(note).toBe(NOTE.replace("\n\nWhat does", "\n\n![[vaultlab/pentagon#^result]]\n\nWhat does"));
  await press("Why");
  await browser.shoot("06-why", BLOCK);
  await press("Why");
  await press("Explore the figure");
  const figure = page.frameLocator("iframe");
  await figure.getByRole("slider", { name: "seed" }).fill("3");
  await expect.poll(() => figure.locator("svg.plane line").count()).toBe(5);
  await browser.both("07-explore", BLOCK);
  await press("Close the figure");

  await type("features: 5", "features: 500000".slice(11));
  await type("hidden", "n");
  await page.locator(".vaultlab-mend").first().waitFor();
  await page.getByText("sparsity: 95%").hover({ position: { x: 20, y: 8 } });
  await page.locator(".vaultlab-tip").waitFor();
  await browser.both("08-marked", OURS);
  await leave();
  await shows("Cannot run");
  await browser.shoot("09-cannot-run", BLOCK);
  await type("hiddenn", "", 1);
  await type("features: 500000", "", 5);
  await leave();
  await shows("Up to date");

  await type("steps: 2500", "0", 0);
  await leave();
  await shows("Out of date");
  await browser.shoot("10-out-of-date", BLOCK);
  await press("Run");
  await page.locator(`${BLOCK} progress[value]`).waitFor();
  await page.setViewportSize({ width: 380, height: 820 });
  await browser.shoot("11-running-narrow", BLOCK);
  await press("Cancel");
  await shows("Out of date");
  await page.setViewportSize({ width: 900, height: 820 });

  await page.evaluate(() => window.lab.editor().dispatch({ selection: { anchor: window.lab.editor().state.doc.length - 1 } }));
  await page.evaluate(() => window.lab.command("insert-experiment"));
  await page.getByPlaceholder("Which experiment?").waitFor();
  await browser.both("12-pick", ".modal");
  await page.getByPlaceholder("Which experiment?").fill("superposition more features");
  await page.locator(".suggestion-item").click();
  await dialog.getByRole("combobox", { name: "Begin with" }).selectOption({ index: 1 });
  await browser.both("13-form", ".modal", 1500);
  expect(await dialog.getByRole("textbox", { name: "features" }).getAttribute("placeholder")).not.toBe("");
  await dialog.getByRole("textbox", { name: "Title" }).fill("Another look");
  await dialog.getByText("What it does, and how to read its figures").click();
  await browser.shoot("14-manual", ".modal");
  await dialog.getByRole("button", { name: "Insert" }).click();
  await expect.poll(note).toContain("```vaultlab\nsuperposition: another-look\ntitle: Another look\n");

  await page.evaluate(() => window.lab.panel());
  const lab = page.getByRole("list", { name: "Results" });
  await page.getByRole("button", { name: "Cancel another-look" }).waitFor(); // it is new: it runs by itself
  await lab.getByText("refuted").waitFor();
  await browser.both("15-lab", ".vaultlab-lab");
  await page.getByRole("button", { name: "Cancel another-look" }).press("Enter");
  await page.getByRole("button", { name: "Cancel another-look" }).waitFor({ state: "detached" });
  await page.getByRole("combobox", { name: "Which results" }).selectOption("supported");
  await lab.getByText("No result fits.").waitFor();
  await page.evaluate(() => window.lab.panel());

  await real.stop();
  await page.locator(`${BLOCK} .vaultlab-state`).filter({ hasText: "No daemon" }).first().waitFor();
  await browser.shoot("16-no-daemon", BLOCK);
  const saved = await real.read("Note.md");
  expect(saved.split("\n").filter((line) => line.startsWith("![[vaultlab/pentagon"))).toHaveLength(1);
}, 400_000);
