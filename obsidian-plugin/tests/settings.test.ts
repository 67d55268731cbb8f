import { afterEach, expect, test, vi } from "vitest";
import { Platform, type PluginSettingTab } from "./app/obsidian";
import { block } from "./daemon";
import { House, sha256 } from "./plugin";

let house: House;
afterEach(() => {
  house.close();
  Platform.isMobile = false;
});

const names = (tab: PluginSettingTab) => Array.from(tab.containerEl.querySelectorAll(".setting-item-name"), (one) => one.textContent);
const row = (tab: PluginSettingTab, name: string) =>
  Array.from(tab.containerEl.querySelectorAll<HTMLElement>(".setting-item")).find((one) => one.textContent?.startsWith(name));

async function opened(paired = true): Promise<PluginSettingTab> {
  house = await House.open({}, paired);
  const tab = house.plugin.tab!;
  document.body.append(tab.containerEl);
  await vi.waitFor(() => {
    tab.update();
    expect(row(tab, "Daemon")?.textContent).toContain(paired ? "Idle" : "Not paired");
  });
  return tab;
}

test("they say where the daemon is, what trust means, and how blocks run", async () => {
  const tab = await opened();
  expect(row(tab, "Daemon")?.textContent).toContain("127.0.0.1:4711");
  expect(row(tab, "Trust this vault")?.textContent).toContain("It runs here.");
  const pace = row(tab, "When blocks run")!.querySelector("select")!;
  pace.value = "hand";
  pace.dispatchEvent(new Event("change"));
  await vi.waitFor(() => expect(house.daemon.requests("/v1/pace")).toEqual([{ by_hand: true }]));
  await vi.waitFor(() => expect(row(tab, "When blocks run")!.querySelector("select")!.value).toBe("hand"));
  const trust = row(tab, "Trust this vault")!.querySelector("input")!;
  trust.click();
  await vi.waitFor(() => expect(house.daemon.requests("/v1/trust")).toEqual([{ trusted: false }]));
  await vi.waitFor(() => expect(row(tab, "Daemon")?.textContent).toContain("Not trusted"));
});

test("a pairing that is forgotten leaves no key, and asks the daemon nothing more", async () => {
  const tab = await opened();
  row(tab, "Forget the pairing")!.querySelector("button")!.click();
  expect([...house.app.secretStorage.secrets.values()]).toEqual([""]);
  await vi.waitFor(() => expect(row(tab, "Daemon")?.textContent).toContain("Not paired"));
  expect(names(tab)).not.toContain("Forget the pairing");
  const asked = house.daemon.asked.length;
  house.plugin.commands.get("reconnect")?.callback?.();
  await new Promise((resolve) => window.setTimeout(resolve, 300));
  expect(house.daemon.asked.length).toBe(asked);
});

test("on a phone results are shown, and nothing is tried", async () => {
  Platform.isMobile = true;
  const source = "superposition: pentagon\nexpect:\n  - loss < 1";
  const result = '---\nlab_status: done\nlab_verdict: supported\nlab_ask: "0"\n---\n';
  house = await House.open({ "Note.md": source, "vaultlab/pentagon.md": result }, "key only");
  const { daemon, plugin } = house;
  daemon.plan = () => ({ blocks: [block({ sha256: sha256(source) })] });
  const element = house.render("Note.md", source);
  await vi.waitFor(() => expect(element.textContent).toContain("Last result: supported."));
  expect(Array.from(element.querySelectorAll("button"), (one) => one.textContent)).toEqual(["Open result"]);
  plugin.tab!.update();
  expect(names(plugin.tab!)).toEqual(["Daemon", "Forget the pairing"]);
  expect(plugin.statusBar).toHaveLength(0);
  expect(daemon.asked).toEqual([]);
});
