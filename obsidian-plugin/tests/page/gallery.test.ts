/** Every state of a block and every kind of figure, wide and narrow, in light and in dark; and what a keyboard finds. */

import { afterEach, expect, test } from "vitest";
import { Browser } from "./browser";
import { contrasts, sticking } from "./looks";

let browser: Browser;
afterEach(() => browser.close());

test("every state of a block is drawn: legible, nothing sticks out, and the first stop of the Tab key is Run", async () => {
  browser = await Browser.open("tests/page/gallery.ts");
  const { page } = browser;
  await page.locator("body[data-ready]").waitFor();
  await browser.both("states", ".vaultlab-block", 7900);
  const blocks = await page.getByRole("group", { name: /^Experiment: / }).count();
  expect(blocks).toBe(await page.locator(".vaultlab-block").count());
  for (const bar of await page.getByRole("progressbar").all()) expect(await bar.getAttribute("aria-label")).not.toBe("");
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Run");
});

test("every kind of figure is drawn, in the app's colours, and keeps what was chosen", async () => {
  browser = await Browser.open("tests/page/figures.ts");
  const { page } = browser;
  const frame = (name: string) => page.frameLocator(`[data-name=${name}] iframe`);
  await frame("sweep").locator("svg.plane line").first().waitFor();
  await frame("maps").getByRole("button", { name: "Mary" }).last().hover();
  await browser.both("figures", ".vaultlab-block", 2300);
  for (const theme of ["light", "dark"]) {
    await browser.theme(theme);
    for (const inner of page.frames().slice(1)) {
      await inner.locator("main > *").first().waitFor();
      await expect.poll(() => inner.evaluate(contrasts, "body"), { message: theme }).toEqual([]);
      await expect.poll(() => inner.evaluate(sticking, "body"), { message: theme }).toEqual([]);
    }
  }

  const layer = frame("maps").getByRole("combobox", { name: "layer" });
  await layer.selectOption("5");
  await frame("maps").getByRole("combobox", { name: "head" }).selectOption("1");
  await browser.theme("light");
  await expect.poll(() => layer.inputValue()).toBe("5");
  await frame("maps").locator(".grid rect").first().click();
  await expect.poll(() => layer.inputValue()).toBe("0");

  const sweep = frame("sweep");
  await sweep.getByRole("slider", { name: "seed" }).fill("2");
  await sweep.getByRole("slider", { name: "sparsity" }).fill("2");
  await expect.poll(() => sweep.locator("svg.plane line").count()).toBe(5);
  expect(await sweep.getByRole("slider", { name: "seed" }).inputValue()).toBe("2");
  expect(await sweep.getByRole("status").textContent()).toBe("5 represented, loss 0.03");
});

test("a keyboard stops once at a figure's many tokens, and goes on from there with the arrow keys", async () => {
  browser = await Browser.open("tests/page/figures.ts");
  const { page } = browser;
  // A figure's frame is a process of its own: the page hears a moment later where the focus went.
  const focused = () => page.evaluate(() => document.activeElement?.closest("[data-name]")?.getAttribute("data-name"));
  const maps = page.frameLocator("[data-name=maps] iframe");
  await maps.getByRole("combobox", { name: "head" }).focus();
  await expect.poll(focused).toBe("maps");
  await page.keyboard.press("Tab");
  const status = () => maps.getByRole("status").textContent();
  await expect.poll(status).toMatch(/^“you” gets most from/);
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await expect.poll(status).toMatch(/^“When” gets most from/);
  await page.keyboard.press("Tab");
  await expect.poll(focused).toBe("plane");

  const space = page.frameLocator("[data-name=space] iframe");
  const tip = () => space.locator("svg.plane line").first().getAttribute("x2");
  await space.getByRole("group", { name: /three dimensions/ }).focus();
  await expect.poll(focused).toBe("space");
  const before = await tip();
  await page.keyboard.press("ArrowLeft");
  await expect.poll(tip).not.toBe(before);
  await page.keyboard.press("Tab");
  const length = () => space.getByRole("status").textContent();
  await expect.poll(length).toMatch(/^Feature 1: length/);
  await page.keyboard.press("ArrowRight");
  await expect.poll(length).toMatch(/^Feature 2: length/);
});
