/** A note of fifty blocks, of the built plugin, a real daemon and a browser: what the plugin's own work on it takes. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Real } from "../real";
import { Browser } from "./browser";

const MOST_MS = 100;

interface Profile {
  nodes: { id: number; callFrame: { url: string }; children?: number[] }[];
  samples?: number[];
  timeDeltas?: number[];
}
const SOURCES = Array.from({ length: 50 }, (_, at) => `superposition: block-${at}\nfeatures: ${at + 2}\nhidden: 2\nsparsity: 95%\nrun: manual\nexpect:\n  - loss < 0.01\n  - represented > 1`);
const NOTE = `---\ntags: [experiment]\n---\nWords.\n\n${SOURCES.map((source) => `\`\`\`vaultlab\n${source}\n\`\`\`\n`).join("\nMore words.\n\n")}`;

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

test("from the first block to the last that says how it stands, the plugin's own work is within 100 ms", async () => {
  const { page } = browser;
  await real.watch("", "--trust");
  await page.evaluate(() => window.lab.command("pair"));
  await page.getByRole("textbox", { name: "Code" }).fill(real.command("pair"));
  await page.keyboard.press("Enter");
  const settled = page.locator(".workspace > div > .vaultlab-block .vaultlab-state", { hasText: "Not run yet" });
  await page.locator(".vaultlab-state", { hasText: "Not run yet" }).first().waitFor();
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Profiler.enable");
  await devtools.send("Profiler.setSamplingInterval", { interval: 200 });
  const took: number[] = [];
  for (let count = 1; count <= 5; count++) {
    await devtools.send("Profiler.start");
    await page.evaluate((sources) => window.lab.render(sources), SOURCES);
    await settled.nth(49).waitFor();
    const { profile } = await devtools.send("Profiler.stop");
    took.push(within(profile, "main.js"));
    await page.evaluate(() => window.lab.render([]));
  }
  // Other programs on the machine only make it longer.
  expect(Math.min(...took), `${took.map(Math.round).join(", ")} ms`).toBeLessThan(MOST_MS);
});

/** How long a script ran, or whatever it called, in ms. */
function within({ nodes, samples = [], timeDeltas = [] }: Profile, url: string): number {
  const ours = new Set<number>();
  for (const { id, callFrame, children = [] } of nodes) {
    if (callFrame.url === url) ours.add(id);
    if (ours.has(id)) for (const child of children) ours.add(child); // a node stands before its children
  }
  return samples.reduce((sum, node, at) => sum + (ours.has(node) ? (timeDeltas[at] ?? 0) : 0), 0) / 1000;
}
