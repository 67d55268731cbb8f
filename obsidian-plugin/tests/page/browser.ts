/** Debian's Chromium with nothing of its own: an empty profile, no network but what the test hands it. */

import { build } from "esbuild";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { chromium, type BrowserContext, type Page } from "playwright-core";
import { expect } from "vitest";
import { framePage } from "../../figure.mjs";
import { send, type Real } from "../real";
import { contrasts, sticking } from "./looks";

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
    const define = { FRAME: JSON.stringify(await framePage()) };
    const bundle = await build({ entryPoints: [script], bundle: true, write: false, format: "iife", alias: { obsidian: "./tests/app/obsidian.ts" }, define });
    await page.addScriptTag({ content: bundle.outputFiles[0]?.text ?? "" });
    await mkdir(SHOTS, { recursive: true });
    return new Browser(context, profile, page);
  }

  /** The app over a real vault: its first note in Live Preview, the plugin as it is built. */
  static async app(real: Real): Promise<Browser> {
    const browser = await Browser.open("tests/page/page.ts");
    const { page } = browser;
    page.setDefaultTimeout(60_000);
    await page.exposeFunction("vaultSend", send);
    for (const [name, act] of Object.entries({ vaultList: real.disk.list, vaultRead: real.disk.read })) await page.exposeFunction(name, act);
    await page.exposeFunction("vaultWrite", real.disk.write);
    const main = await readFile("dist/main.js", "utf8");
    await page.addScriptTag({ content: `window.vaultlabMain = function (module, exports, require) {${main}\n}\n//# sourceURL=main.js` });
    await page.evaluate((base) => window.openVault(base, "Note.md"), real.vault);
    return browser;
  }

  /** The page as it is, in light and in dark; nothing under `root` is faint or sticks out of it. */
  async shoot(name: string, root: string): Promise<void> {
    for (const theme of ["light", "dark"]) {
      await this.theme(theme);
      await this.page.screenshot({ path: `${SHOTS}/${name}.${theme}.png`, animations: "disabled" });
      expect(await this.page.evaluate(contrasts, root), `${name}, ${theme}`).toEqual([]);
    }
    expect(await this.page.evaluate(sticking, root), name).toEqual([]);
  }

  async theme(theme: string): Promise<void> {
    await this.page.evaluate((one) => {
      document.body.className = `theme-${one}`;
      (window as { recolour?: () => void }).recolour?.();
    }, theme);
    if (this.page.frames().length > 1) await this.page.waitForTimeout(200); // they are told, and draw anew
  }

  /** The same, wide and as narrow as a phone. */
  async both(name: string, root: string, height = 820): Promise<void> {
    for (const [width, called] of [[360, `${name}-narrow`], [900, name]] as const) {
      await this.page.setViewportSize({ width, height });
      await this.page.waitForTimeout(300); // frames fit their height to it
      await this.shoot(called, root);
    }
    await this.page.setViewportSize({ width: 900, height: 820 });
  }

  async close(): Promise<void> {
    await this.context.close();
    await rm(this.profile, { recursive: true, force: true });
  }
}
