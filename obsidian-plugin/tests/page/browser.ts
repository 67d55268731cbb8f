/** Debian's Chromium with nothing of its own: an empty profile, no network but what the test hands it. */

import { build } from "esbuild";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { chromium, type BrowserContext, type Page } from "playwright-core";

const ORIGIN = "http://localhost/";
const SHOTS = "shots";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"];

export class Browser {
  private constructor(
    private readonly context: BrowserContext,
    private readonly profile: string,
    readonly page: Page,
  ) {}

  /** A page that runs `script`, in the app's looks. */
  static async open(script: string): Promise<Browser> {
    const profile = await mkdtemp(join(tmpdir(), "vaultlab-chromium-"));
    const executablePath = env.VAULTLAB_CHROMIUM ?? "/usr/bin/chromium";
    const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, headless: true });
    const page = context.pages()[0] ?? (await context.newPage());
    await page.setViewportSize({ width: 900, height: 820 });
    await page.route("**/*", (route) =>
      route.request().url() === ORIGIN
        ? route.fulfill({ contentType: "text/html", body: "<!doctype html><html lang=en><title>Note</title><body class=theme-light>" })
        : route.abort(),
    );
    await page.goto(ORIGIN);
    for (const path of ["tests/page/theme.css", "dist/styles.css"]) await page.addStyleTag({ content: await readFile(path, "utf8") });
    const bundle = await build({ entryPoints: [script], bundle: true, write: false, format: "iife", alias: { obsidian: "./tests/app/obsidian.ts" } });
    await page.addScriptTag({ content: bundle.outputFiles[0]?.text ?? "" });
    await mkdir(SHOTS, { recursive: true });
    return new Browser(context, profile, page);
  }

  /** The page as it is, in light and in dark. */
  async shoot(name: string, fullPage = false): Promise<void> {
    for (const theme of ["light", "dark"]) {
      await this.page.evaluate((one) => (document.body.className = `theme-${one}`), theme);
      await this.page.screenshot({ path: `${SHOTS}/${name}.${theme}.png`, animations: "disabled", fullPage });
    }
  }

  async close(): Promise<void> {
    await this.context.close();
    await rm(this.profile, { recursive: true, force: true });
  }
}
