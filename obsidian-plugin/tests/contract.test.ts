/** The plugin as it is built against the daemon as it is: for every test a vault and a daemon of its own. */

import { undo } from "@codemirror/commands";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compileFunction } from "node:vm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { built, type Main } from "./app/built";
import { App, MarkdownView, network, type MarkdownRenderChild, type Plugin } from "./app/obsidian";
import { Real, send } from "./real";

const SOURCE = "superposition: tiny\nfeatures: 3\nhidden: 2\nsteps: 40\nseeds: 1\nrun: manual\nexpect:\n  - loss < 1";
const LONG = "superposition: long\nsteps: 100000\nseeds: 16\nrun: manual";
const note = (source: string) => `---\ntags: [experiment]\n---\n# Words\n\n\`\`\`vaultlab\n${source}\n\`\`\`\n\nmore words\n`;
const PATIENCE = { timeout: 60_000, interval: 50 };

const MAIN = compileFunction(readFileSync("dist/main.js", "utf8"), ["module", "exports", "require"]) as Main;
const Vaultlab = built(MAIN);

let cache: string;
let real: Real;
let app: App;
let plugin: Plugin;
let watching: number;
const children: MarkdownRenderChild[] = [];

beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), "vaultlab-cache-"));
  network.send = send;
});
afterAll(() => rm(cache, { recursive: true, force: true }));

beforeEach(async () => {
  real = await Real.vault({ "Note.md": note(SOURCE), "Long.md": note(LONG) }, cache);
  app = new App(real.disk, real.vault);
  await app.vault.look();
  watching = window.setInterval(() => void app.vault.look(), 200);
  load();
});

afterEach(async () => {
  for (const child of children.splice(0)) child.unload();
  plugin.unload();
  for (const leaf of [...app.workspace.leaves]) leaf.detach();
  window.clearInterval(watching);
  document.body.replaceChildren();
  await real.remove();
});

/** The app begins with the plugin, or begins anew. */
function load(): void {
  plugin = new Vaultlab(app, {});
  plugin.load();
}

/** What a daemon does before it watches: shows a code, as `vaultlab pair` does. */
const OFFER = "import sys, time, pathlib, vaultlab.commands.watch as w; print('code', w.pairings_of(pathlib.Path(sys.argv[2])).offer(time.time()), flush=True)";

/** A daemon that watches the vault, and knows this device. */
async function paired(): Promise<void> {
  await real.watch(OFFER, "--trust");
  const dialog = await typeCode(await real.said(/^code (\S+)\n/m));
  await vi.waitFor(() => expect(`${status()} ${find(dialog, "said")}`).toMatch(/^Lab: (Idle|tiny|\d waiting)/), PATIENCE);
}

/** A device that was paired with another daemon: with this key, which ours does not know. */
async function stranger(): Promise<void> {
  const [path] = await real.disk.list(".vaultlab");
  const { machine } = JSON.parse(await real.read(path!)) as { machine: string };
  app.secretStorage.setSecret(`vaultlab-${"d".repeat(32)}`, "00".repeat(32));
  app.saveLocalStorage("vaultlab-paired", { device: "d".repeat(32), machine });
  plugin.unload();
  load();
}

const find = (element: Element, cls: string) => element.querySelector(`.vaultlab-${cls}`)?.textContent ?? "";
const status = () => plugin.statusBar[0]?.textContent ?? "";

function render(path: string, source: string): HTMLElement {
  const element = document.body.appendChild(document.createElement("div"));
  const addChild = (child: MarkdownRenderChild) => {
    children.push(child);
    child.load();
  };
  plugin.processors.get("vaultlab")?.(source, element, { sourcePath: path, getSectionInfo: () => null, addChild });
  return element;
}

async function press(element: Element, label: string): Promise<void> {
  const button = () => Array.from(element.querySelectorAll("button")).find((one) => one.textContent === label);
  await vi.waitFor(() => expect(button()).toBeDefined(), PATIENCE);
  button()?.click();
}

async function shows(element: Element, words: string): Promise<void> {
  await vi.waitFor(() => expect(find(element, "state")).toBe(words), PATIENCE);
}

async function typeCode(code: string): Promise<HTMLElement> {
  document.querySelector("[role=dialog]")?.remove();
  plugin.commands.get("pair")?.callback?.();
  const dialog = document.querySelector<HTMLElement>("[role=dialog]")!;
  const input = dialog.querySelector("input")!;
  input.value = code;
  input.dispatchEvent(new Event("input"));
  await press(dialog, "Pair");
  return dialog;
}

test("pairing: a wrong code is told so, the right one makes both sides know each other", async () => {
  const element = render("Note.md", SOURCE);
  await shows(element, "Not paired");
  await real.watch("", "--trust");
  const wrong = await typeCode("MFRG-GZDF-MZTW-Q2LK-NNWG-23TP-OA");
  await vi.waitFor(() => expect(find(wrong, "said")).toContain("does not know this code"), PATIENCE);
  await typeCode(real.command("pair"));
  await shows(element, "Not run yet");
  expect(app.secretStorage.secrets.size).toBe(1);
  expect(JSON.stringify([...app.local])).not.toContain([...app.secretStorage.secrets.values()][0]);
});

test("a block runs while its note is open: state, verdict, and the embed as one undo step", async () => {
  await paired();
  const leaf = app.workspace.getLeaf(true);
  await leaf.openFile(app.vault.getFileByPath("Note.md")!, { state: { mode: "source" } });
  const { editor } = leaf.view as MarkdownView;
  const element = render("Note.md", SOURCE);
  await press(element, "Run");
  await shows(element, "Up to date");
  await vi.waitFor(() => expect(find(element, "claims")).toBe("loss < 1supported"), PATIENCE);
  const embedded = note(SOURCE).replace("```\n\nmore", "```\n\n![[vaultlab/tiny#^result]]\n\nmore");
  await vi.waitFor(() => expect(editor.getValue()).toBe(embedded), PATIENCE);
  await vi.waitFor(async () => expect(await real.read("Note.md")).toBe(embedded), PATIENCE);
  undo(editor.cm);
  expect(editor.getValue()).toBe(note(SOURCE));
});

test("a note with a byte order mark and other line ends keeps them when the embed comes in, and is closed all the while", async () => {
  const bytes = (text: string) => `\ufeff${text.replaceAll("\n", "\r\n")}`;
  await real.write("Note.md", bytes(note(SOURCE)));
  await paired();
  const element = render("Note.md", SOURCE);
  await press(element, "Run");
  await shows(element, "Up to date");
  const embedded = note(SOURCE).replace("```\n\nmore", "```\n\n![[vaultlab/tiny#^result]]\n\nmore");
  await vi.waitFor(async () => expect(await real.read("Note.md")).toBe(bytes(embedded)), PATIENCE);
});

test("what is wrong is marked in the editor while it is typed", async () => {
  await paired();
  const leaf = app.workspace.getLeaf(true);
  await leaf.openFile(app.vault.getFileByPath("Note.md")!, { state: { mode: "source" } });
  const { cm } = (leaf.view as MarkdownView).editor;
  const at = cm.state.doc.toString().indexOf("es: 3");
  cm.dispatch({ changes: { from: at, to: at + 1 } });
  await vi.waitFor(() => expect(cm.dom.querySelector(".vaultlab-mend")?.textContent).toContain("features"), PATIENCE);
  expect(cm.dom.querySelector(".vaultlab-wrong")?.textContent).toBe("featurs: 3");
  cm.dispatch({ changes: { from: at, insert: "e" } });
  await vi.waitFor(() => expect(cm.dom.querySelector(".vaultlab-mend")).toBeNull(), PATIENCE);
});

test("a run says how far it is, and is cancelled", async () => {
  await paired();
  const element = render("Long.md", LONG);
  await press(element, "Run");
  await shows(element, "Running");
  await vi.waitFor(() => expect(find(element, "progress")).toMatch(/of 100\u202f000/), PATIENCE);
  await press(element, "Cancel");
  await shows(element, "Not run yet");
});

test("a daemon that begins again is found on its new port, with the same key", async () => {
  await paired();
  const element = render("Note.md", SOURCE);
  await shows(element, "Not run yet");
  const port = () => real.disk.list(".vaultlab").then(async ([path]) => JSON.parse((await real.read(path!))) as { port: number });
  const before = (await port()).port;
  await real.stop();
  await shows(element, "No daemon");
  await real.watch("", "--trust");
  await press(element, "Try again");
  await shows(element, "Not run yet");
  expect((await port()).port).not.toBe(before);
});

test("an untrusted vault runs nothing until it is trusted here", async () => {
  await paired();
  await real.stop();
  await real.watch("import vaultlab.trust as t; t.distrust(__import__('pathlib').Path(__import__('sys').argv[2]))");
  const element = render("Long.md", LONG);
  plugin.commands.get("reconnect")?.callback?.();
  await press(element, "Trust this vault…");
  const dialog = document.querySelector<HTMLElement>("[role=dialog]")!;
  expect(dialog.textContent).toContain("notes hold no code");
  await press(dialog, "Trust this vault");
  await vi.waitFor(() => expect(element.textContent).not.toContain("Nothing runs before"), PATIENCE);
  expect(status()).toBe("Lab: Idle");
});

test("a clock that is wrong is named, whatever it is off", async () => {
  await paired();
  for (const [seconds, apart] of [[-100, "2 min"], [600, "10 min"]] as const) {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 1000 * seconds });
    try {
      plugin.unload();
      load();
      const element = render("Note.md", SOURCE);
      await shows(element, "Clocks differ");
      expect(find(element, "hint")).toContain(`${apart} apart`);
    } finally {
      vi.useRealTimers();
    }
  }
});

test.each([
  [2, "Update this plugin"],
  [0, "Update vaultlab on this machine"],
])("a daemon of protocol %i: which side to update", async (protocol, words) => {
  await real.watch(`import vaultlab.protocol as p; p.PROTOCOL = ${protocol}`, "--trust");
  await stranger();
  const element = render("Note.md", SOURCE);
  await shows(element, "Versions differ");
  expect(find(element, "hint")).toContain(words);
});

test("a key that the daemon does not know is no key: pair anew", async () => {
  await real.watch("", "--trust");
  await stranger();
  await shows(render("Note.md", SOURCE), "Not recognised");
});
