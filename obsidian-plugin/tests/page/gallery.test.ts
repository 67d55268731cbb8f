/** Every state of a block, wide and narrow, in light and in dark; and what a screen reader and a keyboard find there. */

import { expect, test } from "vitest";
import { Browser } from "./browser";

test("every state is drawn, and nothing sticks out at 360 px", async () => {
  const browser = await Browser.open("tests/page/gallery.ts");
  const { page } = browser;
  try {
    await page.locator("body[data-ready]").waitFor();
    await browser.shoot("states", true);
    await page.setViewportSize({ width: 360, height: 800 });
    await browser.shoot("states-narrow", true);
    const wide = await page.evaluate(() =>
      Array.from(document.querySelectorAll(".vaultlab-block *"))
        .filter((one) => one.getBoundingClientRect().right > one.closest(".vaultlab-block")!.getBoundingClientRect().right + 0.5)
        .map((one) => `${one.className.toString()}: ${one.textContent ?? ""}`),
    );
    expect(wide).toEqual([]);
    const blocks = await page.getByRole("group", { name: /^Experiment: / }).count();
    expect(blocks).toBe(await page.locator(".vaultlab-block").count());
    for (const bar of await page.getByRole("progressbar").all()) expect(await bar.getAttribute("aria-label")).not.toBe("");
    await page.setViewportSize({ width: 900, height: 820 });
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => document.activeElement?.textContent);
    expect(focused).toBe("Run");
  } finally {
    await browser.close();
  }
});

test("text and marks stand out from their ground in both themes", async () => {
  const browser = await Browser.open("tests/page/gallery.ts");
  const { page } = browser;
  try {
    await page.locator("body[data-ready]").waitFor();
    for (const theme of ["light", "dark"]) {
      await page.evaluate((one) => (document.body.className = `theme-${one}`), theme);
      const faint = await page.evaluate(contrasts);
      expect(faint, theme).toEqual([]);
    }
  } finally {
    await browser.close();
  }
});

/** Every text in a block with less than 4.5 : 1 to what is behind it. */
function contrasts(): string[] {
  const channel = (value: number) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r = 0, g = 0, b = 0]: number[]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const numbers = (color: string) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const behind = (element: Element): number[] => {
    const grounds: number[][] = [];
    for (let one: Element | null = element; one; one = one.parentElement) {
      const ground = numbers(getComputedStyle(one).backgroundColor);
      if (ground[3] !== 0) grounds.unshift(ground);
    }
    return grounds.reduce((below, [r = 0, g = 0, b = 0, a = 1]) => [r, g, b].map((own, at) => own * a + (below[at] ?? 0) * (1 - a)), [255, 255, 255]);
  };
  const found: string[] = [];
  for (const element of Array.from(document.querySelectorAll(".vaultlab-block *"))) {
    const own = Array.from(element.childNodes).some((one) => one.nodeType === 3 && one.textContent?.trim());
    if (!own) continue;
    const [one, other] = [light(numbers(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = ((one ?? 0) + 0.05) / ((other ?? 0) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${element.textContent ?? ""}`);
  }
  return found;
}
