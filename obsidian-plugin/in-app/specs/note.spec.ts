// Needs the app. What a stand-in cannot show: the app's own editor, embeds, windows, settings.
import { browser, expect } from "@wdio/globals";
import { obsidianPage } from "wdio-obsidian-service";

const NOTE = "Superposition.md";
const BLOCK = ".vaultlab-block";

/** Show the open note in Reading view, or in the editor. */
async function mode(mode: "preview" | "source"): Promise<void> {
  await browser.executeObsidian(async ({ app }, wanted) => {
    const leaf = app.workspace.getMostRecentLeaf();
    const state = leaf?.getViewState();
    if (leaf && state) await leaf.setViewState({ ...state, state: { ...state.state, mode: wanted, source: false } });
  }, mode);
}

describe("a note with blocks", () => {
  beforeEach(async () => {
    await browser.reloadObsidian({ vault: "../../sample-vault" });
    await obsidianPage.openFile(NOTE);
  });

  for (const view of ["preview", "source"] as const) {
    it(`draws its blocks with their last result, in the ${view} mode`, async () => {
      await mode(view);
      const block = browser.$(BLOCK);
      await block.waitForExist();
      await expect(block.$(".vaultlab-title")).toHaveText("Five sparse features fit in two dimensions");
      await expect(block.$(".vaultlab-claims")).toHaveText(expect.stringContaining("supported"));
      await expect(block.$("button[data-action=pair]")).toExist();
    });
  }

  it("draws a block of a note that is embedded in another", async () => {
    await obsidianPage.write("Embeds.md", "![[Superposition]]\n");
    await obsidianPage.openFile("Embeds.md");
    await mode("preview");
    await browser.$(`.markdown-embed ${BLOCK}`).waitForExist();
  });

  it("draws a block in a window of its own", async () => {
    await browser.executeObsidian(({ app }) => {
      const leaf = app.workspace.getMostRecentLeaf();
      if (leaf) app.workspace.moveLeafToPopout(leaf);
    });
    await browser.waitUntil(async () => (await browser.getWindowHandles()).length > 1);
    const [, popout] = await browser.getWindowHandles();
    if (popout) await browser.switchToWindow(popout);
    await browser.$(BLOCK).waitForExist();
  });

  it("leaves a note that is only looked at as it is, to the byte", async () => {
    const before = await obsidianPage.read(NOTE);
    await mode("preview");
    await mode("source");
    await browser.$(BLOCK).waitForExist();
    expect(await obsidianPage.read(NOTE)).toBe(before);
  });

  it("has its commands, and none has a hotkey", async () => {
    const hotkeys = await browser.executeObsidian(({ app }) => {
      const { commands } = app as unknown as { commands: { commands: Record<string, { hotkeys?: unknown[] }> } };
      return Object.entries(commands.commands)
        .filter(([id]) => id.startsWith("vaultlab:"))
        .map(([, command]) => command.hotkeys?.length ?? 0);
    });
    expect(hotkeys.length).toBeGreaterThan(8);
    expect(hotkeys.every((count) => count === 0)).toBe(true);
  });

  it("leaves nothing behind when it is turned off", async () => {
    await mode("preview");
    await browser.$(BLOCK).waitForExist();
    await obsidianPage.disablePlugin("vaultlab");
    await expect(browser.$(".status-bar-item.plugin-vaultlab")).not.toExist();
    await obsidianPage.enablePlugin("vaultlab");
  });
});
